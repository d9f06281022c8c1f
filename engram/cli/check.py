"""`engram check`: is everything as it was written? Nothing is changed: read models are compared as copies."""

import asyncio
import shutil
import tempfile
from pathlib import Path

from engram.cli.progress import Progress
from engram.cli.stopped import commit_index, fold, open_log, sqlite_files
from engram.config import Config
from engram.errors import CorruptionError
from engram.log.sqlite import SqliteLog
from engram.projections.sqlite_store import PrimaryStore

SCRATCH_PREFIX = ".check-"
"""A folder beside the read models: they can be larger than a temporary file system."""


async def run(config: Config, progress: Progress) -> int:
    """Check the log, then the read models; return 1 if something is wrong, which is named.

    Raises:
        ConfigError, StorageError: It cannot be checked.
    """
    async with open_log(config, read_only=True) as log:
        progress.say(f"checking {config.log_path}")
        problems = [str(problem) for problem in await log.verify()]
        if not problems:
            state = log.state
            progress.say(f"the log is sound: last index {state.last_index}, base {state.base_index}, term {state.term}")
            problems = await _compare(config, log, progress)
    for problem in problems:
        progress.say(problem)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    progress.say(count if problems else "everything is as it was written")
    return 1 if problems else 0


async def _compare(config: Config, log: SqliteLog, progress: Progress) -> list[str]:
    """Return in which read models the stored projections differ from the log folded again."""
    folder = config.projections_path.parent
    scratch = await asyncio.to_thread(_make_scratch, folder)
    try:
        copy = await asyncio.to_thread(_copy, config.projections_path, scratch)
        stored = await PrimaryStore.open(copy)
        try:
            fresh = await PrimaryStore.open(scratch / "fresh.db")
            try:
                return await _differences(log, stored, fresh, progress)
            finally:
                await fresh.close()
        finally:
            await stored.close()
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch)


async def _differences(log: SqliteLog, stored: PrimaryStore, fresh: PrimaryStore, progress: Progress) -> list[str]:
    applied_index, last_index = stored.applied_index, log.state.last_index
    if applied_index == 0:
        progress.say("there are no read models to compare: the next start builds them from the log")
        return []
    if applied_index > last_index:
        return [f"the read models have folded entry {applied_index}, but the log ends at {last_index}: another log's"]
    try:
        with progress.step("folding the log again", applied_index) as advance:
            await fold(log, fresh, applied_index, advance)
    except CorruptionError as error:
        return [str(error)]
    if fresh.applied_term != stored.applied_term:
        terms = f"of term {stored.applied_term}, the log has term {fresh.applied_term} there"
        return [f"the read models have folded entry {applied_index} {terms}: another log's"]
    if (waiting := commit_index(log) - applied_index) > 0:
        progress.say(f"{waiting} entries are not folded yet: the next start does it")
    progress.say("comparing the read models")
    there, wanted = await stored.digest(), await fresh.digest()
    return [
        f"the read model {name!r} is not what the log says up to entry {applied_index}: run `engram rebuild projections`"
        for name in wanted
        if there.get(name) != wanted[name]
    ]


def _make_scratch(folder: Path) -> Path:
    """Make a folder for copies, and remove what a check that was killed has left."""
    for left in folder.glob(f"{SCRATCH_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=folder))


def _copy(path: Path, folder: Path) -> Path:
    for source in sqlite_files(path):
        if source.exists():
            shutil.copyfile(source, folder / source.name)
    return folder / path.name
