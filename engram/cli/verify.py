"""`engram verify`: is everything as it was written? Nothing is changed.

A stopped node's log is read whole, then folded into a scratch store that no name leads to, and the read models are
compared with it, as copies. What differs is named: the read model, the first key, the entry that made it.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from engram.cli.progress import Progress
from engram.cli.stopped import commit_index, fold, open_log, sqlite_files
from engram.config import Config
from engram.errors import CorruptionError
from engram.foundation import open_redis_of, stored_space
from engram.log.sqlite import SqliteLog
from engram.projections import lance_comparison, redis_comparison
from engram.projections.comparison import Difference, compare
from engram.projections.file_check import check_file
from engram.projections.lance_store import LanceError, LanceStore
from engram.projections.redis_store import RedisFailedError
from engram.projections.scratch import VERIFY, scratch
from engram.projections.sqlite_slices import count_rows
from engram.projections.sqlite_store import PrimaryStore

ADVICE = "run `engram rebuild"
"""How a line begins that is no problem, but what to do about those before it."""


async def run(config: Config, progress: Progress) -> int:
    """Check the log, then the projections; return 1 if something is wrong, which is named.

    Raises:
        ConfigError, StorageError: It cannot be checked.
    """
    async with open_log(config, read_only=True) as log:
        progress.say(f"checking {config.log_path}")
        problems = [str(problem) for problem in await log.verify()]
        if not problems:
            state = log.state
            progress.say(f"the log is sound: last index {state.last_index}, base {state.base_index}, term {state.term}")
            problems.extend(await _verify_projections(config, log, progress))
    for problem in problems:
        progress.say(problem)
    found = sum(not problem.startswith(ADVICE) for problem in problems)
    count = "1 problem" if found == 1 else f"{found} problems"
    progress.say(count if problems else "everything is as it was written")
    return 1 if problems else 0


async def _verify_projections(config: Config, log: SqliteLog, progress: Progress) -> Sequence[str]:
    async with _copied(config.projections_path) as (stored, fresh):
        if (unfit := _unfit(log, stored, progress)) is not None:
            return unfit
        try:
            with progress.step("folding the log again", stored.applied_index) as advance:
                await fold(log, fresh, stored.applied_index, advance)
        except CorruptionError as error:
            return [str(error)]
        if fresh.applied_term != stored.applied_term:
            terms = f"of term {stored.applied_term}, the log has term {fresh.applied_term} there"
            return [f"the read models have folded entry {stored.applied_index} {terms}: another log's"]
        found = await _compare_primary(stored, fresh, progress)
        if found:
            return [*map(str, found), *_advice("projections", found)]
        in_lancedb = await _compare_lancedb(config, stored, progress)
        in_redis = await _compare_redis(config, log, stored, progress)
        return [*in_lancedb, *_advice("lancedb", in_lancedb), *in_redis, *_advice("redis", in_redis)]


def _unfit(log: SqliteLog, stored: PrimaryStore, progress: Progress) -> Sequence[str] | None:
    """Return what is wrong with read models that cannot be compared, or nothing; None when they can."""
    if stored.applied_index == 0:
        progress.say("there are no read models to compare: the next start builds them from the log")
        return []
    if stored.applied_index > log.state.last_index:
        ends = f"but the log ends at {log.state.last_index}"
        return [f"the read models have folded entry {stored.applied_index}, {ends}: another log's"]
    if (waiting := commit_index(log) - stored.applied_index) > 0:
        progress.say(f"{waiting} entries are not folded yet: the next start does it")
    return None


async def _compare_primary(stored: PrimaryStore, fresh: PrimaryStore, progress: Progress) -> list[Difference]:
    async def is_there(log_index: int) -> None:
        assert log_index == fresh.applied_index, "nobody writes"

    try:
        with progress.step("comparing the read models", await stored.ask(count_rows)) as advance:
            found = await check_file(stored)
            async for step in compare(stored, fresh, is_there):
                if isinstance(step, Difference):
                    found.append(step)
                else:
                    advance(step)
            return found
    except CorruptionError as error:
        return [Difference("primary", "projections.db", None, "", 0, str(error))]


async def _compare_lancedb(config: Config, stored: PrimaryStore, progress: Progress) -> list[str]:
    """Compare LanceDB with read models that were found sound; what it was not fed yet is no fault."""
    space = await stored_space(config, stored)
    lance = LanceStore(config.lance_uri, **space._asdict())
    try:
        if (unread := await lance.look()) is not None:
            progress.say(f"LanceDB is not compared: {unread}; the next start fills it")
            return []
        if lance.cursor > stored.applied_index:
            return [f"LanceDB holds vectors of entry {lance.cursor}, the read models end at {stored.applied_index}"]
        with progress.step("comparing LanceDB", await lance.count()) as advance:
            return [f"lancedb: {each}" async for each in lance_comparison.differences(lance, stored, None, advance)]
    except LanceError as error:
        return [f"LanceDB at {config.lance_uri} cannot be read: {error}"]
    finally:
        await lance.stop()


async def _compare_redis(config: Config, log: SqliteLog, stored: PrimaryStore, progress: Progress) -> list[str]:
    """Compare Redis, where one is used; what it was not fed yet is no fault."""
    redis = open_redis_of(config)
    if redis is None:
        return []
    try:
        with progress.step("comparing Redis", (await stored.counts()).sessions) as advance:
            found = redis_comparison.differences(redis, stored, log_store=log.state.store_id, progress=advance)
            return [str(each) async for each in found if not each.is_behind]
    except RedisFailedError as error:
        progress.say(f"Redis is not compared: {error}; it is filled when it is back")
        return []
    finally:
        await redis.close()


def _advice(target: str, found: Sequence[object]) -> Sequence[str]:
    return [f"{ADVICE} {target}`"] if found else []


@asynccontextmanager
async def _copied(path: Path) -> AsyncIterator[tuple[PrimaryStore, PrimaryStore]]:
    """Give a copy of the read models at `path`, and an empty store to fold into; both are gone afterwards."""
    async with scratch(path.parent, VERIFY) as folder:
        stored = await PrimaryStore.open(await asyncio.to_thread(_copy, path, folder))
        try:
            fresh = await PrimaryStore.open(folder / "fresh.db")
            try:
                yield stored, fresh
            finally:
                await fresh.close()
        finally:
            await stored.close()


def _copy(path: Path, folder: Path) -> Path:
    for source in sqlite_files(path):
        if source.exists():
            shutil.copyfile(source, folder / source.name)
    return folder / path.name
