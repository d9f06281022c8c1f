"""Digests of the read models beside the index they are of, taken from what is stored."""

import asyncio
from pathlib import Path

import pytest

from engram.clock import SystemClock
from engram.database import Connection, Database
from engram.projections.digest import AbandonedError, digest_at
from engram.projections.digests import INTERVAL_S, Digests, DigestTaker
from tests.projections.histories import History, apply, created, deleted, embedded, entries_of, open_store, said

HISTORY: History = [created(), [said("m1"), embedded("m1")], said("m2"), deleted("m2")]


class Clock(SystemClock):
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def monotonic_s(self) -> float:
        return self.at_s


class Rounds:
    """Lets a taker do one round at a time."""

    def __init__(self) -> None:
        self._slept = asyncio.Semaphore(0)
        self._may_go_on = asyncio.Semaphore(0)

    async def sleep(self, _: float) -> None:
        self._slept.release()
        await self._may_go_on.acquire()

    async def first(self) -> None:
        """Return when the first round is over."""
        await self._slept.acquire()

    async def one(self) -> None:
        """Return when one more is."""
        self._may_go_on.release()
        await self._slept.acquire()


async def test_a_digest_is_taken_when_something_is_new_and_its_time_has_come(tmp_path: Path) -> None:
    store, clock, rounds = await open_store(tmp_path), Clock(), Rounds()
    entries = entries_of(HISTORY)
    await apply(store, entries[:2])
    taker = DigestTaker(tmp_path / "projections.db", store, clock, sleep=rounds.sleep)
    running = asyncio.get_running_loop().create_task(taker.run())
    await rounds.first()
    first = taker.latest
    await apply(store, entries[2:])
    await rounds.one()
    too_early = taker.latest
    clock.at_s += INTERVAL_S
    await rounds.one()

    assert first is not None
    assert first.log_index == 2
    assert too_early is first
    assert taker.latest == Digests(4, await store.digest())
    running.cancel()
    await asyncio.wait([running])
    await store.close()


async def test_stores_that_folded_the_same_have_the_same_digests_at_the_same_index(tmp_path: Path) -> None:
    found = []
    for name, batch in (("one", 1), ("two", 3)):
        (folder := tmp_path / name).mkdir()
        store = await open_store(folder)
        await apply(store, entries_of(HISTORY), batch=batch)
        found.append(await store.ask(digest_at))
        await store.close()

    assert found[0] == found[1]


async def test_a_digest_gives_way_to_who_cleans_the_file(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await apply(store, entries_of(HISTORY))

    def question(connection: Connection) -> object:
        return digest_at(connection, lambda: True)

    reader = await Database.open(tmp_path / "projections.db", (), read_only=True)
    with pytest.raises(AbandonedError):
        await reader.run(question)

    assert await store.scrub()
    assert not store.is_scrubbing
    await reader.close()
    await store.close()


def test_a_gauge_gets_the_last_bits() -> None:
    assert Digests(7, {"messages": "f" * 56 + "0000001f"}).low_bits() == {"messages": 0x1F}
