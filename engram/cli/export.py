"""`engram export`: the events of a node, which runs or does not, as lines of JSON."""

import argparse
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import NamedTuple, Self
from urllib.parse import urlencode

from engram import __version__
from engram.cli.clean import open_clean_log
from engram.cli.files import output, write_checked
from engram.cli.progress import Progress
from engram.cli.remote import stream_from
from engram.clock import SystemClock
from engram.config import Config
from engram.moving.export import export
from engram.moving.export_format import ExportHead, ExportReader


class Wanted(NamedTuple):
    """What to export, and where to."""

    file: str
    url: str | None
    """None: of the node whose data folder the settings name, which does not run."""
    after: int
    session_id: str | None

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Self:
        """Return what the arguments ask for."""
        return cls(file=arguments.file, url=arguments.url, after=arguments.after, session_id=arguments.session)

    def query(self) -> str:
        """Return it as the query of GET /export."""
        named = {"after": self.after, **({} if self.session_id is None else {"session_id": self.session_id})}
        return urlencode(named)


async def run(config: Config, wanted: Wanted, progress: Progress) -> int:
    """Write an export and check it while it is written.

    Raises:
        ConfigError: There is no log, or the file is there already.
        CorruptionError: The log, or what came over the network, is not as it was written.
        StorageError: The node runs and no `--url` was given, or a disk failed.
        RemoteError: The node that was named does not answer, or refuses.
    """
    reader = ExportReader()
    async with _source(config, wanted, progress) as parts, output(wanted.file) as file:
        await write_checked(parts, reader, file)
        end = reader.finish()
    progress.say(f"{end.events} events in {end.entries} entries, up to log entry {end.index}")
    return 0


@asynccontextmanager
async def _source(config: Config, wanted: Wanted, progress: Progress) -> AsyncIterator[AsyncGenerator[bytes]]:
    if wanted.url is not None:
        async with stream_from(wanted.url, f"/export?{wanted.query()}") as parts:
            yield parts
        return
    async with open_clean_log(config, progress) as (log, stopped, store):
        head = ExportHead(
            engram=__version__,
            created_at_ms=SystemClock().now_ms(),
            store_id=log.state.store_id,
            cluster_id=log.state.cluster_id,
            after=wanted.after,
            session_id=wanted.session_id,
        )
        async with aclosing(export(stopped, store, head)) as lines:
            yield lines
