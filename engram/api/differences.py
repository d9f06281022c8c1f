"""What changed in a session between two moments."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

from engram.api.as_of import index_of
from engram.api.calls import Call
from engram.api.replies import Reply, say
from engram.api.schemas import Counts, FactView, Id, Index, MessageView, Visible
from engram.api.times import format_time
from engram.api.views import view_fact, view_message, view_session
from engram.errors import InvalidError, NotFoundError
from engram.recall.differences import Difference, difference
from engram.recall.lookback import Lookback, Past
from engram.recall.reader import Context

CONTEXT_TOKENS = 8000
"""The budget of the contexts that are compared: the default of GET context."""

MEMORIES = 10


class Gone(Struct, kw_only=True):
    """Something that was deleted; what it was is forgotten."""

    id: Id
    index: Annotated[Index, Meta(description="log index of the deletion")]


class GotVectors(Struct, kw_only=True):
    """A message that got vectors, at first or in place of others."""

    id: Id
    index: Index
    model: str


class Shown(Struct, kw_only=True):
    """A piece of a context, and where it comes from."""

    section: Literal["core", "memories", "conversation"]
    id: Id
    session_id: Id
    index: Index


class ContextChange(Struct, kw_only=True):
    """How the context for a query changed."""

    query: str
    before: Annotated[str, Meta(description="the context's text; null: the session was not there")] | None
    after: str
    added: list[Shown]
    removed: list[Shown]


class DifferenceView(Struct, kw_only=True):
    """What changed behind one log index, up to another."""

    session_id: Id
    from_index: Index
    to_index: Index
    from_at: Annotated[str, Meta(description="when it was; null: before the first entry")] | None
    to_at: str | None
    added: Annotated[list[MessageView], Meta(description="messages that are not forgotten since")]
    deleted: list[Gone]
    embedded: list[GotVectors]
    pinned: list[FactView]
    unpinned: list[Gone]
    visibility_before: Annotated[Visible, Meta(description="null: the session was not there")] | None
    visibility_after: Visible
    counts_before: Annotated[Counts, Meta(description="null: the session was not there")] | None
    counts_after: Counts
    context: Annotated[ContextChange, Meta(description="with `query`")] | None = None


async def get_difference(call: Call) -> Reply:
    """Say what changed in a session between two log indexes or times."""
    [session_id] = call.segments
    first = call.text("from")
    last = call.text("to")
    assert first is not None, "it has a default"
    from_index = await index_of(call, "from", first)  # before `to`: both may be now, and the log goes on
    to_index = call.services.reads.applied_index if last is None else await index_of(call, "to", last)
    check_order(("from", from_index), ("to", to_index))
    lookback = call.services.lookback
    assert lookback is not None, "an index was found by it"
    call.read_index = to_index
    return say(await compare(lookback, session_id, call.tenant, from_index, to_index, call.text("query")))


def check_order(first: tuple[str, int], last: tuple[str, int]) -> None:
    """Check two moments, each with its name and its log index.

    Raises:
        InvalidError: The first is behind the last.
    """
    if first[1] > last[1]:
        raise InvalidError(f"{first[0]} is log entry {first[1]}, which is behind {last[0]}, log entry {last[1]}")


async def compare(
    lookback: Lookback, session_id: str, tenant: str, from_index: int, to_index: int, query: str | None
) -> DifferenceView:
    """Return what changed in a session; both indexes are applied.

    Raises:
        InvalidError: Too much did.
        NotFoundError: The session was not there at the later index, or is forgotten.
    """
    before, after = await lookback.at(from_index), await lookback.at(to_index)
    changed = await difference(
        lookback.present, lookback.log, before.reads, after.reads, session_id=session_id, tenant=tenant
    )
    view = view_difference(changed, before, after)
    if query is not None:
        view.context = await _compare_contexts(before, after, session_id, tenant, query)
    return view


def view_difference(changed: Difference, before: Past, after: Past) -> DifferenceView:
    """Return a difference as clients see it."""
    was = None if changed.before is None else view_session(changed.before)
    there = view_session(changed.after)
    return DifferenceView(
        session_id=changed.after.session_id,
        from_index=before.reads.applied_index,
        to_index=after.reads.applied_index,
        from_at=format_time(before.at_ms) if before.at_ms else None,
        to_at=format_time(after.at_ms) if after.at_ms else None,
        added=[view_message(row) for row in changed.added],
        deleted=_gone(changed.deleted),
        embedded=[GotVectors(id=each.message_id, index=each.log_index, model=each.model) for each in changed.embedded],
        pinned=[view_fact(row) for row in changed.pinned],
        unpinned=_gone(changed.unpinned),
        visibility_before=None if was is None else was.visibility,
        visibility_after=there.visibility,
        counts_before=None if was is None else was.counts,
        counts_after=there.counts,
    )


def _gone(gone: Mapping[str, int]) -> list[Gone]:
    return [Gone(id=identifier, index=index) for identifier, index in sorted(gone.items(), key=lambda item: item[1])]


async def _compare_contexts(before: Past, after: Past, session_id: str, tenant: str, query: str) -> ContextChange:
    try:
        was = await _context(before, session_id, tenant, query)
    except NotFoundError:
        was = None
    there = await _context(after, session_id, tenant, query)
    shown_before, shown_after = [] if was is None else _shown(was), _shown(there)
    return ContextChange(
        query=query,
        before=None if was is None else was.context,
        after=there.context,
        added=[each for each in shown_after if each not in shown_before],
        removed=[each for each in shown_before if each not in shown_after],
    )


async def _context(past: Past, session_id: str, tenant: str, query: str) -> Context:
    return await past.contexts.read(
        session_id,
        tenant=tenant,
        max_tokens=CONTEXT_TOKENS,
        similarity_threshold=None,
        long_term_top_k=MEMORIES,
        query=query,
        now_ms=past.at_ms,
        scope="session",
        format="text",
    )


def _shown(context: Context) -> list[Shown]:
    return [
        Shown(section=part.name, id=item.id, session_id=item.session_id, index=item.index)
        for part in context.sections
        for item in part.items
    ]
