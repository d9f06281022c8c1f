"""Logs to test with: entries, an open file, and what lies on the disk."""

import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import google_crc32c
import msgspec

from engram.log.changes import Append
from engram.log.consensus.types import ConfState, Entry, HardState, Snapshot, SnapshotMeta
from engram.log.members import Book, encode_book
from engram.log.rows import State, checksum
from engram.log.sqlite import WINDOW_BYTES_MAX, SqliteLog

OLD_SCHEMA = """
    CREATE TABLE entries (
        idx INTEGER PRIMARY KEY,
        term INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        data BLOB NOT NULL,
        crc INTEGER NOT NULL
    );
    CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        store_id TEXT NOT NULL,
        node_id INTEGER NOT NULL,
        term INTEGER NOT NULL,
        vote INTEGER NOT NULL,
        commit_index INTEGER NOT NULL,
        last_index INTEGER NOT NULL,
        base_index INTEGER NOT NULL,
        base_term INTEGER NOT NULL,
        base_members TEXT NOT NULL,
        rebuild_due INTEGER NOT NULL,
        crc INTEGER NOT NULL
    );
    PRAGMA application_id = 1701734220;
    PRAGMA user_version = 1;
"""
"""Of the log's file before there were clusters."""


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
    path: Path,
    *,
    members: ConfState | None = None,
    window_bytes_max: int = WINDOW_BYTES_MAX,
    read_only: bool = False,
) -> AsyncIterator[SqliteLog]:
    """Open the log at `path` and close it at the end."""
    log = await SqliteLog.open(
        path, store_id="test", members=members, window_bytes_max=window_bytes_max, read_only=read_only
    )
    try:
        yield log
    finally:
        await log.close()


async def written(path: Path, entries: Sequence[Entry]) -> None:
    """Make a log at `path` that holds `entries`, committed, and close it."""
    async with opened(path) as log:
        await log.append(committed(entries))


def written_in_the_old_format(path: Path, entries: Sequence[Entry], state: State) -> None:
    """Make a log at `path` as version 1 of the format has it: `state` without what came later."""
    fields = (
        state.store_id,
        state.node_id,
        state.term,
        state.vote,
        state.commit,
        state.last_index,
        state.base_index,
        state.base_term,
        msgspec.json.encode(state.base_members).decode(),
        int(state.rebuild_due),
    )
    rows = [
        (one.index, one.term, one.kind, one.data, checksum(one.index, one.term, one.kind, one.data)) for one in entries
    ]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(OLD_SCHEMA)
        connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", rows)
        crc = google_crc32c.value(repr(fields).encode())
        connection.execute("INSERT INTO state VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*fields, crc))


def snapshot_at(index: int, term: int = 1, *, voters: Sequence[int] = (1, 2), book: Book | None = None) -> Snapshot:
    """Return what Raft says of a snapshot; its entries travel by themselves."""
    return Snapshot(SnapshotMeta(index, term, ConfState(voters=tuple(voters))), encode_book(book or {}))


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
