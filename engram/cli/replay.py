"""`engram replay`: the state of memory at an earlier place in the log, folded anew from a stopped node's log or a backup.

The log is only read. What it says up to that place goes into a scratch store, which is printed or served and gone at
the end. What was forgotten since stays forgotten, whether the log was erased already or not.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Self, TextIO

from engram.api.as_of import Moment
from engram.api.times import format_time, parse_time
from engram.cli import replay_printing, replay_serving
from engram.cli.clean import StoppedLog
from engram.cli.progress import Progress
from engram.cli.replay_printing import Replayed
from engram.cli.restore import entries_of, verified
from engram.cli.stopped import commit_index, open_log
from engram.config import Config
from engram.errors import ConfigError, InvalidError
from engram.events import TENANT_DEFAULT, decode
from engram.foundation import STANDALONE_ID
from engram.log.consensus.types import EntryKind
from engram.log.restoring import make_log
from engram.log.sqlite import SqliteLog
from engram.projections.entries import LogEntry, in_batches
from engram.projections.forgetting import ErasedLog, Forgetting
from engram.projections.places import time_of
from engram.projections.scratch import REPLAY, scratch
from engram.projections.sqlite_store import PrimaryStore


class Wanted(NamedTuple):
    """Which moment of which log, and what of it to show."""

    to: str
    session: str | None
    tenant: str
    backup: Path | None
    """None: the data folder of a stopped node."""
    is_json: bool
    port: int | None
    """None: print it; else serve it there."""

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Self:
        """Return what the arguments ask for."""
        return cls(
            to=arguments.to,
            session=arguments.session,
            tenant=arguments.tenant or TENANT_DEFAULT,
            backup=arguments.backup,
            is_json=arguments.json,
            port=arguments.port if arguments.serve else None,
        )


class PastLog:
    """A log up to one index, without what was forgotten behind it."""

    def __init__(self, log: ErasedLog, index: int) -> None:
        self._log = log
        self.index = index

    async def read(self, after: int, limit: int) -> Sequence[LogEntry]:
        """Return the first entries behind the index `after`, `limit` of them at most."""
        entries = await self._log.read(after, min(limit, self.index - after)) if after < self.index else ()
        return [entry for entry in entries if entry.index <= self.index]

    def batches(self) -> AsyncIterator[Sequence[LogEntry]]:
        """Yield all entries, in order."""
        return in_batches(self.read, 0)


async def run(config: Config, wanted: Wanted, out: TextIO, progress: Progress) -> int:
    """Print to `out`, or serve, the state at the moment that is wanted.

    Raises:
        ConfigError: There is no log or no backup.
        InvalidError, NotFoundError: The moment is not in the log, or the session was not there.
        CorruptionError: An entry, or the backup, is damaged.
        StorageError: A node runs, or the disk failed.
    """
    Moment().parse("--to", wanted.to)
    if wanted.port is not None and (wanted.is_json or wanted.session is not None):
        raise ConfigError("--serve prints nothing: leave --session and --json out, and ask the server")
    folder = config.projections_path.parent if wanted.backup is None else wanted.backup.parent
    if wanted.backup is None and not await asyncio.to_thread(config.log_path.exists):
        raise ConfigError(f"there is no log at {config.log_path}; ENGRAM_DATA_DIR and RAFT_DB_PATH say where it is")
    async with scratch(folder, REPLAY) as room, _opened(config, wanted.backup, room, progress) as log:
        committed = StoppedLog(log, commit_index(log))
        index = await _index_of(committed, wanted.to, progress)
        past = PastLog(await _without_forgotten(committed, index, room, progress), index)
        store = await PrimaryStore.open(room / "projections.db")
        try:
            with progress.step("folding the log", index) as advance:
                await _fold(past, store, advance)
            replayed = Replayed(store, wanted.tenant)
            if wanted.port is not None:
                await replay_serving.serve(config, past, store, wanted.port, progress)
            elif wanted.session is not None:
                await replay_printing.print_session(replayed, wanted.session, out, is_json=wanted.is_json)
            else:
                await replay_printing.print_all(replayed, out, is_json=wanted.is_json)
        finally:
            await store.close()
    return 0


@asynccontextmanager
async def _opened(config: Config, backup: Path | None, room: Path, progress: Progress) -> AsyncIterator[SqliteLog]:
    """Open the log of the settings, or one that is made of a backup, to read it."""
    if backup is None:
        async with open_log(config, read_only=True) as log:
            yield log
        return
    _, tail = await verified(str(backup), progress)
    path = room / "log.db"
    with progress.step("reading the backup", tail.rows) as advance:
        async with aclosing(entries_of(str(backup), advance)) as entries:
            await make_log(path, entries, node_id=STANDALONE_ID)
    log = await SqliteLog.open(path, read_only=True)
    try:
        yield log
    finally:
        await log.close()


async def _index_of(log: StoppedLog, to: str, progress: Progress) -> int:
    """Return the last index of a moment: that index, or the one before the first entry that is later."""
    last = log.applied_index
    if to.isdecimal():
        if not 1 <= int(to) <= last:
            raise InvalidError(f"--to is {to}; the log goes from entry 1 to entry {last}")
        return int(to)
    at_ms, is_later = parse_time("--to", to), False
    with progress.step("looking for the time", last) as advance:
        async for batch in log.entries(0):
            for entry in batch:
                entry_ms = time_of(entry)
                if entry_ms > at_ms and is_later:
                    return entry.index - 1
                if entry_ms > at_ms:
                    raise InvalidError(f"--to is {to}; the first event in the log is of {format_time(entry_ms)}")
                is_later = is_later or entry_ms > 0
            advance(len(batch))
    return last


async def _without_forgotten(log: StoppedLog, index: int, room: Path, progress: Progress) -> ErasedLog:
    """Return the log without what was forgotten behind `index`."""
    left, forgetting = ErasedLog(log), Forgetting()
    if index < log.applied_index:
        with progress.step("looking for what was forgotten since", log.applied_index - index) as advance:
            async for batch in log.entries(index):
                for entry in batch:
                    if entry.kind == EntryKind.NORMAL and entry.data:
                        forgetting.note(decode(entry.data))
                advance(len(batch))
    if forgetting:
        store = await PrimaryStore.open(room / "forgotten.db")
        try:
            with progress.step("forgetting it", log.applied_index) as advance:
                await forgetting.erase(left, store, advance)
        finally:
            await store.close()
    return left


async def _fold(past: PastLog, store: PrimaryStore, advance: Callable[[int], None]) -> None:
    done = 0
    async for batch in past.batches():
        await store.apply(batch)
        advance(batch[-1].index - done)
        done = batch[-1].index
