"""Retention at work: what is old enough is reduced, at a gentle pace, and never against the eraser."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from engram.events import Event, MessageDeleted, MessageEmbedded, SessionCreated, WorkAbandoned, decode
from engram.projections.eraser import Eraser
from engram.projections.sqlite_store import PrimaryStore
from engram.workers.retention import DAY_MS, PASS_S, SHARE, STEP_ENTRIES, Reduced, Retention
from tests.projections.histories import (
    Entry,
    History,
    MemoryLog,
    Status,
    apply,
    deleted,
    embedded,
    entries_of,
    open_store,
    pinned,
    said,
    vector,
)
from tests.workers.memory import Naps

HISTORY_DAYS = 30


@dataclass(frozen=True)
class HistoryStatus(Status):
    base_index: int


class HistoryLog(MemoryLog):
    """A log with a base; all of it is history unless that is said."""

    def __init__(self, history: History, base_index: int | None = None) -> None:
        super().__init__(entries_of(history))
        self.base_index = len(self.committed) if base_index is None else base_index

    def status(self) -> HistoryStatus:
        return HistoryStatus(len(self.committed), self.base_index)


class Clock:
    """Shows so many days after the first entry; each look costs a second."""

    def __init__(self, days: float = HISTORY_DAYS + 1) -> None:
        self.days = days
        self.shown_s = 0.0

    def now_ms(self) -> int:
        return int(self.days * DAY_MS)

    def monotonic_s(self) -> float:
        self.shown_s += 1.0
        return self.shown_s


class Counter:
    def __init__(self) -> None:
        self.entries = self.bytes_saved = 0

    def history_reduced(self, entries: int, bytes_saved: int) -> None:
        self.entries += entries
        self.bytes_saved += bytes_saved


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[PrimaryStore]:
    opened = await open_store(tmp_path)
    yield opened
    await opened.close()


class Kept:
    """A store with a log, and what keeps its history short."""

    def __init__(self, store: PrimaryStore, log: HistoryLog, *, is_rehearsal: bool = False) -> None:
        self.store = store
        self.log = log
        self.clock = Clock()
        self.naps = Naps()
        self.counted = Counter()
        self.eraser = Eraser(log, store, None)
        self.retention = Retention(
            log,
            store,
            self.clock,
            history_days=HISTORY_DAYS,
            rewriting=self.eraser.rewriting,
            observer=self.counted,
            sleep=self.naps,
            is_rehearsal=is_rehearsal,
        )

    async def reduce(self) -> Reduced:
        await self.retention.find_horizon()
        return await self.retention.reduce()

    def left(self) -> list[list[Event]]:
        return [decode(entry.data) if entry.data else [] for entry in self.log.committed]


async def kept(store: PrimaryStore, history: History, base_index: int | None = None) -> Kept:
    log = HistoryLog(history, base_index)
    await apply(store, log.committed)
    return Kept(store, log)


def abandoned(message_id: str, at_ms: int = 1) -> WorkAbandoned:
    return WorkAbandoned(session_id="s", at_ms=at_ms, work="embedding", message_id=message_id, error="away", attempts=2)


EDITED: History = [
    SessionCreated(session_id="s", at_ms=1),
    [said("m1"), embedded("m1", chunks=[vector(fill=7)])],
    SessionCreated(session_id="s", at_ms=1),
    said("m2"),
    said("m1"),
    said("m1", "in conflict"),
    abandoned("m2"),
    embedded("m2", 4),
    abandoned("m2"),
    [embedded("m1", 2, model="b"), embedded("m2", 4, model="b")],
    pinned("f1", "fact"),
    [said("m3"), said("m1"), pinned("f2", "fact")],
    deleted("gone"),
]


async def test_memory_stays_and_old_edits_go(store: PrimaryStore) -> None:
    old = await kept(store, EDITED)
    before = old.left()

    reduced = await old.reduce()

    left = old.left()
    assert [index for index, events in enumerate(left, start=1) if not events] == [3, 5, 6, 9]
    assert left[1] == [before[1][0], embedded("m1", chunks=[])]
    assert left[6] == [WorkAbandoned(session_id="s", at_ms=1, work="embedding", message_id="m2", error="", attempts=2)]
    assert left[7] == [embedded("m2", 4, chunks=[])]
    assert left[11] == [said("m3")]
    assert [left[index] for index in (0, 3, 9, 10, 12)] == [before[index] for index in (0, 3, 9, 10, 12)]
    assert reduced.entries == old.counted.entries == 8
    assert reduced.bytes_saved == old.counted.bytes_saved > 0


async def test_a_second_pass_finds_nothing_to_do(store: PrimaryStore) -> None:
    old = await kept(store, EDITED)
    await old.reduce()
    rewritten = len(old.log.rewritten)

    assert (await old.reduce()).entries == 0
    assert len(old.log.rewritten) == rewritten


async def test_a_rehearsal_counts_and_changes_nothing(store: PrimaryStore) -> None:
    log = HistoryLog(EDITED)
    await apply(store, log.committed)

    assert (await Kept(store, log, is_rehearsal=True).reduce()).entries == 8
    assert log.rewritten == []


def dated(*days: int) -> History:
    """Return a repetition a day: each but the first can go once it is old enough."""
    return [said("m1", at_ms=day * DAY_MS) for day in days]


@pytest.mark.parametrize(
    ("days", "base_index", "horizon_index"),
    [
        ([0, 1, 2, 3], None, 1),
        ([0, 0, 0, 9], None, 3),
        ([0, 0, 0, 9], 2, 2),
        ([9, 0, 0, 0], None, 0),
        ([0, 0, 9, 0], None, 2),
    ],
)
async def test_only_what_is_history_and_older_than_the_days_is_reduced(
    store: PrimaryStore, days: list[int], base_index: int | None, horizon_index: int
) -> None:
    """The clock shows day 31, so what is of day 1 or later stays, and so does all behind it."""
    old = await kept(store, dated(*days), base_index)

    reduced = await old.reduce()

    assert reduced.horizon_index == horizon_index
    assert [bool(events) for events in old.left()] == [not 0 < n < horizon_index for n in range(4)]


async def test_vectors_that_were_in_use_within_the_days_stay(store: PrimaryStore) -> None:
    young = MessageEmbedded(
        session_id="s",
        at_ms=20 * DAY_MS,
        message_id="m1",
        source_index=1,
        model="b",
        dimension=4,
        chunks=[vector()],
    )
    old = await kept(store, [[said("m1"), embedded("m1")], young])
    before = old.left()

    await old.reduce()
    assert old.left() == before

    old.clock.days = 20 + HISTORY_DAYS + 1
    await old.reduce()
    assert old.left()[0] == [said("m1"), embedded("m1", chunks=[])]


async def test_what_the_store_has_not_folded_yet_is_left_alone(store: PrimaryStore) -> None:
    log = HistoryLog([said("m1"), said("m1"), said("m1")])
    await store.apply(log.committed[:2])

    assert (await Kept(store, log).reduce()) == Reduced(2, 1, len(log.committed[2].data))


async def test_it_works_for_a_small_part_of_the_time(store: PrimaryStore) -> None:
    old = await kept(store, [said(f"m{n}") for n in range(3 * STEP_ENTRIES)])

    await old.reduce()

    assert old.naps.taken_s == [pytest.approx(1.0 / SHARE - 1.0)] * 6


async def test_a_pass_is_made_when_the_horizon_has_moved(store: PrimaryStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "engram.workers.retention")
    old = await kept(store, dated(0, 0, 5, 5))
    passes: list[tuple[int, int]] = []

    class StoppedError(Exception):
        pass

    async def sleep(seconds: float) -> None:
        if seconds == PASS_S:
            passes.append((len(caplog.records), old.counted.entries))
            old.clock.days += 2.5
            if len(passes) == 4:
                raise StoppedError
        await asyncio.sleep(0)

    retention = Retention(
        old.log,
        store,
        old.clock,
        history_days=HISTORY_DAYS,
        rewriting=old.eraser.rewriting,
        observer=old.counted,
        sleep=sleep,
    )
    with pytest.raises(StoppedError):
        await retention.run()

    assert passes == [(1, 1), (1, 1), (2, 3), (2, 3)]


class SlowLog(HistoryLog):
    """Lets others run between reading an entry and rewriting it."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self.has_read = asyncio.Event()
        self.may_rewrite = asyncio.Event()

    async def read(self, after: int, limit: int) -> Sequence[Entry]:
        entries = await super().read(after, limit)
        self.has_read.set()
        return entries

    async def rewrite(self, payloads: Mapping[int, bytes]) -> None:
        await self.may_rewrite.wait()
        await super().rewrite(payloads)


async def test_what_is_erased_meanwhile_does_not_come_back(store: PrimaryStore) -> None:
    log = SlowLog([[said("m1", "secret"), embedded("m1"), said("m2")], embedded("m1", 1, model="b")])
    await apply(store, log.committed)
    old = Kept(store, log)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(old.reduce())
        await log.has_read.wait()
        await store.apply([log.append(deleted("m1"))])
        tasks.create_task(old.eraser.clean_log())
        await store.counts()  # both have come as far as they can
        log.may_rewrite.set()

    assert [type(event) for event in old.left()[0][:2]] == [SessionCreated, MessageDeleted]
    assert not any(b"secret" in entry.data for entry in log.committed)
