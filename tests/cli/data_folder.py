"""A node's data folder as a clean stop leaves it, made from events without running a node."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engram.events import Chunk, Event, FactPinned, MessageAppended, MessageEmbedded, SessionDeleted, encode
from engram.inference.builtin import DIMENSION, MODEL
from engram.log.changes import Append
from engram.log.consensus.types import Entry, HardState
from engram.log.sqlite import SqliteLog
from engram.projections.sqlite_store import PrimaryStore

AT_MS = 1_700_000_000_000
TEXT = "the coffee machine is on the third floor"


class DataFolder:
    """`path` is what ENGRAM_DATA_DIR names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log_path = path / "raft" / "engram.db"
        self.projections_path = path / "projections.db"
        self.lance_path = path / "lancedb"

    async def write(self, entries: Sequence[Sequence[Event]], *, folded: int | None = None) -> None:
        """Make the log of `entries` behind the empty one that a term begins with, and fold it up to index `folded`."""
        await asyncio.to_thread(self.log_path.parent.mkdir, parents=True)
        rows = [Entry(term=1, index=1)]
        rows += [Entry(term=1, index=index, data=encode(events)) for index, events in enumerate(entries, 2)]
        log = await SqliteLog.open(self.log_path, store_id="a-store")
        await log.append([Append(entries=rows, hard_state=HardState(term=1, vote=1, commit=len(rows)))])
        await log.close()
        store = await PrimaryStore.open(self.projections_path)
        if wanted := rows[:folded]:
            await store.apply(wanted)
        await store.close()

    async def digest(self) -> dict[str, str]:
        """Return the digest of the read models."""
        store = await PrimaryStore.open(self.projections_path)
        try:
            return await store.digest()
        finally:
            await store.close()

    def alter(self, path: Path, old: bytes, new: bytes) -> None:
        """Replace bytes of a file, as a failing disk would."""
        content = path.read_bytes()
        assert old in content
        assert len(old) == len(new)
        path.write_bytes(content.replace(old, new))


def conversation(session_id: str = "s1", messages: int = 3, model: str = MODEL) -> list[list[Event]]:
    """Return entries: messages with vectors, and a fact."""
    entries: list[list[Event]] = [
        message(session_id, f"m{number}", f"{TEXT}, says number {number}", model) for number in range(messages)
    ]
    entries.append([FactPinned(session_id=session_id, at_ms=AT_MS, fact_id="f1", text="likes tea", tokens=2)])
    return entries


def message(session_id: str, message_id: str, text: str, model: str = MODEL) -> list[Event]:
    """Return an entry of one message with its vector."""
    vector = np.random.default_rng(len(text)).standard_normal(DIMENSION)
    chunk = Chunk(start=0, end=len(text), vector=(vector / np.linalg.norm(vector)).astype("<f2").tobytes())
    return [
        MessageAppended(
            session_id=session_id,
            at_ms=AT_MS,
            message_id=message_id,
            role="user",
            text=text,
            tokens=9,
            metadata={"place": "kitchen"},
        ),
        MessageEmbedded(
            session_id=session_id,
            at_ms=AT_MS,
            message_id=message_id,
            source_index=0,
            model=model,
            dimension=DIMENSION,
            chunks=[chunk],
        ),
    ]


def deletion(session_id: str) -> list[Event]:
    """Return an entry that forgets a session."""
    return [SessionDeleted(session_id=session_id, at_ms=AT_MS)]
