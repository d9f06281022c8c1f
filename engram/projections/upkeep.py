"""Verifying and rebuilding on a running node: one job at a time, in steps that leave the node room to answer.

The read models are rebuilt in a scratch store, too, which then takes the place of theirs. Only for the last entries, and
for the exchange of the files, do writes wait.

A verification folds the log again, into a scratch store beside the read models, and compares piece by piece, each piece in
the state in which it was read. What differs once is looked at again: the node writes, erases and feeds meanwhile.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

from engram.clock import Clock
from engram.errors import ConflictError, CorruptionError, EngramError, InvalidError
from engram.projections import comparison, lance_comparison, redis_comparison
from engram.projections.comparison import compare
from engram.projections.entries import LogEntry
from engram.projections.file_check import Unchecked, check_running, table_names
from engram.projections.lance_feed import LanceFeed
from engram.projections.lance_store import LanceError, LanceStore
from engram.projections.redis_projection import RedisProjection
from engram.projections.redis_store import RedisFailedError
from engram.projections.scratch import REBUILD, VERIFY, scratch
from engram.projections.sqlite_slices import count_rows
from engram.projections.sqlite_store import PrimaryStore

FOLD_ENTRIES: Final = 128
"""Entries folded in one go: some 20 ms, after which the node has the processor for as long."""

COMPARE_ROWS: Final = 500
"""Rows compared in one go: some milliseconds of the thread that answers readers."""

TRIES: Final = 5
"""How often a piece that differs is looked at."""

POLL_S: Final = 0.2
"""How often a feed is asked how far it is."""

FOUND_MAX: Final = 100
"""Differences that are kept of one job: whoever has so many needs no more."""

LAST_ENTRIES: Final = FOLD_ENTRIES
"""Entries that are left to be folded while writes wait."""

Target = Literal["projections", "lancedb", "redis", "all"]
What = Literal["verify"] | Target
State = Literal["running", "done", "failed"]

_log = logging.getLogger(__name__)


class Log(Protocol):
    """The part of the replicated log that is folded."""

    async def read(self, after: int, limit: int) -> Sequence[LogEntry]:
        """Return up to `limit` committed entries behind the index `after`."""


class Finding(NamedTuple):
    """The first key that differs in a read model."""

    projection: Literal["primary", "lancedb", "redis"]
    model: str
    session_id: str | None
    key: str
    log_index: int
    """The entry that made it what it should be; 0: none alone."""
    what: str


@dataclass(slots=True)
class Job:
    """What is done, or was done last, and how far it is."""

    what: What
    started_at_ms: int
    state: State = "running"
    step: str = "waiting"
    done: int = 0
    total: int = 0
    ended_at_ms: int | None = None
    log_index: int = 0
    """The entry up to which the log was folded for a comparison; 0 before."""
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was not compared, and why."""
    error: str | None = None

    def begin(self, step: str, total: int) -> None:
        """Begin a step of `total` parts."""
        self.step, self.done, self.total = step, 0, total

    def advance(self, parts: int) -> None:
        """Note that so many more parts are done."""
        self.done += parts


