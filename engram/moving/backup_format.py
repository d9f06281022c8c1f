"""The backup file: the rows of a log, as they are, with checksums that say where it is damaged.

    magic, then frames: length (4 bytes), CRC32C of what follows (4 bytes), msgpack
    Head, Rows, Rows, ..., Tail

The tail has the SHA-256 of everything before it, so a file that was cut off, or put together from two, is noticed. It is
written and read in order, a frame at a time: neither end holds more than that.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence

import google_crc32c
import msgspec

from engram.errors import CorruptionError
from engram.log.consensus.types import Entry, EntryKind
from engram.projections.entries import LogEntry

MAGIC = b"engram backup 1\n"
"""Anything that changes what a reader must know changes the number."""

FRAME_BYTES = 512 * 1024
"""Rows are put into frames of about this size; one row may be larger."""

FRAME_BYTES_MAX = 16 * 1024 * 1024
"""An entry has 4 MiB: a length beyond this is a damaged one, and must not be waited for."""

ROW_BYTES = 32
"""What a row has beside its payload, about."""

_PREFIX = struct.Struct(">II")


class Head(msgspec.Struct, frozen=True, kw_only=True, tag="head"):
    """Where a backup comes from."""

    engram: str
    """The version that wrote it."""
    created_at_ms: int
    store_id: str
    cluster_id: str
    node_id: int


class Rows(msgspec.Struct, frozen=True, kw_only=True, tag="rows"):
    """Rows of the log, in order: index, term, kind, payload."""

    rows: Sequence[tuple[int, int, int, bytes]]

    def entries(self) -> list[Entry]:
        """Return them as entries.

        Raises:
            CorruptionError: One is of a kind that there is not.
        """
        try:
            return [
                Entry(term=term, index=index, kind=EntryKind(kind), data=data) for index, term, kind, data in self.rows
            ]
        except ValueError as error:
            raise CorruptionError(f"a row of the backup cannot be one of a log: {error}") from None


class Tail(msgspec.Struct, frozen=True, kw_only=True, tag="tail"):
    """What a complete backup ends in."""

    index: int
    """The last row: the backup is the log up to there."""
    term: int
    """Of that row."""
    rows: int
    sha256: bytes
    """Of every byte before the frame that this is in."""


_encoder = msgspec.msgpack.Encoder()
Frame = Head | Rows | Tail

_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


class BackupWriter:
    """Makes the bytes of a backup, part after part."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._rows = 0
        self._last = (0, 0)

    def begin(self, head: Head) -> bytes:
        """Return the first bytes."""
        return self._sum(MAGIC + _frame(head))

    def add(self, entries: Sequence[LogEntry]) -> Iterator[bytes]:
        """Yield the bytes of `entries`, which follow on those before."""
        for part in _parts(entries):
            assert part[0].index > self._last[0], "rows are added in order"
            self._rows += len(part)
            self._last = (part[-1].index, part[-1].term)
            yield self._sum(_frame(Rows(rows=[(row.index, row.term, int(row.kind), row.data) for row in part])))

    def end(self) -> bytes:
        """Return the last bytes."""
        index, term = self._last
        return _frame(Tail(index=index, term=term, rows=self._rows, sha256=self._sha256.digest()))

    def _sum(self, data: bytes) -> bytes:
        self._sha256.update(data)
        return data


class BackupReader:
    """Reads a backup from bytes as they come, and finds whatever is wrong with it.

    Every error names the byte where it was found.
    """

    def __init__(self) -> None:
        self.head: Head | None = None
        self.tail: Tail | None = None
        self._sha256 = hashlib.sha256()
        self._pending = bytearray()
        self._at = 0
        """Where the first pending byte stands in the file."""
        self._rows = 0
        self._last = (0, 0)

    def feed(self, data: bytes) -> Iterator[Rows]:
        """Take the next bytes, and yield the rows that are complete by then.

        Raises:
            CorruptionError: They are not those of a backup.
        """
        self._pending += data
        if self._at == 0 and not self._take_magic():
            return
        while (payload := self._next_frame()) is not None:
            rows = self._take(payload)
            if rows is not None:
                yield rows

    def finish(self) -> Tail:
        """Return the tail, once every byte was fed.

        Raises:
            CorruptionError: It ends too early.
        """
        if self.tail is None:
            raise CorruptionError(f"the backup ends too early, at byte {self._at + len(self._pending)}: it was cut off")
        if self._pending:
            raise self._damaged("something follows its end")
        return self.tail

    def _take_magic(self) -> bool:
        if len(self._pending) < len(MAGIC):
            if not MAGIC.startswith(self._pending):
                raise self._damaged("this is no backup of engram")
            return False
        if not self._pending.startswith(MAGIC):
            is_other = self._pending.startswith(MAGIC.rstrip(b"1\n"))
            raise self._damaged(
                "this backup is of a version that is not known here" if is_other else "this is no backup of engram"
            )
        self._pass(len(MAGIC))
        return True

    def _next_frame(self) -> bytes | None:
        """Return the payload of the next frame; None when it is not complete yet."""
        if len(self._pending) < _PREFIX.size:
            return None
        if self.tail is not None:
            raise self._damaged("something follows its end")
        length, crc = _PREFIX.unpack_from(self._pending)
        if length > FRAME_BYTES_MAX:
            raise self._damaged(f"a part claims to have {length} bytes; the limit is {FRAME_BYTES_MAX}")
        end = _PREFIX.size + length
        if len(self._pending) < end:
            return None
        payload = bytes(self._pending[_PREFIX.size : end])
        if int(google_crc32c.value(payload)) != crc:
            raise self._damaged("a part fails its checksum")
        return payload

    def _take(self, payload: bytes) -> Rows | None:
        try:
            frame: Frame = _decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._damaged(f"a part cannot be read: {error}") from None
        if (self.head is None) is not isinstance(frame, Head):
            raise self._damaged("its parts are not in order")
        rows: Rows | None = None
        match frame:
            case Head():
                self.head = frame
            case Rows():
                self._check_order(frame)
                rows = frame
            case Tail():
                self._check_tail(frame)
                self.tail = frame
        self._pass(_PREFIX.size + len(payload))
        return rows

    def _check_order(self, frame: Rows) -> None:
        for index, term, _, _ in frame.rows:
            if index <= self._last[0] or term < self._last[1]:
                raise self._damaged(f"log entry {index} of term {term} stands behind {self._last[0]}")
            self._last = (index, term)
        self._rows += len(frame.rows)

    def _check_tail(self, tail: Tail) -> None:
        if tail.sha256 != self._sha256.digest():
            raise self._damaged("it fails its SHA-256")
        if (tail.index, tail.term, tail.rows) != (*self._last, self._rows):
            raise self._damaged(f"it has {self._rows} rows, and says {tail.rows}")

    def _pass(self, size: int) -> None:
        self._sha256.update(self._pending[:size])
        del self._pending[:size]
        self._at += size

    def _damaged(self, reason: str) -> CorruptionError:
        return CorruptionError(f"the backup is damaged at byte {self._at}: {reason}")


def _frame(content: Frame) -> bytes:
    payload = _encoder.encode(content)
    return _PREFIX.pack(len(payload), int(google_crc32c.value(payload))) + payload


def _parts(entries: Sequence[LogEntry]) -> Iterator[Sequence[LogEntry]]:
    part: list[LogEntry] = []
    size = 0
    for entry in entries:
        if part and size + len(entry.data) + ROW_BYTES > FRAME_BYTES:
            yield part
            part, size = [], 0
        part.append(entry)
        size += len(entry.data) + ROW_BYTES
    if part:
        yield part
