"""Verifying and rebuilding beside a node that goes on."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from engram.clock import SystemClock
from engram.database import Database
from engram.errors import ConflictError, InvalidError
from engram.events import encode
from engram.projections.lance_feed import LanceFeed, Silent
from engram.projections.lance_feed import Options as LanceOptions
from engram.projections.lance_rows import Erasure
from engram.projections.lance_store import LanceStore
from engram.projections.redis_keys import KeySpace
from engram.projections.redis_projection import RedisProjection
from engram.projections.redis_store import RedisStore
from engram.projections.sqlite_store import PrimaryStore
from engram.projections.upkeep import Job, Upkeep, What
from tests.projections.damage import lose_from_index
from tests.projections.histories import History, MemoryLog, apply, created, deleted, embedded, entries_of, said
from tests.projections.redis_scene import Failures, needs_redis
from tests.redis_server import RedisServer
from tests.server_process import find_free_port

LOG_STORE = "a-store"
HISTORY: History = [created(), [said("m1"), embedded("m1")], said("m2"), said("m3"), deleted("m3")]
MODEL, DIMENSION = "model-a", 4


class Awaited(asyncio.Lock):
    """A lock that tells when somebody wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted = asyncio.Event()

    async def acquire(self) -> Literal[True]:
        self.wanted.set()
        return await super().acquire()


class Scene(NamedTuple):
    """A store folded from a log, LanceDB fed from it, and the upkeep of both."""

    log: MemoryLog
    store: PrimaryStore
    lance: LanceStore
    upkeep: Upkeep
    path: Path
    rewriting: Awaited

    async def run(self, what: What) -> Job:
        """Run one job to its end."""
        job = self.upkeep.start(what)
        working = asyncio.get_running_loop().create_task(self.upkeep.run())
        await self.upkeep.wait_ended()
        working.cancel()
        await asyncio.wait([working])
        return job

    async def alter(self, statement: str) -> None:
        """Change the read models as a bug would."""
        database = await Database.open(self.path, ())
        await database.run(lambda connection: connection.execute(statement))
        await database.close()


def projection(url: str, store: PrimaryStore, clock: SystemClock) -> RedisProjection:
    redis = RedisStore(url, KeySpace(1), window=6)
    ids = map(str, itertools.count())
    return RedisProjection(
        redis, store, log_store=LOG_STORE, clock=clock, observer=Failures(), new_id=lambda: next(ids)
    )


@asynccontextmanager
async def scene(
    folder: Path,
    history: History = HISTORY,
    meanwhile: Callable[[MemoryLog, PrimaryStore], Awaitable[None]] | None = None,
    redis_url: str | None = None,
    replaced: Callable[[], None] = lambda: None,
) -> AsyncIterator[Scene]:
    log = MemoryLog(entries_of(history))
    path = folder / "projections.db"
    store = await PrimaryStore.open(path)
    await apply(store, log.committed)
    uri = str(folder / "lancedb")
    lance = LanceStore(uri, model=MODEL, dimension=DIMENSION)
    clock = SystemClock()
    feed = LanceFeed(
        lance,
        store,
        clock=clock,
        observer=Silent(),
        log_last_index=len(log.committed),
        options=LanceOptions(period_s=0.01),
    )

    redis = None if redis_url is None else projection(redis_url, store, clock)

    async def rest(_: float) -> None:
        nonlocal meanwhile
        if (happens := meanwhile) is not None:
            meanwhile = None
            await happens(log, store)
        await asyncio.sleep(0)

    rewriting = Awaited()
    upkeep = Upkeep(
        log, store, folder, lance=lambda: LanceStore(uri, model=MODEL, dimension=DIMENSION), feed=feed, redis=redis,
        log_store=LOG_STORE, rewriting=rewriting, on_replaced=replaced, clock=clock, sleep=rest,
    )  # fmt: skip
    runs = [feed.run(), *([] if redis is None else [redis.feed.run()])]
    feeding = [asyncio.get_running_loop().create_task(run) for run in runs]
    try:
        yield Scene(log, store, lance, upkeep, path, rewriting)
    finally:
        for task in feeding:
            task.cancel()
        await asyncio.wait(feeding)
        await store.close()


