"""How far the log was durable when somebody last looked: a small file beside it, which no crash makes wrong.

Only the last transaction in SQLite's write-ahead log needs it: that those before were durable shows in the log itself
(`engram.log.wal`). It is written after each commit, when that is durable, and not synced itself. So what it says was
true; after a killed process it is the newest that can be said, after a power cut it may be older, or not there.

Everything here runs in the database's thread.
"""

import struct
from pathlib import Path
from typing import Final, NamedTuple, Self

import google_crc32c

from engram import disk
from engram.database import wal_of
from engram.disk import PlainFile
from engram.errors import StorageError
from engram.log.wal import FRAME_HEADER_BYTES, HEADER_BYTES, Place, Sum

_MAGIC = b"engM"
_VERSION = 1
_MARK = struct.Struct(">4sHxxIIIIIQ")
_CRC = struct.Struct(">I")
MARK_BYTES: Final = _MARK.size + _CRC.size
"""Far below a sector: it is written as a whole or not at all, and a checksum tells where it was not."""

_WAL_HEADER = struct.Struct(">8xI4xII8x")
_FRAME_HEADER = struct.Struct(">4xIIIII")
_LOOK_FRAMES = 4
"""A commit of a few entries is no longer, and one read finds its end."""


class Mark(NamedTuple):
    """A place in the write-ahead log up to which everything was durable, and the last log entry then."""

    place: Place
    last_index: int

    def encoded(self) -> bytes:
        """Return what the file holds."""
        place = self.place
        data = _MARK.pack(_MAGIC, _VERSION, *place.salts, place.frames, *place.total, self.last_index)
        return data + _CRC.pack(google_crc32c.value(data))


def mark_of(path: Path) -> Path:
    """Return the name of the mark of the log at `path`."""
    return path.with_name(path.name + "-mark")


def read_mark(path: Path) -> Mark | None:
    """Return the mark of the log at `path`; None where there is none that can be used.

    Raises:
        StorageError: The disk failed.
    """
    file = disk.opened(mark_of(path))
    if file is None:
        return None
    try:
        return _decoded(file.read(MARK_BYTES, 0))
    finally:
        file.close()


def _decoded(data: bytes) -> Mark | None:
    body, crc = data[: _MARK.size], data[_MARK.size :]
    if len(data) != MARK_BYTES or _CRC.unpack(crc) != (google_crc32c.value(body),):
        return None
    magic, version, salt, other_salt, frames, total, other_total, last_index = _MARK.unpack(body)
    if (magic, version) != (_MAGIC, _VERSION):
        return None
    return Mark(Place((salt, other_salt), frames, (total, other_total)), last_index)


class Marker:
    """Writes the mark of one open log.

    It follows the headers of the frames that SQLite adds. It begins with the generation after the one that was found
    at the opening: behind the end of that there may be frames of a transaction that a crash has cut short.
    """

    def __init__(self, path: Path, mark: PlainFile, wal: PlainFile, found: Sum | None) -> None:
        self._path = path
        self._mark = mark
        self._wal = wal
        self._found = found
        self._salts: Sum | None = None
        self._frames = self._frame_bytes = 0

    @classmethod
    def open(cls, path: Path, found: Sum | None) -> Self:
        """Open the files of the log at `path`, which is open, and had the generation `found` in its write-ahead log.

        Raises:
            StorageError: The disk failed.
        """
        wal = disk.opened(wal_of(path))
        mark = disk.opened(mark_of(path), create=True)
        if wal is None or mark is None:
            raise StorageError(f"{path}: there is no write-ahead log beside it, or no mark")
        return cls(path, mark, wal, found)

    def note(self, last_index: int) -> None:
        """Note that all that is committed now is durable, up to the log entry `last_index`.

        Raises:
            StorageError: The disk failed.
        """
        place = self._last_commit()
        if place is None:
            self._begin_generation()
            place = self._last_commit()
        if place is not None:
            self._frames = place.frames
            self._mark.write(Mark(place, last_index).encoded(), 0)

    def close(self) -> None:
        """Close the files."""
        self._mark.close()
        self._wal.close()

    def _begin_generation(self) -> None:
        """Look for frames from the first on, if SQLite has begun anew."""
        header = self._wal.read(HEADER_BYTES, 0)
        if len(header) < HEADER_BYTES:
            return
        page_bytes, salt, other_salt = _WAL_HEADER.unpack(header)
        if (salt, other_salt) not in {self._salts, self._found}:
            self._salts, self._frames, self._frame_bytes = (salt, other_salt), 0, FRAME_HEADER_BYTES + page_bytes

    def _last_commit(self) -> Place | None:
        """Return where the last of the commits ends that were added to this generation; None if there is none."""
        if self._salts is None:
            return None
        place = None
        number, size = self._frames, self._frame_bytes
        while True:
            data = self._wal.read(_LOOK_FRAMES * size, HEADER_BYTES + number * size)
            for start in range(0, len(data) - FRAME_HEADER_BYTES + 1, size):
                pages, salt, other_salt, total, other_total = _FRAME_HEADER.unpack_from(data, start)
                if (salt, other_salt) != self._salts:
                    return place
                number += 1
                if pages:
                    place = Place(self._salts, number, (total, other_total))
            if len(data) < _LOOK_FRAMES * size:
                return place
