"""The export file: the events of a log in JSON, a line an entry, to be read by other programs and other versions.

    {"format":"engram-export","version":1,"engram":"0.1.0","store_id":"...","after":0,"session_id":null, ...}
    {"index":42,"events":[{"type":"MessageAppended","session_id":"s1","at_ms":1764000000000, ...}]}
    {"end":true,"index":42,"entries":1,"events":1,"sha256":"..."}

Nothing of an event is lost: times stay, bytes are in Base64. The last line has the SHA-256 of all lines before it, so a
file that was cut off is noticed.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from engram.errors import CorruptionError
from engram.events import Event

FORMAT: Literal["engram-export"] = "engram-export"
VERSION = 1
"""Anything that changes what a reader must know changes the number."""

LINE_BYTES_MAX = 64 * 1024 * 1024
"""An entry has 4 MiB; what JSON and Base64 make of that is far below. A longer line is not waited for."""


class ExportHead(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: where the events come from, and which they are."""

    format: Literal["engram-export"] = FORMAT
    version: int = VERSION
    engram: str
    """The version that wrote it."""
    created_at_ms: int
    store_id: str
    cluster_id: str
    after: int
    """Entries behind this log index."""
    session_id: str | None
    """Those of one session; None: all."""


class ExportEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the log that has events."""

    index: int
    events: Sequence[Event]


class ExportEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The last line."""

    end: Literal[True] = True
    index: int
    """The log was exported up to here; later entries can be had with `after`."""
    entries: int
    events: int
    sha256: str
    """Of all bytes before this line."""


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """What tells the last line from the others."""

    end: bool = False


_encoder = msgspec.json.Encoder()
_head_decoder = msgspec.json.Decoder(ExportHead)
_entry_decoder = msgspec.json.Decoder(ExportEntry)
_end_decoder = msgspec.json.Decoder(ExportEnd)
_line_decoder = msgspec.json.Decoder(_Line)


class ExportWriter:
    """Makes the bytes of an export, line after line."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._entries = 0
        self._events = 0

    def begin(self, head: ExportHead) -> bytes:
        """Return the first line."""
        return self._line(head)

    def add(self, index: int, events: Sequence[Event]) -> bytes:
        """Return the line of an entry."""
        self._entries += 1
        self._events += len(events)
        return self._line(ExportEntry(index=index, events=events))

    def end(self, index: int) -> bytes:
        """Return the last line of an export that goes up to `index`."""
        digest = self._sha256.hexdigest()
        return self._line(ExportEnd(index=index, entries=self._entries, events=self._events, sha256=digest))

    def _line(self, content: ExportHead | ExportEntry | ExportEnd) -> bytes:
        line = _encoder.encode(content) + b"\n"
        self._sha256.update(line)
        return line


class ExportReader:
    """Reads an export from bytes as they come, and finds whatever is wrong with it; errors name the line."""

    def __init__(self, *, first_line: int = 2) -> None:
        """`first_line`: number of the line behind the head; more than 2 where the lines are part of a longer export."""
        self.head: ExportHead | None = None
        self.end: ExportEnd | None = None
        self._sha256 = hashlib.sha256()
        self._pending = bytearray()
        self._number = 1
        self._first_line = first_line
        self._index = 0
        self._entries = 0
        self._events = 0

    @property
    def line(self) -> int:
        """Number of the line that is read next; that of an entry which was just yielded is one less."""
        return self._number

    def feed(self, data: bytes) -> Iterator[ExportEntry]:
        """Take the next bytes, and yield the entries that are complete by then.

        Raises:
            CorruptionError: They are not those of an export.
        """
        self._pending += data
        start = 0
        while (stop := self._pending.find(b"\n", start)) >= 0:
            entry = self._take(bytes(self._pending[start : stop + 1]))
            start = stop + 1
            if entry is not None:
                yield entry
        del self._pending[:start]
        if len(self._pending) > LINE_BYTES_MAX:
            raise self._damaged(f"is longer than {LINE_BYTES_MAX} bytes")

    def finish(self) -> ExportEnd:
        """Return the last line, once every byte was fed.

        Raises:
            CorruptionError: It is not there.
        """
        if self.end is None or self._pending:
            raise self._damaged("is not the end of an export: it was cut off, or something follows it")
        return self.end

    def _take(self, line: bytes) -> ExportEntry | None:
        if self.end is not None:
            raise self._damaged("follows the end of the export")
        try:
            entry = self._decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._damaged(f"cannot be read: {error}") from None
        self._sha256.update(line)
        self._number = self._first_line if self._number == 1 else self._number + 1
        return entry

    def _decode(self, line: bytes) -> ExportEntry | None:
        if self.head is None:
            self.head = _head_decoder.decode(line)
            if self.head.version != VERSION:
                raise self._damaged(f"is of version {self.head.version}; this engram reads version {VERSION}")
            self._index = self.head.after
            return None
        if _line_decoder.decode(line).end:
            self.end = self._checked(_end_decoder.decode(line))
            return None
        entry = _entry_decoder.decode(line)
        self._check(entry)
        return entry

    def _check(self, entry: ExportEntry) -> None:
        if entry.index <= self._index:
            raise self._damaged(f"has entry {entry.index}, behind entry {self._index}")
        if len({(event.tenant, event.session_id) for event in entry.events}) != 1:
            raise self._damaged("has not one session: an entry holds events of exactly one")
        if len({event.at_ms for event in entry.events}) != 1:
            raise self._damaged("has not one time: the events of an entry were recorded together")
        self._index = entry.index
        self._entries += 1
        self._events += len(entry.events)

    def _checked(self, end: ExportEnd) -> ExportEnd:
        if end.sha256 != self._sha256.hexdigest():
            raise self._damaged("has another SHA-256 than the lines before it: one of them was changed")
        if (end.entries, end.events) != (self._entries, self._events) or end.index < self._index:
            raise self._damaged(
                f"says {end.entries} entries and {end.events} events; there are {self._entries} and {self._events}"
            )
        return end

    def _damaged(self, reason: str) -> CorruptionError:
        return CorruptionError(f"line {self._number} of the export {reason}")
