"""From times to places in the log, and back: which entry was the last one at a time, and what time it was at an entry."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

import msgspec

from engram.database import Connection
from engram.projections import stamps
from engram.projections.entries import LogEntry
from engram.projections.past import NORMAL, Log

READ_ENTRIES_MAX: Final = 256
"""Entries that are looked at in one go."""

Answer = TypeVar("Answer")


class Reads(Protocol):
    """The part of the primary store that knows the marks."""

    @property
    def applied_index(self) -> int:
        """Index of the last log entry that reads see."""

    async def ask(self, question: Callable[[Connection], Answer]) -> Answer:
        """Return the answer to a question."""


class _Stamped(msgspec.Struct):
    """The one field of an event that tells its time."""

    at_ms: int


_stamps = msgspec.msgpack.Decoder(list[_Stamped])


async def index_at(reads: Reads, log: Log, at_ms: int) -> int:
    """Return the last log index before the first entry that is later than `at_ms`; 0 when all are."""
    applied_index = reads.applied_index
    after, before = await reads.ask(partial(stamps.between, at_ms=at_ms))
    last = applied_index if before is None else min(applied_index, before - 1)
    while after < last:
        entries = await log.read(after, min(last - after, READ_ENTRIES_MAX))
        for entry in entries:
            if entry.index > last:
                return last
            if time_of(entry) > at_ms:
                return entry.index - 1
        after = entries[-1].index if entries else last
    return last


async def time_at(reads: Reads, log: Log, log_index: int) -> int:
    """Return the latest time of any event up to a log index; 0 when there is none."""
    mark = await reads.ask(partial(stamps.last_mark, log_index=log_index))
    after, latest_ms = mark.log_index, mark.at_ms
    while after < log_index:
        entries: Sequence[LogEntry] = await log.read(after, min(log_index - after, READ_ENTRIES_MAX))
        latest_ms = max([latest_ms, *(time_of(entry) for entry in entries if entry.index <= log_index)])
        after = entries[-1].index if entries else log_index
    return latest_ms


def time_of(entry: LogEntry) -> int:
    """Return the latest time of any event in an entry; 0 without one."""
    if entry.kind != NORMAL or not entry.data:
        return 0
    return max(stamped.at_ms for stamped in _stamps.decode(entry.data))
