"""Whatever happened: any split, any restart, and any erasure leave readers with the same state."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from engram.events import (
    Event,
    FactPinned,
    MessageAppended,
    MessageEmbedded,
    SessionCreated,
    VisibilityChanged,
    WorkAbandoned,
    decode,
    encode,
)
from engram.projections.eraser import Eraser
from engram.projections.erasures import ERASED
from tests.projections.histories import (
    Entry,
    MemoryLog,
    apply,
    deleted,
    embedded,
    ended,
    entries_of,
    open_store,
    pinned,
    said,
    scratch_folder,
    stamped,
    unpinned,
    vector,
)

SESSIONS = st.sampled_from(["s1", "s2"])
MESSAGES = st.sampled_from(["m1", "m2", "m3", "m4"])
FACTS = st.sampled_from(["f1", "f2", "f3"])
TEXTS = st.sampled_from(["secret-a", "secret-b"])


@st.composite
def written(draw: st.DrawFn) -> list[Event]:
    """A batch of messages, some with their vectors."""
    session_id = draw(SESSIONS)
    events: list[Event] = []
    for message_id in draw(st.lists(MESSAGES, min_size=1, max_size=3, unique=True)):
        events.append(said(message_id, draw(TEXTS), session_id=session_id, at_ms=draw(st.integers(1, 99))))
        if draw(st.booleans()):
            events.append(embedded(message_id, session_id=session_id, model=draw(st.sampled_from(["a", "b"]))))
    return events


@st.composite
def mixed(draw: st.DrawFn) -> list[Event]:
    """A message and a fact in one entry, which counts as a whole."""
    session_id = draw(SESSIONS)
    fact: Event = pinned(draw(FACTS), draw(TEXTS), session_id=session_id)
    if draw(st.booleans()):
        fact = unpinned(draw(FACTS), session_id=session_id)
    events: list[Event] = [said(draw(MESSAGES), draw(TEXTS), session_id=session_id), fact]
    return draw(st.permutations(events))


@st.composite
def several_facts(draw: st.DrawFn) -> list[Event]:
    """Facts in one entry, which may get in each other's way. No command writes such."""
    session_id = draw(SESSIONS)
    return [
        pinned(draw(FACTS), draw(TEXTS), session_id=session_id)
        if draw(st.booleans())
        else unpinned(draw(FACTS), session_id=session_id)
        for _ in range(draw(st.integers(2, 3)))
    ]


@st.composite
def worked(draw: st.DrawFn) -> list[Event]:
    """What workers write later, in time or too late."""
    session_id = draw(SESSIONS)
    events: list[Event] = []
    for message_id in draw(st.lists(MESSAGES, min_size=1, max_size=2, unique=True)):
        chunks = [vector(start=n, end=n + 1) for n in range(draw(st.integers(1, 2)))]
        source_index = draw(st.integers(1, 12))
        if draw(st.integers(0, 4)):
            events.append(embedded(message_id, source_index, session_id=session_id, chunks=chunks))
        else:
            events.append(
                WorkAbandoned(
                    session_id=session_id,
                    at_ms=7,
                    work="embedding",
                    message_id=message_id,
                    error="no answer",
                    attempts=3,
                )
            )
    return events


@st.composite
def others(draw: st.DrawFn) -> list[Event]:
    """Everything that is one event an entry."""
    session_id = draw(SESSIONS)
    at_ms = draw(st.integers(1, 99))
    return [
        draw(
            st.one_of(
                st.builds(lambda m: deleted(m, session_id=session_id, at_ms=at_ms), MESSAGES),
                st.builds(lambda f, t: pinned(f, t, session_id=session_id), FACTS, TEXTS),
                st.builds(lambda f: unpinned(f, session_id=session_id), FACTS),
                st.builds(
                    lambda a: SessionCreated(session_id=session_id, at_ms=at_ms, agent_id=a),
                    st.sampled_from([None, "agent"]),
                ),
                st.builds(
                    lambda v: VisibilityChanged(session_id=session_id, at_ms=at_ms, visibility=v),
                    st.sampled_from(["shared", "private"]),
                ),
                st.just(ended(session_id)),
            )
        )
    ]


def as_log(history: Sequence[Sequence[Event]]) -> list[Entry]:
    """Return the entries of a history: the events of each were recorded together, so they have one time."""
    return [
        Entry(index, encode(stamped(events, events[0].at_ms)) if events else ERASED)
        for index, events in enumerate(history, start=1)
    ]


ENTRIES = st.one_of(written(), written(), mixed(), several_facts(), worked(), others())
HISTORIES = st.lists(ENTRIES, min_size=1, max_size=25).map(as_log)


async def folded(entries: Sequence[Entry], *, batch: int = 1024) -> dict[str, str]:
    """Return the digest of a fresh store that has folded `entries`."""
    with scratch_folder() as folder:
        store = await open_store(Path(folder))
        await apply(store, entries, batch=batch)
        digest = await store.digest()
        await store.close()
        return digest


@given(HISTORIES, st.integers(1, 6))
def test_any_split_into_batches_folds_to_the_same_state(entries: list[Entry], batch: int) -> None:
    async def both() -> tuple[dict[str, str], dict[str, str]]:
        return await folded(entries), await folded(entries, batch=batch)

    whole, split = asyncio.run(both())

    assert whole == split


