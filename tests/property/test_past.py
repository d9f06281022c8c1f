"""Whatever happened: looked back to, an earlier log index reads as it read then, without what was forgotten since."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, get_args

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engram.errors import NotFoundError
from engram.events import Chunk, Event, Role, SessionCreated, VisibilityChanged, WorkAbandoned
from engram.projections.eraser import Eraser
from engram.projections.past import PastReads
from engram.projections.rows import FactRow, MessageRow, SessionRow
from engram.projections.sqlite_store import PrimaryStore
from engram.recall.lookback import Lookback
from engram.recall.reader import ContextReader
from engram.recall.search import Searcher
from tests.api.node import Letters, Unobserved, Words
from tests.projections.histories import (
    MemoryLog,
    deleted,
    embedded,
    ended,
    open_store,
    pinned,
    said,
    scratch_folder,
    stamped,
    unpinned,
)

SESSION_IDS = ("s1", "s2")
SESSIONS = st.sampled_from(SESSION_IDS)
MESSAGES = st.sampled_from(["m1", "m2", "m3", "m4", "m5"])
FACTS = st.sampled_from(["f1", "f2"])
TEXTS = st.sampled_from(["a cat sat", "the boat sails", "a table", "oil and ice", "tea at eight"])
QUERY = "a boat on ice"
RECENT = 2
NOW_MS = 1_777_593_600_000


class Seen(NamedTuple):
    """What a reader sees of a session."""

    session: SessionRow
    messages: list[MessageRow]
    facts: list[FactRow]
    context: str
    shown: list[tuple[str, int]]
    found: list[tuple[str, float]]


@st.composite
def chunks(draw: st.DrawFn) -> list[Chunk]:
    """One or two vectors, as the model in use makes them."""
    vectors = Letters().embed(draw(st.lists(TEXTS, min_size=1, max_size=2)))
    return [Chunk(start=n, end=n + 1, vector=vector.astype("<f2").tobytes()) for n, vector in enumerate(vectors)]


@st.composite
def spoken(draw: st.DrawFn) -> list[Event]:
    """One or two messages, some with their vectors, in one entry."""
    session_id = draw(SESSIONS)
    events: list[Event] = []
    for message_id in draw(st.lists(MESSAGES, min_size=1, max_size=2, unique=True)):
        role: Role = draw(st.sampled_from(get_args(Role)))
        events.append(said(message_id, draw(TEXTS), session_id=session_id, role=role, at_ms=draw(st.integers(1, 99))))
        if draw(st.booleans()):
            events.append(embedded(message_id, session_id=session_id, model=Letters.model, chunks=draw(chunks())))
    return events


@st.composite
def worked(draw: st.DrawFn) -> list[Event]:
    """What a worker writes about messages, in time or too late, again and again."""
    session_id = draw(SESSIONS)
    events: list[Event] = []
    for message_id in draw(st.lists(MESSAGES, min_size=1, max_size=2, unique=True)):
        if draw(st.integers(0, 3)):
            source = draw(st.integers(1, 8))
            events.append(
                embedded(message_id, source, session_id=session_id, model=Letters.model, chunks=draw(chunks()))
            )
        else:
            events.append(
                WorkAbandoned(
                    session_id=session_id, at_ms=7, work="embedding", message_id=message_id, error="away", attempts=3
                )
            )
    return events


@st.composite
def others(draw: st.DrawFn) -> list[Event]:
    """Everything that is one event an entry."""
    session_id, at_ms = draw(SESSIONS), draw(st.integers(1, 99))
    return [
        draw(
            st.one_of(
                st.builds(lambda m: deleted(m, session_id=session_id, at_ms=at_ms), MESSAGES),
                st.builds(lambda f, t: pinned(f, t, session_id=session_id), FACTS, TEXTS),
                st.builds(lambda f: unpinned(f, session_id=session_id), FACTS),
                st.builds(lambda: SessionCreated(session_id=session_id, at_ms=at_ms, agent_id="agent")),
                st.builds(
                    lambda v: VisibilityChanged(session_id=session_id, at_ms=at_ms, visibility=v),
                    st.sampled_from(["shared", "private"]),
                ),
                st.sampled_from([ended(session_id), said("m1", "a table", session_id=session_id)]),
            )
        )
    ]


ENTRIES = st.builds(stamped, st.one_of(spoken(), spoken(), worked(), worked(), others()), st.integers(1, 99))
HISTORIES = st.lists(ENTRIES, min_size=1, max_size=16)


class Present:
    """A store with all that reads it."""

    def __init__(self, store: PrimaryStore) -> None:
        self.store = store
        self.searcher = Searcher(store, Letters(), cache_bytes_max=1_000_000, observer=Unobserved())
        self.contexts = ContextReader(store, self.searcher, Words(), short_term_count=RECENT)

    async def seen(self, session_id: str) -> Seen | None:
        row = await self.store.session(session_id)
        return None if row is None else await seen(self.store, self.searcher, self.contexts, row)


@asynccontextmanager
async def present() -> AsyncIterator[Present]:
    with scratch_folder() as folder:
        store = await open_store(Path(folder))
        node = Present(store)
        try:
            yield node
        finally:
            node.searcher.close()
            await store.close()


async def seen(reads: PrimaryStore | PastReads, searches: object, contexts: ContextReader, row: SessionRow) -> Seen:
    """Return what is seen of a session; its cursors, which no reader is shown, are left out."""
    scope = [row] if row.agent_id is None else await reads.scope("default", agent_id=row.agent_id)
    context = await contexts.read(
        row.session_id,
        tenant="default",
        max_tokens=1000,
        similarity_threshold=None,
        long_term_top_k=10,
        query=QUERY,
        now_ms=NOW_MS,
        scope="agent",
        format="text",
    )
    found = await searches.search(scope, QUERY, top_k=20, now_ms=NOW_MS)  # type: ignore[attr-defined]
    return Seen(
        row._replace(next_ordinal=0, vectors_index=0, deletions=0),
        await reads.messages(row.session_key, limit=-1),
        await reads.facts(row.session_key),
        context.context,
        [(item.id, item.index) for part in context.sections for item in part.items],
        sorted((hit.message.message_id, round(hit.score, 3)) for hit in found.hits),
    )


async def seen_back(node: Present, log: MemoryLog, index: int) -> list[Seen | None]:
    """Return what is seen of every session as of `index`."""
    lookback = Lookback(node.store, log, node.searcher, Words(), model=Letters.model, short_term_count=RECENT)
    past = await lookback.at(index)
    found: list[Seen | None] = []
    for session_id in SESSION_IDS:
        row = await past.reads.session(session_id)
        if row is None:
            found.append(None)
            try:
                _ = await past.contexts.read(**ANY_CONTEXT, session_id=session_id)
            except NotFoundError:
                continue
            raise AssertionError(session_id)
        whole = await past.reads.whole_session(row)
        view = await seen(past.reads, past.searches, past.contexts, row)
        found.append(view._replace(session=whole._replace(next_ordinal=0, vectors_index=0, deletions=0)))
    return found


ANY_CONTEXT = msgspec.json.decode(
    b'{"tenant":"default","max_tokens":9,"similarity_threshold":null,"long_term_top_k":1,"query":"x","now_ms":1,'
    b'"scope":"session","format":"text"}'
)


def is_kept(given: Seen, now: Seen | None) -> bool:
    """Return whether nothing of what was seen has been forgotten since."""
    return (
        now is not None
        and now.session.session_key == given.session.session_key
        and {row[:5] for row in map(tuple, given.messages)} <= {row[:5] for row in map(tuple, now.messages)}
        and set(given.facts) <= set(now.facts)
    )


def differences(seen_now: Sequence[Seen | None], seen_then: Sequence[Seen | None]) -> list[tuple[str, object, object]]:
    """Return the fields that differ, so that a failure can be read."""
    return [
        (name, getattr(now, name, None), getattr(then, name, None))
        for now, then in zip(seen_now, seen_then, strict=True)
        for name in Seen._fields
        if getattr(now, name, None) != getattr(then, name, None)
    ]


@given(HISTORIES)
def test_an_earlier_index_reads_as_it_read_then_if_nothing_was_forgotten_since(
    history: Sequence[Sequence[Event]],
) -> None:
    async def check() -> None:
        async with present() as node:
            log = MemoryLog()
            given_then: list[list[Seen | None]] = []
            for events in history:
                await node.store.apply([log.append(*events)])
                given_then.append([await node.seen(session_id) for session_id in SESSION_IDS])
            for index, then in enumerate(given_then, start=1):
                kept = all(one is None or is_kept(one, now) for one, now in zip(then, given_then[-1], strict=True))
                if kept:
                    assert differences(await seen_back(node, log, index), then) == []

    asyncio.run(check())


@given(HISTORIES)
def test_what_was_forgotten_is_gone_from_the_past_too_before_and_after_the_log_is_clean(
    history: Sequence[Sequence[Event]],
) -> None:
    async def check() -> None:
        async with present() as node:
            log = MemoryLog()
            for events in history:
                await node.store.apply([log.append(*events)])
            before = [await seen_back(node, log, index) for index in range(1, len(history) + 1)]
            eraser = Eraser(log, node.store, None)
            while await eraser.clean_log():
                pass
            after = [await seen_back(node, log, index) for index in range(1, len(history) + 1)]
            assert before == after
            assert after == await read_while_folding(log)

    asyncio.run(check())


async def read_while_folding(log: MemoryLog) -> list[list[Seen | None]]:
    """Return what is seen at each index by a store that folds the log as it is now."""
    given_then = []
    async with present() as node:
        for entry in log.committed:
            await node.store.apply([entry])
            given_then.append([await node.seen(session_id) for session_id in SESSION_IDS])
    return given_then


def test_vectors_of_the_histories_are_as_the_model_makes_them() -> None:
    [vector] = Letters().embed(["a cat sat"])

    assert np.isclose(np.linalg.norm(vector), 1)