class Upkeep:
    """Carries out jobs, one at a time.

    Args:
        lance: Makes a way of its own into the long-term store, to read it.
        rewriting: Held by whoever erases; the read models do not change their file meanwhile.
        on_replaced: Hears that all that was read before is of read models that are gone.
        sleep: Lets the node work meanwhile.
    """

    def __init__(
        self,
        log: Log,
        store: PrimaryStore,
        folder: Path,
        *,
        lance: Callable[[], LanceStore],
        feed: LanceFeed,
        redis: RedisProjection | None,
        log_store: str,
        rewriting: asyncio.Lock,
        on_replaced: Callable[[], None],
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._entries = log
        self._store = store
        self._folder = folder
        self._lance = lance
        self._feed = feed
        self._redis = redis
        self._log_store = log_store
        self._rewriting = rewriting
        self._on_replaced = on_replaced
        self._clock = clock
        self._sleep = sleep
        self._wanted = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()
        self._job: Job | None = None
        self.last_verify: Job | None = None
        """The verification that runs, or the last one since the start of the node."""
        self.last_rebuild: Job | None = None
        """The same of rebuilds."""

    def start(self, what: What) -> Job:
        """Begin a job; `run` does it.

        Raises:
            ConflictError: Another one is under way: `job_running`.
            InvalidError: There is no Redis to rebuild.
        """
        if self._job is not None and self._job.state == "running":
            raise ConflictError(
                f"{self._job.what} is under way, one job at a time: {self._job.step}", code="job_running"
            )
        if what == "redis" and self._redis is None:
            raise InvalidError("what is 'redis'; REDIS_URL is not set on this node: there is no Redis to rebuild")
        self._job = Job(what, self._clock.now_ms())
        if what == "verify":
            self.last_verify = self._job
        else:
            self.last_rebuild = self._job
        self._ended.clear()
        self._wanted.set()
        return self._job

    async def wait_ended(self) -> None:
        """Return when no job is under way."""
        await self._ended.wait()

    async def run(self) -> None:
        """Carry out jobs for ever. One that fails says so; nothing else notices.

        Raises:
            CorruptionError, StorageError: The file of the read models is lost, and the node with it.
        """
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            assert self._job is not None
            await self._carry_out(self._job)

    async def _carry_out(self, job: Job) -> None:
        try:
            await self._work(job)
            job.state = "done"
        except (EngramError, LanceError, RedisFailedError) as error:
            job.state, job.error = "failed", str(error)
            if self._store.is_lost:
                raise
        job.ended_at_ms = self._clock.now_ms()
        self._ended.set()
        level = logging.WARNING if job.findings or job.error else logging.INFO
        extra = {"job": job.what, "state": job.state, "findings": len(job.findings), "error": job.error}
        _log.log(level, "upkeep ended", extra=extra)

    async def _work(self, job: Job) -> None:
        match job.what:
            case "verify":
                await self._verify(job)
            case "redis":
                await self._refill_redis(job)
            case "lancedb":
                await self._refill_lancedb(job)
            case "projections":
                await self._rebuild(job)
            case "all":
                await self._rebuild(job)
                await self._refill_lancedb(job)
                if self._redis is not None:
                    await self._refill_redis(job)

    async def _rebuild(self, job: Job) -> None:
        """Fold the log again, and put what comes of it in the place of the read models."""
        async with scratch(self._folder, REBUILD) as folder:
            path = folder / "fresh.db"
            fresh = await PrimaryStore.open(path)
            try:
                await self._fold(fresh, job, left_max=LAST_ENTRIES)
                await fresh.close()  # all is on the disk, and what was erased on the way is compacted when it is opened
                fresh = await PrimaryStore.open(path)
                await self._put_in_place(fresh, job)
            finally:
                await fresh.close()

    async def _put_in_place(self, fresh: PrimaryStore, job: Job) -> None:
        waited_s = 0.0

        async def fold_rest() -> None:
            nonlocal waited_s
            waited_s = self._clock.monotonic_s()
            job.total = self._store.applied_index
            await self._catch_up(fresh, job.total, job)

        is_done = False
        while not is_done:
            await self._fold(fresh, job, left_max=LAST_ENTRIES)
            async with self._rewriting:
                while not await self._store.scrub():  # most of the write-ahead log, before anybody waits
                    await self._sleep(POLL_S)
                is_done = await self._store.replace(fresh, fold_rest)
        waited_s = self._clock.monotonic_s() - waited_s
        self._on_replaced()
        job.notes.append(f"writes waited {waited_s * 1000:.0f} ms while the files changed places")

    async def _verify(self, job: Job) -> None:
        async with scratch(self._folder, VERIFY) as folder:
            fresh = await PrimaryStore.open(folder / "fresh.db")
            try:
                await self._check_file(job)
                await self._fold(fresh, job)
                await self._compare_primary(fresh, job)
            finally:
                await fresh.close()
        if not job.findings:
            await self._compare_lancedb(job)
            await self._compare_redis(job)

    async def _fold(self, fresh: PrimaryStore, job: Job, *, left_max: int = 0) -> None:
        """Fold the log into `fresh` as far as the node has, which goes on meanwhile, resting as long as it works.

        Up to `left_max` entries may be left to fold.
        """
        job.begin("folding the log again", self._store.applied_index)
        job.advance(fresh.applied_index)
        while (left := self._store.applied_index - fresh.applied_index) > left_max:
            job.total = self._store.applied_index
            started_s = self._clock.monotonic_s()
            await self._catch_up(fresh, fresh.applied_index + min(left, FOLD_ENTRIES), job)
            await self._sleep(self._clock.monotonic_s() - started_s)

    async def _catch_up(self, fresh: PrimaryStore, log_index: int, job: Job) -> None:
        while fresh.applied_index < log_index:
            before = fresh.applied_index
            entries = await self._entries.read(before, min(FOLD_ENTRIES, log_index - before))
            if not entries:
                raise CorruptionError(f"the log does not go on behind entry {before}, up to {log_index}")
            await fresh.apply(entries)
            job.done += fresh.applied_index - before
            job.log_index = fresh.applied_index

    async def _check_file(self, job: Job) -> None:
        job.begin("checking the file", len(await self._store.ask(table_names)))
        async for step in check_running(self._store, self._clock, self._sleep):
            match step:
                case comparison.Difference():
                    job.findings.append(Finding(*step))
                case Unchecked():
                    job.notes.append(str(step))
                case _:
                    job.advance(step)

    async def _compare_primary(self, fresh: PrimaryStore, job: Job) -> None:
        async def catch_up(log_index: int) -> None:
            done = job.done
            await self._catch_up(fresh, log_index, job)
            job.done = done

        job.begin("comparing the read models", await self._store.ask(count_rows))
        async for step in compare(self._store, fresh, catch_up, rows=COMPARE_ROWS, tries=TRIES):
            if isinstance(step, comparison.Difference):
                job.findings.append(Finding(*step))
            else:
                job.advance(step)
            await self._sleep(0)

    async def _compare_lancedb(self, job: Job) -> None:
        lance = self._lance()

        async def wait() -> None:
            await self._sleep(1.0)  # a period of the feed
            await lance.look()

        try:
            if (unread := await lance.look()) is not None:
                job.notes.append(f"LanceDB is not compared: {unread}")
                return
            job.begin("comparing LanceDB", await lance.count())
            async for each in lance_comparison.differences(lance, self._store, wait, job.advance):
                job.findings.append(Finding(*each))
        except LanceError as error:
            job.notes.append(f"LanceDB is not compared, it failed: {error}")
        finally:
            await lance.stop()

    async def _compare_redis(self, job: Job) -> None:
        if self._redis is None:
            return
        if not self._redis.feed.status().ready:
            job.notes.append(f"Redis is not compared: {self._redis.detail()}")
            return
        job.begin("comparing Redis", (await self._store.counts()).sessions)
        try:
            async for finding in self._found_in_redis(self._redis, job):
                job.findings.append(finding)
                if len(job.findings) >= FOUND_MAX:
                    return
        except RedisFailedError as error:
            job.notes.append(f"Redis is not compared, it failed: {error}")

    async def _found_in_redis(self, redis: RedisProjection, job: Job) -> AsyncIterator[Finding]:
        found = redis_comparison.differences(
            redis.redis, self._store, log_store=self._log_store, waiting=redis.feed.waiting, progress=job.advance
        )
        async for each in found:
            if not each.is_behind:
                model, _, key = each.subject.partition(" ")
                yield Finding("redis", model, each.name.session_id, key, each.log_index, each.what)

    async def _refill_redis(self, job: Job) -> None:
        """Let the feed drop and write everything; the primary store answers meanwhile."""
        assert self._redis is not None
        job.begin("writing sessions to Redis", (await self._store.counts()).sessions)
        feed, notes = self._redis.feed, job.notes
        feed.refill()
        while not (status := feed.status()).ready:
            job.done = status.compared_sessions or 0
            job.notes = notes + ([] if status.last_error is None else [f"Redis: {status.last_error}"])
            await self._sleep(POLL_S)
        job.done = job.total

    async def _refill_lancedb(self, job: Job) -> None:
        """Let the feed drop and write everything; nobody waits for the long-term store."""
        job.begin("writing vectors to LanceDB", self._store.applied_index)
        notes = job.notes
        self._feed.refill()
        while self._feed.is_refilling:
            status = self._feed.status()
            job.done = min(status.cursor, job.total)
            job.notes = notes + ([] if status.last_error is None else [f"LanceDB: {status.last_error}"])
            await self._sleep(POLL_S)
        job.done = job.total