def scratch_folders(folder: Path) -> list[Path]:
    return list(folder.glob(".*"))


async def test_a_sound_node_has_nothing_to_find(tmp_path: Path) -> None:
    async with scene(tmp_path) as node:
        job = await node.run("verify")

    assert (job.state, job.findings, job.error) == ("done", [], None)
    assert job.log_index == len(HISTORY)
    assert scratch_folders(tmp_path) == []


async def test_the_first_key_that_differs_is_named_with_its_entry(tmp_path: Path) -> None:
    async with scene(tmp_path) as node:
        await node.alter("UPDATE contents SET text = 'jello' WHERE text = 'hello'")

        job = await node.run("verify")

    assert [(each.model, each.session_id, each.key, each.log_index) for each in job.findings] == [
        ("messages", "s", "message m1", 2)
    ]
    assert "hello" not in str(job.findings)


async def test_an_index_of_sqlite_that_lacks_a_row_is_found_beside_a_node_that_runs(tmp_path: Path) -> None:
    async with scene(tmp_path) as node:
        await asyncio.to_thread(lose_from_index, node.path, "messages_by_id", "message_id = 'm2'")

        job = await node.run("verify")
        await node.run("projections")
        after = await node.run("verify")

    assert [(each.model, each.session_id) for each in job.findings][:1] == [("indexes", None)]
    assert "messages_by_id" in job.findings[0].what
    assert after.findings == []


async def test_a_node_that_writes_and_erases_meanwhile_is_sound(tmp_path: Path) -> None:
    async def forget(log: MemoryLog, store: PrimaryStore) -> None:
        await store.apply([log.append(deleted("m200")), log.append(said("a new one"))])
        await log.rewrite({201: encode([deleted("m200")])})

    history = [said(f"m{number}") for number in range(300)]
    async with scene(tmp_path, history, forget) as node:
        job = await node.run("verify")

    assert (job.state, job.findings, job.error) == ("done", [], None)
    assert job.log_index == 302


async def test_one_job_runs_at_a_time(tmp_path: Path) -> None:
    async with scene(tmp_path) as node:
        node.upkeep.start("verify")

        with pytest.raises(ConflictError, match="verify is under way"):
            node.upkeep.start("lancedb")


async def test_without_redis_there_is_none_to_rebuild(tmp_path: Path) -> None:
    async with scene(tmp_path) as node:
        with pytest.raises(InvalidError, match="REDIS_URL is not set"):
            node.upkeep.start("redis")


async def test_lancedb_is_dropped_and_written_again(tmp_path: Path) -> None:
    history: History = [*HISTORY, [said("m9"), embedded("m9")]]
    async with scene(tmp_path, history) as node:
        assert (await node.run("lancedb")).state == "done"
        await node.lance.forget([Erasure("default", "s", "m1", 99)])
        lost = await node.run("verify")

        rebuilt = await node.run("lancedb")

        assert (rebuilt.state, rebuilt.done) == ("done", rebuilt.total)
        assert [(each.projection, each.key, each.what) for each in lost.findings] == [
            ("lancedb", "message m1, chunk 0", "is missing")
        ]
        assert (await node.run("verify")).findings == []


async def test_read_models_that_were_altered_are_as_the_log_says_again(tmp_path: Path) -> None:
    dropped: list[bool] = []
    async with scene(tmp_path, replaced=lambda: dropped.append(True)) as node:
        digests = await node.store.digest()
        await node.alter("UPDATE contents SET text = 'jello' WHERE text = 'hello'")

        job = await node.run("projections")

        assert (job.state, job.error) == ("done", None)
        assert dropped == [True]
        assert scratch_folders(tmp_path) == []
        assert await node.store.digest() == digests


