"""`engram restore`: a node of its own from a backup, on a data folder that has nothing in it yet."""

import argparse
import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import NamedTuple, Self

from engram.cli.empty import check_empty, prepare
from engram.cli.files import STANDARD, chunks
from engram.cli.progress import Progress
from engram.config import Config
from engram.errors import ConfigError
from engram.foundation import STANDALONE_ID
from engram.log.consensus.types import Entry
from engram.log.restoring import make_log
from engram.moving.backup_format import BackupReader, Head, Tail


class Wanted(NamedTuple):
    """Which backup; where to is a setting."""

    file: str

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Self:
        """Return what the arguments ask for."""
        return cls(file=arguments.file)


async def run(config: Config, wanted: Wanted, progress: Progress) -> int:
    """Check the whole backup, then make the log of it; after a crash there is no log, or all of it.

    Raises:
        ConfigError: The data folder has something in it, or there is no such file.
        CorruptionError: The backup is damaged; nothing was written.
        StorageError: A disk failed.
    """
    if wanted.file == STANDARD:
        raise ConfigError("a backup is read twice, the first time to check it: name a file, not '-'")
    await asyncio.to_thread(check_empty, config)
    head, tail = await verified(wanted.file, progress)
    await asyncio.to_thread(prepare, config)
    node_id = config.node_id or STANDALONE_ID
    with progress.step("restoring the log", tail.rows) as advance:
        async with aclosing(entries_of(wanted.file, advance)) as entries:
            state = await make_log(config.log_path, entries, node_id=node_id)
    progress.say(
        f"{config.log_path} is the log of store {head.store_id} up to entry {tail.index}, as store {state.store_id} of node "
        f"{node_id}, in no cluster; the next start builds the read models"
    )
    return 0


async def verified(file: str, progress: Progress) -> tuple[Head, Tail]:
    """Read a whole backup, and return how it begins and ends.

    Raises:
        ConfigError: There is no such file.
        CorruptionError: It is damaged.
    """
    progress.say(f"checking {file}")
    reader = BackupReader()
    async with aclosing(chunks(file)) as parts:
        async for data in parts:
            for rows in reader.feed(data):
                rows.entries()
    tail = reader.finish()
    assert reader.head is not None
    return reader.head, tail


async def entries_of(file: str, advance: Callable[[int], None]) -> AsyncGenerator[Sequence[Entry]]:
    """Yield the entries of a backup that was verified; `advance` hears how many."""
    reader = BackupReader()
    async with aclosing(chunks(file)) as parts:
        async for data in parts:
            for rows in reader.feed(data):
                yield rows.entries()
                advance(len(rows.rows))
    reader.finish()
