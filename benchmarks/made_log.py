"""The log of a node that does not run, with so many messages in it: one a log entry, with its vector, as clients make it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import numpy as np

from engram.commands import MessageDraft, Vectors, append_messages
from engram.events import Chunk, encode
from engram.inference.builtin import BuiltinEmbedder
from engram.log.consensus.types import Entry, EntryKind
from engram.log.restoring import make_log

SESSION_MESSAGES = 100
BATCH = 500
AT_MS = 1_777_593_600_000
TEXTS = (
    "The ferry to the island leaves at nine, and the tickets are sold on board, so bring some coins.",
    "My sister has moved to Lisbon, where she works for a company that builds small wind turbines.",
    "Could you remind me on Thursday that the library closes early, and that two books are overdue?",
    "We tried the lentil soup with lemon; next time less cumin, and bread from the place at the corner.",
)


async def make(folder: Path, messages: int) -> None:
    """Make the log in a data folder that is not there yet."""
    log = folder / "raft" / "engram.db"
    await asyncio.to_thread(log.parent.mkdir, parents=True)
    async with aclosing(_entries(messages)) as entries:
        await make_log(log, entries, node_id=1)


async def _entries(messages: int) -> AsyncGenerator[Sequence[Entry]]:
    embedder = BuiltinEmbedder()
    rng = np.random.default_rng(1)
    for start in range(0, messages, BATCH):
        numbers = range(start, min(start + BATCH, messages))
        directions = rng.normal(size=(len(numbers), embedder.dimension))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        vectors = directions.astype("<f2")
        yield [_entry(number, embedder, row.tobytes()) for number, row in zip(numbers, vectors, strict=True)]


def _entry(number: int, embedder: BuiltinEmbedder, vector: bytes) -> Entry:
    text = f"{TEXTS[number % len(TEXTS)]} That was number {number}."
    role = "assistant" if number % 2 else "user"
    draft = MessageDraft(f"message-{number}", role, text, None, None, {}, tokens=28)
    vectors = Vectors(embedder.model, embedder.dimension, [Chunk(start=0, end=len(text), vector=vector)])
    events = append_messages(
        session_id=f"session-{number // SESSION_MESSAGES}", drafts=[draft], vectors=[vectors], at_ms=AT_MS + number
    )
    return Entry(term=1, index=number + 1, kind=EntryKind.NORMAL, data=encode(events))
