"""Putting a SQLite file in the place of another one, so that a process killed at any point leaves one of them, whole."""

import asyncio
from pathlib import Path

from engram import disk
from engram.database import wal_of


async def put_in_place(fresh: Path, path: Path) -> None:
    """Give the closed file `fresh` the name of another one, whose write-ahead log is empty; readers may have it open.

    That log goes first, durably: SQLite would take it for the new file's. Without it the old file is whole as well.

    Raises:
        StorageError: The disk failed.
    """

    def put() -> None:
        for beside in (wal_of(path), path.with_name(path.name + "-shm")):
            disk.remove(beside)
        disk.sync(path.parent)
        disk.move_durably(fresh, path)

    await asyncio.to_thread(put)
