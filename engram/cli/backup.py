"""`engram backup`: the log, consistent at one index and with checksums, of a node that runs or does not."""

import argparse
import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self

from engram import __version__
from engram.cli.clean import open_clean_log
from engram.cli.files import new_file, write_checked
from engram.cli.progress import Progress
from engram.cli.remote import stream_from
from engram.clock import Clock, SystemClock
from engram.config import Config
from engram.moving.backup import backup
from engram.moving.backup_format import BackupReader, Head

SUFFIX = ".backup"


class Wanted(NamedTuple):
    """Where to write, and of which node."""

    target: Path
    url: str | None
    """None: of the node whose data folder the settings name, which does not run."""

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Self:
        """Return what the arguments ask for."""
        return cls(target=arguments.target, url=arguments.url)


async def run(config: Config, wanted: Wanted, progress: Progress) -> int:
    """Write a backup and check it while it is written.

    Raises:
        ConfigError: There is no log, or the file is there already.
        CorruptionError: The log, or what came over the network, is not as it was written.
        StorageError: The node runs and no `--url` was given, or a disk failed.
        RemoteError: The node that was named does not answer, or refuses.
    """
    path = await asyncio.to_thread(_path, wanted.target, SystemClock())
    reader = BackupReader()
    async with _source(config, wanted, progress) as parts, new_file(path) as file:
        await write_checked(parts, reader, file)
        tail = reader.finish()
    progress.say(f"{path} holds the log up to entry {tail.index}, {tail.rows} rows")
    return 0


@asynccontextmanager
async def _source(config: Config, wanted: Wanted, progress: Progress) -> AsyncIterator[AsyncGenerator[bytes]]:
    if wanted.url is not None:
        progress.say(f"backing up the node at {wanted.url}")
        async with stream_from(wanted.url, "/backup") as parts:
            yield parts
        return
    async with open_clean_log(config, progress) as (log, stopped, _):
        progress.say(f"backing up {config.log_path}")
        state = log.state
        head = Head(
            engram=__version__,
            created_at_ms=SystemClock().now_ms(),
            store_id=state.store_id,
            cluster_id=state.cluster_id,
            node_id=state.node_id,
        )
        async with aclosing(backup(stopped, head)) as parts:
            yield parts


def _path(target: Path, clock: Clock) -> Path:
    """Return the file to write: `target`, or one named after the time in it when it is a folder."""
    if not target.is_dir():
        return target
    at = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
    return target / f"engram-{at:%Y%m%dT%H%M%S}Z{SUFFIX}"
