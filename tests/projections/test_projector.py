"""The projector: who waits for an entry gets its verdicts, or hears what became of it."""

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engram.errors import CorruptionError, NoLeaderError, NotReadyError, TimedOutError
from engram.projections.projector import Projector
from engram.projections.sqlite_store import PrimaryStore
from engram.projections.verdicts import Outcome, Verdict
from tests.projections.histories import Entry, MemoryLog, Status, entries_of, open_store, said


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[PrimaryStore]:
    opened = await open_store(tmp_path)
    yield opened
    await opened.close()


@asynccontextmanager
async def running(projector: Projector) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(projector.run())
        await asyncio.sleep(0)
        yield
        task.cancel()


async def test_a_proposer_gets_the_verdicts_once_reads_see_the_entry(store: PrimaryStore) -> None:
    log = MemoryLog()
    projector = Projector(log, store)

    async with running(projector):
        waiting = projector.expect(1, 1)
        log.append(said("m1"), said("m2"))
        verdicts = await waiting

        assert verdicts == [Verdict(Outcome.ACCEPTED, 1)] * 2
        assert await store.message(1, "m2") is not None


async def test_every_proposer_of_a_batch_gets_its_own_verdicts(store: PrimaryStore) -> None:
    log = MemoryLog()
    projector = Projector(log, store)

    async with running(projector):
        waiting = [projector.expect(index, 1) for index in (1, 2, 3)]
        for event in (said("m1"), said("m1"), said("m1", "other")):
            log.append(event)
        outcomes = [(await each)[0].outcome for each in waiting]

    assert outcomes == [Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.CONFLICT]


async def test_an_entry_of_another_term_tells_the_proposer_that_nothing_was_written(store: PrimaryStore) -> None:
    log = MemoryLog()
    projector = Projector(log, store)

    async with running(projector):
        lost, won = projector.expect(1, 1), projector.expect(1, 2)
        log.append(said("m1"), term=2)

        assert await won == [Verdict(Outcome.ACCEPTED, 1)]
        with pytest.raises(NoLeaderError, match="nothing was written"):
            await lost


async def test_a_proposer_who_gave_up_is_in_nobodys_way(store: PrimaryStore) -> None:
    log = MemoryLog()
    projector = Projector(log, store)

    async with running(projector):
        projector.expect(1, 1).cancel()
        waiting = projector.expect(1, 1)
        log.append(said("m1"))

        assert await waiting == [Verdict(Outcome.ACCEPTED, 1)]


async def test_stopping_leaves_the_outcome_unknown(store: PrimaryStore) -> None:
    projector = Projector(MemoryLog(), store)
    async with running(projector):
        waiting = projector.expect(7, 1)

    with pytest.raises(TimedOutError, match="entry 7"):
        await waiting
    with pytest.raises(TimedOutError, match="entry 8"):
        await projector.expect(8, 1)


async def test_who_waits_for_what_a_fallen_leader_proposed_is_told_that_nobody_knows(store: PrimaryStore) -> None:
    projector = Projector(MemoryLog(), store)
    async with running(projector):
        fallen, later = projector.expect(7, 1), projector.expect(8, 2)

        projector.abandon(1)

        with pytest.raises(TimedOutError, match=r"entry 7.*may or may not be written"):
            await fallen
        assert not later.done()


async def test_an_entry_that_cannot_be_decoded_stops_the_projector(store: PrimaryStore) -> None:
    projector = Projector(MemoryLog([*entries_of([said("m1")]), Entry(2, b"\xc1")], batch=1), store)
    waiting = projector.expect(2, 1)

    with pytest.raises(CorruptionError, match="log entry 2"):
        await projector.run()

    assert store.applied_index == 1
    with pytest.raises(TimedOutError):
        await waiting


async def test_waiting_for_an_index_ends_when_reads_see_it(store: PrimaryStore) -> None:
    log = MemoryLog(entries_of([said("m1"), said("m2")]))
    projector = Projector(log, store)

    async with running(projector):
        await projector.wait_applied(2, timeout_s=5)
        async with asyncio.TaskGroup() as tasks:
            for index in (4, 3, 1):
                tasks.create_task(projector.wait_applied(index, timeout_s=5))
            await asyncio.sleep(0)
            log.append(said("m3"))
            log.append(said("m4"))

    assert store.applied_index == 4


async def test_waiting_for_an_index_that_does_not_come_says_how_far_it_got(store: PrimaryStore) -> None:
    log = MemoryLog(entries_of([said("m1")]))
    projector = Projector(log, store)

    async with running(projector):
        await projector.wait_applied(1, timeout_s=5)

        with pytest.raises(NotReadyError, match=r"entry 9 was not applied here within 0\.01 s; entry 1 was"):
            await projector.wait_applied(9, timeout_s=0.01)


async def test_who_gives_up_waiting_leaves_nothing_behind(store: PrimaryStore) -> None:
    """For an entry that may never come; each left a future in the heap for as long as the node ran."""
    projector = Projector(MemoryLog(), store)
    before = futures_alive()
    for _ in range(50):
        with pytest.raises(NotReadyError):
            await projector.wait_applied(10**9, timeout_s=0)

    assert futures_alive() - before < 5


def futures_alive() -> int:
    gc.collect()
    return sum(type(one) is asyncio.Future for one in gc.get_objects())


async def test_a_store_that_is_ahead_of_the_log_is_not_used(store: PrimaryStore) -> None:
    entries = entries_of([said("m1"), said("m2"), said("m3")])
    await store.apply(entries)

    with pytest.raises(CorruptionError, match="have applied entry 3, but the log ends at 2"):
        await Projector(MemoryLog(entries[:2]), store).run()


async def test_a_store_that_was_folded_from_another_log_is_not_used(store: PrimaryStore) -> None:
    await store.apply(entries_of([said("m1")]))
    another = MemoryLog()
    another.append(said("m1"), term=9)

    with pytest.raises(CorruptionError, match="of term 1, but the log has one of term 9"):
        await Projector(another, store).run()


class LateCommitLog(MemoryLog):
    """A log right after a start: durable entries are there, but not known to be committed yet."""

    def status(self) -> Status:
        return Status(3)

    async def read(self, after: int, limit: int) -> Sequence[Entry]:
        return []


async def test_a_store_may_be_ahead_of_what_is_known_to_be_committed(store: PrimaryStore) -> None:
    await store.apply(entries_of([said("m1"), said("m2"), said("m3")]))
    log = LateCommitLog(entries_of([said("m1"), said("m2"), said("m3")]))
    projector = Projector(log, store)

    async with running(projector):
        log.append(said("m4"))
        await projector.wait_applied(4, timeout_s=5)

    assert store.applied_index == 4
