"""Logs to test with: entries, an open file, and what lies on the disk."""

import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

from engram.log.consensus.types import Entry, HardState
from engram.log.sqlite import WINDOW_BYTES_MAX, Append, SqliteLog


def entry(index: int, term: int = 1, data: bytes | None = None) -> Entry:
    """Return an entry whose payload, if not given, names its index and term."""
    return Entry(term=term, index=index, data=b"%d/%d" % (index, term) if data is None else data)


def run(first: int, last: int, term: int = 1) -> list[Entry]:
    """Return the entries first..last of one term."""
    return [entry(index, term) for index in range(first, last + 1)]


def committed(entries: Sequence[Entry]) -> list[Append]:
    """Return what makes `entries` durable, all of them committed."""
    last = entries[-1]
    return [Append(entries=entries, hard_state=HardState(term=last.term, vote=1, commit=last.index))]


@asynccontextmanager
async def opened(
    path: Path, *, window_bytes_max: int = WINDOW_BYTES_MAX, read_only: bool = False
) -> AsyncIterator[SqliteLog]:
    """Open the log at `path` and close it at the end."""
    log = await SqliteLog.open(path, store_id="test", window_bytes_max=window_bytes_max, read_only=read_only)
    try:
        yield log
    finally:
        await log.close()


async def written(path: Path, entries: Sequence[Entry]) -> None:
    """Make a log at `path` that holds `entries`, committed, and close it."""
    async with opened(path) as log:
        await log.append(committed(entries))


async def retained(log: SqliteLog) -> list[Entry]:
    """Return all entries in the file."""
    return [entry async for batch in log.history() for entry in batch]


def tamper(path: Path, statement: str, parameters: Iterable[object] = ()) -> None:
    """Change a closed log behind its back."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, tuple(parameters))


def bytes_on_disk(folder: Path) -> bytes:
    """Return all that the files of `folder` hold. Only for closed files, or one's own process loses its locks."""
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def file_bytes(path: Path) -> bytes:
    """Return what a closed file holds."""
    return path.read_bytes()


def read_outside(folder: Path) -> bytes:
    """Return all that the files of `folder` hold while a log there is open, read by another process.

    This one would lose its locks: POSIX drops them all when any descriptor of the file is closed.
    """
    files = sorted(str(path) for path in folder.iterdir() if path.is_file())
    return subprocess.run(["cat", *files], capture_output=True, check=True).stdout


def flip_bit(path: Path, marker: bytes) -> None:
    """Change one bit in the middle of `marker`, wherever it lies in the file."""
    data = bytearray(path.read_bytes())
    data[data.index(marker) + len(marker) // 2] ^= 0x10
    path.write_bytes(data)
