"""What a log says once everything is erased from it that was forgotten, without a change to the log itself.

Erased entries have lost it already. Between a deletion and its erasure, which a stopped node may have left undone, the
log still holds the text, and a fold up to a place before the deletion would bring it back. Which entries carry it is known
to the fold alone (an id may have named several texts, and a text may have had several ids). So the sessions that something
was deleted from are folded to the end of the log, and the eraser works on a layer above it.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from engram.events import TENANT_DEFAULT, Event, FactUnpinned, MessageDeleted, SessionDeleted
from engram.projections.entries import LogEntry, in_batches
from engram.projections.eraser import Eraser
from engram.projections.sqlite_store import NORMAL, PrimaryStore

DELETIONS: Final = (SessionDeleted, MessageDeleted, FactUnpinned)


class Log(Protocol):
    """A log that is read."""

    async def read(self, after: int, limit: int) -> Sequence[LogEntry]:
        """Return the first entries behind the index `after`, `limit` of them at most; none at the end."""


class Left(msgspec.Struct, frozen=True):
    """An entry with what is left of it."""

    index: int
    term: int
    kind: int
    data: bytes


class ErasedLog:
    """A log as it is when erasures are done. What they change lies here, and nothing is written."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._payloads: dict[int, bytes] = {}

    async def read(self, after: int, limit: int) -> Sequence[LogEntry]:
        """Return the first entries behind the index `after`, `limit` of them at most."""
        return [self._left(entry) for entry in await self._log.read(after, limit)]

    def entries(self, after: int) -> AsyncIterator[Sequence[LogEntry]]:
        """Yield the entries behind the index `after`, and end."""
        return in_batches(self.read, after)

    async def rewrite(self, payloads: Mapping[int, bytes]) -> None:
        """Let entries have other payloads, by log index."""
        self._payloads |= payloads

    def _left(self, entry: LogEntry) -> LogEntry:
        data = self._payloads.get(entry.index)
        return entry if data is None else Left(entry.index, entry.term, entry.kind, data)


class Forgetting:
    """The sessions that something was deleted from: it holds their ids."""

    def __init__(self) -> None:
        self._sessions: set[tuple[str, str]] = set()

    def note(self, events: Iterable[Event]) -> None:
        """Take note of the deletions among events behind the place that is looked back to."""
        self._sessions.update((event.tenant, event.session_id) for event in events if isinstance(event, DELETIONS))

    def __bool__(self) -> bool:
        return bool(self._sessions)

    async def erase(self, log: ErasedLog, store: PrimaryStore, advance: Callable[[int], None]) -> None:
        """Erase from `log` what was forgotten of the sessions, which are folded into `store`, an empty one, for that.

        Raises:
            CorruptionError: An entry cannot be decoded.
        """
        async for batch in log.entries(0):
            await store.apply([self._about(entry) for entry in batch])
            advance(len(batch))
        eraser = Eraser(log, store, None)
        while await eraser.clean_log():
            pass

    def _about(self, entry: LogEntry) -> LogEntry:
        if entry.kind != NORMAL or not entry.data or _session_of(entry.data) in self._sessions:
            return entry
        return Left(entry.index, entry.term, entry.kind, b"")


class _Named(msgspec.Struct):
    """What an event says of whom it is about; the rest is skipped."""

    session_id: str
    tenant: str = TENANT_DEFAULT


_named = msgspec.msgpack.Decoder(list[_Named])


def _session_of(payload: bytes) -> tuple[str, str] | None:
    """Return the session that an entry is about; None where the fold shall say what is wrong with it."""
    try:
        first, *_ = _named.decode(payload)
    except (msgspec.MsgspecError, ValueError):
        return None
    return (first.tenant, first.session_id)
