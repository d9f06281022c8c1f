"""Rows with vectors, a primary store of them, and what a folder holds, for the tests of the long-term store."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engram.projections.lance_rows import Scope
from engram.projections.lance_store import LanceStore

MODEL = "model-a"
DIMENSION = 8
LOG_END = 1_000_000
AT_MS = 1_700_000_000_000
NEVER = 10**9


class Row(NamedTuple):
    """A chunk as the primary store gives it."""

    tenant: str
    session_id: str
    agent_id: str | None
    user_id: str | None
    message_id: str
    ordinal: int
    chunk: int
    start: int
    end: int
    role: str
    name: str | None
    when_ms: int
    text: str
    model: str
    vector: bytes
    log_index: int


def row(
    log_index: int,
    text: str = "some words",
    *,
    session_id: str = "s1",
    message_id: str | None = None,
    ordinal: int | None = None,
    chunk: int = 0,
    tenant: str = "default",
    agent_id: str | None = None,
    model: str = MODEL,
    dimension: int = DIMENSION,
) -> Row:
    """Return the row of a message that got its vector at `log_index`, and is named and numbered after it by default."""
    return Row(
        tenant=tenant,
        session_id=session_id,
        agent_id=agent_id,
        user_id=None,
        message_id=message_id or f"m{log_index}",
        ordinal=log_index if ordinal is None else ordinal,
        chunk=chunk,
        start=0,
        end=len(text),
        role="user",
        name=None,
        when_ms=AT_MS + log_index,
        text=text,
        model=model,
        vector=vector(log_index, dimension),
        log_index=log_index,
    )


def vector(seed: int, dimension: int = DIMENSION) -> bytes:
    """Return a unit vector that is the same for the same seed."""
    values = np.random.default_rng(seed).standard_normal(dimension)
    return (values / np.linalg.norm(values)).astype("<f2").tobytes()


def as_query(log_index: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return the vector of `row(log_index)` to search with."""
    return np.frombuffer(vector(log_index), dtype="<f2").astype(np.float32)


class Rows:
    """A primary store: rows in log order, cut between entries only."""

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self.rows = list(rows)
        self.before_read: Callable[[], None] = lambda: None
        self.read = asyncio.Event()
        """Set by every read."""

    async def embedded_after(self, cursor: int, limit: int) -> Sequence[Row]:
        self.before_read()
        self.read.set()
        await asyncio.sleep(0)
        fresh = [row for row in self.rows if row.log_index > cursor]
        return [row for row in fresh if row.log_index <= fresh[min(limit, len(fresh)) - 1].log_index]


def store_at(folder: Path, *, model: str = MODEL, dimension: int = DIMENSION) -> LanceStore:
    """Return a store that is not open yet."""
    return LanceStore(str(folder), model=model, dimension=dimension)


def files_with(folder: Path, marker: str) -> list[Path]:
    """Return the files below `folder` that hold `marker`, in their contents or in their names."""
    wanted = marker.encode()
    return [
        path
        for path in sorted(folder.rglob("*"))
        if marker in path.name or (path.is_file() and wanted in path.read_bytes())
    ]


async def found_ids(store: LanceStore, scope: Scope, k: int = 1000) -> list[str]:
    """Return the ids of all messages in `scope`, sorted; a message with two chunks stands there twice."""
    return sorted(hit.message_id for hit in await store.search(as_query(1), scope, k))
