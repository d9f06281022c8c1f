"""Where the log's file ends: checked before SQLite reads it, and again when it has.

Everything here runs in the database's thread.
"""

from contextlib import closing
from pathlib import Path

from engram import disk
from engram.database import Connection, close_leaving_wal, look_into, recovered_frames, wal_of
from engram.errors import CorruptionError
from engram.log import rows
from engram.log.mark import Mark, mark_of, read_mark
from engram.log.rows import Problem
from engram.log.wal import Ending, examine


class _Opened:
    """SQLite's own file, opened for a moment if it has to be read.

    Not sooner: closing it takes the locks away that another connection of this process has on it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, amount_bytes: int, offset: int) -> bytes:
        """Return what is there, less at the end of the file."""
        file = disk.opened(self._path)
        if file is None:
            return b""
        with closing(file):
            return file.read(amount_bytes, offset)


class Recovery:
    """What SQLite must find in the write-ahead log of the file at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.ending = Ending(None, 0)

    def foresee(self) -> None:
        """Read the write-ahead log, before SQLite does.

        Raises:
            CorruptionError: Something that was durable could not be read; the message names the first such entry.
            StorageError: Another process has the log open, or the disk failed.
        """
        wal = disk.opened(wal_of(self._path))
        if wal is None or not self._path.exists():
            return
        mark = read_mark(self._path)
        with closing(wal):
            self.ending = examine(wal, _Opened(self._path), None if mark is None else mark.place)
        if self.ending.damage:
            self._refuse(mark)

    def agree(self, connection: Connection) -> None:
        """Check that SQLite has read as much; if not, close it, and leave the files as they are.

        Raises:
            CorruptionError: It has not: a bit was wrong on the way.
        """
        found = recovered_frames(connection)
        if found != self.ending.frames:
            close_leaving_wal(connection, self._path)
            raise CorruptionError(
                f"SQLite read {found} frames of {wal_of(self._path)}, which has {self.ending.frames}: try again"
            )

    def _refuse(self, mark: Mark | None) -> None:
        # While another process writes, the file is in no order that could be judged: this says first that it has it.
        last_index = look_into(self._path, lambda connection: rows.load_state(connection).last_index)
        told = f"{wal_of(self._path)}: {self.ending.damage}"
        if last_index is None:
            raise CorruptionError(f"{told}. What can still be read of the log is not sound")
        if mark is not None and mark.last_index <= last_index:
            raise CorruptionError(f"{told}: a vote, or what else was written after log entry {last_index}")
        until = f"; {mark_of(self._path).name} says that there were {mark.last_index}" if mark else ""
        raise CorruptionError(f"{told}. {Problem(last_index + 1, 'cannot be read, nor what follows it')}{until}")