async def test_what_is_written_and_erased_while_the_read_models_are_built_is_in_them(tmp_path: Path) -> None:
    async def go_on(log: MemoryLog, store: PrimaryStore) -> None:
        await store.apply([log.append(deleted("m200")), log.append(said("a new one"))])
        await log.rewrite({201: encode([deleted("m200")])})

    history = [said(f"m{number}") for number in range(300)]
    async with scene(tmp_path, history, go_on) as node:
        job = await node.run("projections")
        await node.store.apply([node.log.append(said("behind it"))])

        assert (job.state, node.store.applied_index) == ("done", 303)
        assert (await node.store.counts()).messages == 301
        assert await node.store.erasures(limit=9, log_is_clean=False) != []
        assert node.store.erasure_wanted.is_set()
        assert (await node.run("verify")).findings == []


async def test_an_erasure_and_the_exchange_of_the_files_wait_for_each_other(tmp_path: Path) -> None:
    async with scene(tmp_path) as node:
        before = (tmp_path / "projections.db").stat().st_ino
        async with node.rewriting:
            job = node.upkeep.start("projections")
            working = asyncio.get_running_loop().create_task(node.upkeep.run())
            node.rewriting.wanted.clear()
            await node.rewriting.wanted.wait()
            meanwhile = (tmp_path / "projections.db").stat().st_ino
        await node.upkeep.wait_ended()
        working.cancel()
        await asyncio.wait([working])

    assert meanwhile == before
    assert job.state == "done"
    assert (tmp_path / "projections.db").stat().st_ino != before


async def test_all_is_the_read_models_and_then_what_is_fed_from_them(tmp_path: Path) -> None:
    history: History = [*HISTORY, [said("m9"), embedded("m9")]]
    async with scene(tmp_path, history) as node:
        await node.alter("UPDATE contents SET text = 'jello' WHERE text = 'hello'")

        job = await node.run("all")

        assert (job.state, job.step) == ("done", "writing vectors to LanceDB")
        assert [note.split(" ")[:2] for note in job.notes] == [["writes", "waited"]]
        assert (await node.run("verify")).findings == []


async def test_a_log_that_cannot_be_folded_leaves_the_read_models_as_they_are(tmp_path: Path) -> None:
    async with scene(tmp_path) as node:
        digests = await node.store.digest()
        await node.log.rewrite({3: b"no events"})

        job = await node.run("projections")

        assert job.state == "failed"
        assert await node.store.digest() == digests
        assert scratch_folders(tmp_path) == []


async def test_a_log_that_cannot_be_folded_fails_the_job_alone(tmp_path: Path) -> None:
    async with scene(tmp_path) as node:
        await node.log.rewrite({3: b"no events"})

        job = await node.run("verify")

        assert job.state == "failed"
        assert job.error is not None
        assert "log entry 3" in job.error


@needs_redis
async def test_redis_is_compared_and_written_again(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", find_free_port()) as server:
        async with scene(tmp_path, redis_url=server.url) as node:
            assert (await node.run("redis")).state == "done"
            sound = await node.run("verify")
            with server.client() as client:
                client.lset("engram:1:default:s:messages", 0, "nonsense")
            spoilt = await node.run("verify")
            rebuilt = await node.run("redis")
            again = await node.run("verify")

    assert (sound.findings, sound.notes[1:]) == ([], [])
    assert [(each.projection, each.model, each.session_id) for each in spoilt.findings] == [("redis", "session", "s")]
    assert (rebuilt.state, rebuilt.done, rebuilt.error) == ("done", 1, None)
    assert again.findings == []


@needs_redis
async def test_a_redis_that_is_away_is_told_and_is_no_difference(tmp_path: Path) -> None:
    async with scene(tmp_path, redis_url=f"redis://127.0.0.1:{find_free_port()}/0") as node:
        job = await node.run("verify")

    assert (job.state, job.findings) == ("done", [])
    assert any(note.startswith("Redis is not compared") for note in job.notes)
