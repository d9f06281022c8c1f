"""`engram import`: exports into a node that runs, or a node of its own from them, where there is no data yet."""

import argparse
import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import NamedTuple, Self

from engram.cli.empty import check_empty, prepare
from engram.cli.files import chunks
from engram.cli.import_running import Manner, import_into
from engram.cli.progress import Progress
from engram.config import Config
from engram.errors import ConfigError, CorruptionError, InvalidError
from engram.foundation import STANDALONE_ID
from engram.log.consensus.types import Entry
from engram.log.restoring import make_log
from engram.moving.importing import Importer

BATCH_ROWS = 512
BATCH_BYTES = 4 * 1024 * 1024
"""Rows written at a time: one flush for them all, and a few MiB of memory."""


class Wanted(NamedTuple):
    """Which exports, in order, and where to."""

    files: Sequence[str]
    url: str | None
    """None: into a data folder, which is a setting, and has nothing in it."""
    manner: Manner

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Self:
        """Return what the arguments ask for."""
        manner = Manner(arguments.on_conflict, arguments.deletions, arguments.from_line)
        return cls(files=arguments.files, url=arguments.url, manner=manner)


async def run(config: Config, wanted: Wanted, progress: Progress) -> int:
    """Send the exports to the node that is named, or make a log of them.

    After a crash, or when one of them is damaged, there is no log, or all of it.

    Raises:
        ConfigError: The data folder has something in it, there is no such file, or the exports do not go together.
        CorruptionError: An export is damaged.
        StorageError: A disk failed.
        RemoteError: The node that was named refuses, or does not answer.
    """
    if wanted.url is not None:
        return await import_into(wanted.url, wanted.files, wanted.manner, progress)
    await asyncio.to_thread(check_empty, config)
    await asyncio.to_thread(prepare, config)
    importer = Importer()
    node_id = config.node_id or STANDALONE_ID
    async with aclosing(_batches(importer, wanted.files, progress)) as entries:
        state = await make_log(config.log_path, entries, node_id=node_id)
    progress.say(
        f"{config.log_path} has {importer.events} events, up to entry {state.last_index}, as store {state.store_id} of "
        f"node {node_id}, in no cluster; the next start builds the read models"
    )
    return 0


async def _batches(importer: Importer, files: Sequence[str], progress: Progress) -> AsyncGenerator[Sequence[Entry]]:
    batch: list[Entry] = []
    size_bytes = 0
    async with aclosing(_rows(importer, files, progress)) as parts:
        async for part in parts:
            batch += part
            size_bytes += sum(len(entry.data) for entry in part)
            if len(batch) >= BATCH_ROWS or size_bytes >= BATCH_BYTES:
                yield batch
                batch, size_bytes = [], 0
    if batch:
        yield batch


async def _rows(importer: Importer, files: Sequence[str], progress: Progress) -> AsyncGenerator[Sequence[Entry]]:
    for file in files:
        progress.say(f"importing {file}")
        try:
            async with aclosing(chunks(file)) as parts:
                async for data in parts:
                    for rows in importer.feed(data):
                        yield rows
            for rows in importer.finish():
                yield rows
        except CorruptionError as error:
            raise CorruptionError(f"{file}: {error}") from None
        except InvalidError as error:
            raise ConfigError(f"{file}: {error}") from None
