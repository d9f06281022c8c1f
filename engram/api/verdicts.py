"""The ledger's word on a write, as an answer or as an error."""

from collections.abc import Iterable

from engram.errors import ConflictError, NotFoundError
from engram.projections.verdicts import Outcome, Verdict


def first_index(kind: str, identifier: str, verdict: Verdict) -> int:
    """Return the log index that counts for a write of `kind` (session, message, fact).

    Raises:
        ConflictError: The id is taken by other content, or was deleted.
        NotFoundError: What it is about is not there.
    """
    match verdict.outcome:
        case Outcome.ACCEPTED | Outcome.DUPLICATE:
            return verdict.first_index
        case Outcome.CONFLICT:
            raise ConflictError(f"{kind} {identifier!r} exists with other content", code=f"{kind}_conflict")
        case Outcome.DELETED:
            raise ConflictError(f"{kind} {identifier!r} was deleted; its id is not taken again", code=f"{kind}_deleted")
        case Outcome.UNKNOWN:
            raise NotFoundError(kind, identifier)


def refuse_rejected(kind: str, written: Iterable[tuple[str, Verdict]]) -> None:
    """Raise the error of the first write that was rejected by itself, if any."""
    for identifier, verdict in written:
        if verdict.outcome not in {Outcome.ACCEPTED, Outcome.DUPLICATE}:
            first_index(kind, identifier, verdict)
