"""Logs in memory, and histories written as one event or a list of events an entry."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from engram.events import (
    Chunk,
    Event,
    FactPinned,
    FactUnpinned,
    MessageAppended,
    MessageDeleted,
    MessageEmbedded,
    Role,
    SessionCreated,
    SessionDeleted,
    encode,
)
from engram.projections.sqlite_store import PrimaryStore
from engram.projections.verdicts import Verdict

BOOT = "boot-1"
TERM = 1

History = Sequence[Event | Sequence[Event]]


@dataclass(frozen=True)
class Entry:
    index: int
    data: bytes
    term: int = TERM
    kind: int = 0


@dataclass(frozen=True)
class Status:
    last_index: int


class MemoryLog:
    """A committed log that can grow, be read, and be rewritten."""

    def __init__(self, entries: Iterable[Entry] = (), *, batch: int = 1024) -> None:
        self.committed = list(entries)
        self.rewritten: list[dict[int, bytes]] = []
        self.batch = batch
        self._grown = asyncio.Event()

    def status(self) -> Status:
        return Status(len(self.committed))

    def append(self, *events: Event, term: int = TERM) -> Entry:
        entry = Entry(len(self.committed) + 1, encode(events), term)
        self.committed.append(entry)
        self._grown.set()
        return entry

    async def entries(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        while True:
            self._grown.clear()
            if after < len(self.committed):
                batch = self.committed[after : after + self.batch]
                after += len(batch)
                yield batch
            else:
                await self._grown.wait()

    async def read(self, after: int, limit: int) -> Sequence[Entry]:
        return self.committed[after : after + limit]

    async def rewrite(self, payloads: Mapping[int, bytes]) -> None:
        self.rewritten.append(dict(payloads))
        for index, data in payloads.items():
            self.committed[index - 1] = replace(self.committed[index - 1], data=data)


def entries_of(history: History) -> list[Entry]:
    """Return a log whose n-th entry holds the n-th item of `history`."""
    return [
        Entry(index, encode(item if isinstance(item, list | tuple) else [item]))  # type: ignore[list-item]
        for index, item in enumerate(history, start=1)
    ]


def stamped(events: Sequence[Event], at_ms: int) -> list[Event]:
    """Return the events of an entry as commands make them: all at one time."""
    return [msgspec.structs.replace(event, at_ms=at_ms) for event in events]


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder that goes when it is left; in memory where the machine has that, since properties make many."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)


async def open_store(folder: Path, boot_id: str = BOOT) -> PrimaryStore:
    """Open the store of `folder`, as on a machine that has been up all the time."""
    return await PrimaryStore.open(folder / "projections.db", boot_id=boot_id)


async def apply(store: PrimaryStore, entries: Sequence[Entry], *, batch: int = 1024) -> list[list[Verdict]]:
    """Fold `entries`, that many at a time; return the verdicts."""
    verdicts: list[list[Verdict]] = []
    for start in range(0, len(entries), batch):
        verdicts += await store.apply(entries[start : start + batch])
    return verdicts


def created(session_id: str = "s", *, agent_id: str | None = None, user_id: str | None = None) -> SessionCreated:
    return SessionCreated(session_id=session_id, at_ms=1, agent_id=agent_id, user_id=user_id)


def said(message_id: str, text: str = "hello", *, session_id: str = "s", role: Role = "user", at_ms: int = 1) -> Event:
    return MessageAppended(
        session_id=session_id, at_ms=at_ms, message_id=message_id, role=role, text=text, tokens=len(text)
    )


def vector(*, start: int = 0, end: int = 5, fill: int = 1) -> Chunk:
    return Chunk(start=start, end=end, vector=bytes([fill, 0]) * 4)


def embedded(
    message_id: str,
    source_index: int = 0,
    *,
    session_id: str = "s",
    model: str = "model-a",
    chunks: Sequence[Chunk] = (vector(),),
) -> MessageEmbedded:
    return MessageEmbedded(
        session_id=session_id,
        at_ms=2,
        message_id=message_id,
        source_index=source_index,
        model=model,
        dimension=4,
        chunks=chunks,
    )


def deleted(message_id: str, *, session_id: str = "s", at_ms: int = 9) -> MessageDeleted:
    return MessageDeleted(session_id=session_id, at_ms=at_ms, message_id=message_id)


def pinned(fact_id: str, text: str = "a fact", *, session_id: str = "s") -> FactPinned:
    return FactPinned(session_id=session_id, at_ms=3, fact_id=fact_id, text=text, tokens=len(text))


def unpinned(fact_id: str, *, session_id: str = "s") -> FactUnpinned:
    return FactUnpinned(session_id=session_id, at_ms=4, fact_id=fact_id)


def ended(session_id: str = "s") -> SessionDeleted:
    return SessionDeleted(session_id=session_id, at_ms=5)
