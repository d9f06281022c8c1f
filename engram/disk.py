"""Files past SQLite: made durable, moved, read and written at places. Every call may block; none is for the loop.

Each of these raises a `StorageError` when the disk fails.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engram.errors import StorageError

_COPY_BYTES = 1024 * 1024


class PlainFile:
    """An open file. What is written is not synced: it survives the process, and the system's end as it may be."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def read(self, amount_bytes: int, offset: int) -> bytes:
        """Return what is there, less at the end of the file."""
        try:  # without `_named`, which takes longer than the read: the log does this at each commit
            return os.pread(self._descriptor, amount_bytes, offset)
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror}") from error

    def write(self, data: bytes, offset: int) -> None:
        """Write a few bytes, at once."""
        try:
            written = os.pwrite(self._descriptor, data, offset)
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror}") from error
        if written != len(data):
            raise StorageError(f"{self._path}: only {written} of {len(data)} bytes could be written")

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)


def opened(path: Path, *, create: bool = False) -> PlainFile | None:
    """Open `path`, to be read only unless `create`; None when it is not there."""
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    with _named(path):
        try:
            return PlainFile(path, os.open(path, flags | os.O_CLOEXEC, 0o644))
        except FileNotFoundError:
            return None


def sync(path: Path) -> None:
    """Make a file, or the names of the files in a folder, durable."""
    with _named(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # noqa: TID251  here and in write_anew only
        finally:
            os.close(descriptor)


def move(path: Path, wanted: Path) -> None:
    """Give a file another name; a file that has it already is replaced."""
    with _named(wanted):
        path.replace(wanted)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    with _named(path):
        path.unlink(missing_ok=True)


def move_durably(path: Path, wanted: Path) -> None:
    """Give a closed file another name, as a whole or not at all, and durable when this returns."""
    sync(path)
    move(path, wanted)
    sync(wanted.parent)


def write_anew(path: Path) -> None:
    """Write what a file holds over itself, and sync it; nothing where there is none."""
    with _named(path):
        try:
            file = path.open("r+b")
        except FileNotFoundError:
            return
        with file:
            while data := file.read(_COPY_BYTES):
                file.seek(-len(data), os.SEEK_CUR)
                file.write(data)
            file.flush()
            os.fsync(file.fileno())  # noqa: TID251  as in sync


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error