async def erased(entries: Sequence[Entry], every: int) -> tuple[MemoryLog, dict[str, str]]:
    """Fold `entries`, erasing after so many of them; return the log that is left, and the digest of what was folded."""
    log = MemoryLog(entries)
    with scratch_folder() as folder:
        store = await open_store(Path(folder))
        eraser = Eraser(log, store, None)
        for start in range(0, len(entries), every):
            await store.apply(entries[start : start + every])
            while await eraser.clean_log():
                pass
        digest = await store.digest()
        await store.close()
    return log, digest


THE_SAME_TEXT_PINNED_AGAIN_AT_ONCE = entries_of([[pinned("f1"), unpinned("f1"), pinned("f2")]])
ANOTHER_TEXT_UNDER_THE_SAME_ID = entries_of(
    [
        [pinned("f1", "secret-a"), pinned("f2", "secret-b")],
        [pinned("f3", "secret-a"), pinned("f2", "secret-a")],
        unpinned("f2"),
    ]
)
PINNED_TWICE_UNDER_ONE_ID = entries_of([[pinned("f1", "secret-a"), unpinned("f1"), pinned("f1", "secret-b")]])
ORDINALS_BEHIND_A_DELETION = entries_of([said("m1"), said("m2"), deleted("m1"), said("m3")])


@given(HISTORIES, st.integers(1, 8))
@example(ORDINALS_BEHIND_A_DELETION, 8)
@example(THE_SAME_TEXT_PINNED_AGAIN_AT_ONCE, 8)
@example(ANOTHER_TEXT_UNDER_THE_SAME_ID, 8)
@example(PINNED_TWICE_UNDER_ONE_ID, 8)
def test_an_erased_history_folds_to_the_same_state_as_the_full_one(entries: list[Entry], every: int) -> None:
    """`every`: the eraser runs after so many entries, so some are rewritten once and some again."""

    async def both() -> tuple[dict[str, str], dict[str, str], MemoryLog]:
        log, kept = await erased(entries, every)
        assert kept == await folded(entries), "erasing changed what readers see"
        return kept, await folded(log.committed), log

    full, rest, log = asyncio.run(both())

    assert full == rest, [entry.data for entry in log.committed]


EVERYTHING_FORGOTTEN = [
    [[ended(session_id)] for session_id in ("s1", "s2")],
    [
        [event]
        for session_id in ("s1", "s2")
        for event in (
            *(deleted(message_id, session_id=session_id) for message_id in ("m1", "m2", "m3", "m4")),
            *(unpinned(fact_id, session_id=session_id) for fact_id in ("f1", "f2", "f3")),
        )
    ],
]


SAME_TEXT_UNDER_ANOTHER_ID = [
    [said(f"m{n}", session_id="s1"), pinned(f"f{n}", "secret-a", session_id="s1")] for n in (1, 2)
]


FACTS_THAT_WERE_NEVER_PINNED = [[said("m1", session_id="s1")], [pinned("f1", t, session_id="s1") for t in "ab"]]


@given(st.lists(ENTRIES, max_size=25), st.sampled_from(EVERYTHING_FORGOTTEN), st.integers(1, 8))
@example(SAME_TEXT_UNDER_ANOTHER_ID, EVERYTHING_FORGOTTEN[1], 8)
@example(FACTS_THAT_WERE_NEVER_PINNED, EVERYTHING_FORGOTTEN[1], 1)
def test_nothing_of_what_was_written_is_left_once_all_of_it_is_forgotten(
    history: list[list[Event]], deletions: list[list[Event]], every: int
) -> None:
    entries = as_log([*history, *deletions])

    log, _ = asyncio.run(erased(entries, every))

    left = [event for entry in log.committed if entry.data for event in decode(entry.data)]
    assert not any(isinstance(event, MessageAppended | MessageEmbedded | FactPinned) for event in left)


@given(HISTORIES)
def test_an_erased_history_has_nothing_left_to_erase(entries: list[Entry]) -> None:
    async def twice() -> tuple[MemoryLog, MemoryLog]:
        logs = [MemoryLog(entries)]
        for _ in range(2):
            with scratch_folder() as folder:
                log = MemoryLog(logs[-1].committed)
                store = await open_store(Path(folder))
                await store.apply(log.committed)
                while await Eraser(log, store, None).clean_log():
                    pass
                await store.close()
                logs.append(log)
        return logs[1], logs[2]

    once, again = asyncio.run(twice())

    assert once.committed == again.committed


class SlowLog(MemoryLog):
    """After a start it takes a while until it knows again what is committed."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        super().__init__(entries)
        self.is_known = asyncio.Event()
        self.used = asyncio.Event()

    async def entries(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        self.used.set()
        await self.is_known.wait()
        async for batch in super().entries(after):
            yield batch

    async def rewrite(self, payloads: Mapping[int, bytes]) -> None:
        await super().rewrite(payloads)
        self.used.set()


async def test_nothing_is_erased_after_a_start_before_the_log_knows_that_it_is_committed(tmp_path: Path) -> None:
    log = SlowLog(entries_of([said("m1", "secret-a"), deleted("m1")]))
    store = await open_store(tmp_path)
    await store.apply(log.committed)
    eraser = Eraser(log, store, None)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(eraser.run())
        await log.used.wait()
        assert log.rewritten == []

        log.is_known.set()
        await eraser.wait_erased(2)
        assert [set(payloads) for payloads in log.rewritten] == [{1}]
        task.cancel()
    await store.close()
