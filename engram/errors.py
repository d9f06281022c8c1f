"""Every error that crosses a package, sorted by what the caller can do about it.

EngramError
    RequestError                  fix the request; nothing was written
        InvalidError              a value is malformed or out of range
        NotFoundError             the session, message or fact is unknown
        ConflictError             something else is there already: the id, the cluster, a change under way
        TooLargeError             over a limit
    UnavailableError              retry, here or elsewhere; nothing was written
        NoLeaderError             no leader is known
            HandingOverError      this node leads, and is handing that over
        NotLeaderError            another node leads
        OverloadedError           a bounded queue is full
        NotReadyError             the node has not caught up yet, or a dependency is away
        TransferError             the node that was to lead did not take over
        NotClusteredError         the node runs standalone
    TimedOutError                 the outcome is unknown; retry with the same id
        CatchUpError              a learner has joined, but lacks entries; retry to wait on
    FatalError                    stop the node
        CorruptionError           stored bytes are not what was written
        StorageError              the disk failed
        ConfigError               the settings are wrong

`code` is stable and part of the published API. HTTP status codes are the business of `engram.api`.
"""


class EngramError(Exception):
    """Base of all of them; never raised itself."""

    code = "internal"


class RequestError(EngramError):
    """The request cannot be served as it stands; nothing was written."""

    code = "invalid_request"


class InvalidError(RequestError):
    """A value is malformed or out of range. The message names the field, the value and the limit."""

    def __init__(self, detail: str, *, code: str = "invalid_value") -> None:
        super().__init__(detail)
        self.code = code


class NotFoundError(RequestError):
    """The session, message or fact is unknown: code `session_not_found` and so on."""

    def __init__(self, kind: str, identifier: str, *, as_of: int | None = None) -> None:
        then = "" if as_of is None else f" as of log entry {as_of}: not there yet, or forgotten since"
        super().__init__(f"{kind} {identifier!r} is unknown{then}")
        self.code = f"{kind}_not_found"
        self.kind = kind
        self.identifier = identifier


class ConflictError(RequestError):
    """Something else is there already: code `message_conflict`, `message_deleted`, `membership_change_pending`, ..."""

    def __init__(self, detail: str, *, code: str) -> None:
        super().__init__(detail)
        self.code = code


class TooLargeError(RequestError):
    """Over a limit, which the message names."""

    code = "too_large"

    def __init__(self, what: str, *, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"{what} has {size_bytes} bytes; the limit is {limit_bytes} bytes")
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class UnavailableError(EngramError):
    """This node cannot serve the request now. Nothing was written; retrying is safe."""

    code = "unavailable"


class NoLeaderError(UnavailableError):
    """No leader is known: an election is under way, or the cluster has lost its majority."""

    code = "no_leader"


class HandingOverError(NoLeaderError):
    """This node is handing its leadership over: in a moment another one leads."""


class NotLeaderError(UnavailableError):
    """Another node leads."""

    code = "not_leader"

    def __init__(self, leader_id: int) -> None:
        super().__init__(f"node {leader_id} leads")
        self.leader_id = leader_id


class OverloadedError(UnavailableError):
    """A bounded queue is full."""

    code = "overloaded"


class NotReadyError(UnavailableError):
    """This node has not caught up yet, or something it depends on is away."""

    code = "not_ready"


class TransferError(UnavailableError):
    """The node that was to lead did not take over in time; whoever led before may lead on."""

    code = "transfer_failed"


class NotClusteredError(UnavailableError):
    """The node runs standalone."""

    code = "not_clustered"


class TimedOutError(EngramError):
    """The outcome of a write is unknown. Retrying with the same id is safe."""

    code = "outcome_unknown"


class CatchUpError(TimedOutError):
    """A node is a learner now, but does not have the whole log yet. The message says how far it is."""

    code = "catch_up_pending"


class FatalError(EngramError):
    """The node must stop."""

    code = "fatal"


class CorruptionError(FatalError):
    """Stored bytes are not what was written. The message names the place."""

    code = "corruption"


class StorageError(FatalError):
    """The disk failed; what it holds now is unknown until the file is opened again."""

    code = "storage"


class ConfigError(FatalError):
    """The settings are wrong. The message lists every problem."""

    code = "config"


def first_of(errors: BaseException) -> BaseException:
    """Return the first error that is no group, in a group of any depth."""
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors
