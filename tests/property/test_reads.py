"""Every store that has folded the same events answers every reader the same, however it came by them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engram.events import TENANT_DEFAULT
from engram.projections.lance_rows import Space
from engram.projections.reads import EVERY
from engram.projections.sqlite_store import PrimaryStore
from tests.projections.histories import Entry, open_store, scratch_folder
from tests.property.test_projections import HISTORIES, erased

SESSION_IDS = ("s1", "s2", "nobody")
MESSAGE_IDS = ("m1", "m2", "m3", "m4")


async def everything(store: PrimaryStore) -> dict[str, Any]:
    """Ask every question that readers have."""
    answers: dict[str, Any] = {
        "sessions": await store.sessions(limit=EVERY),
        "one by one": [await store.sessions(after=after, limit=1) for after in (None, 1, 2, 3)],
        "of the agent": await store.scope(TENANT_DEFAULT, agent_id="agent"),
        "counts": await store.counts(),
        "space": await store.embedding_space(),
        "pending": await store.pending_embeddings(limit=100),
        "abandoned": await store.abandoned_embeddings(limit=100),
        "embedded": await store.embedded_after(0, 100),
        "of another model": await store.embedded_otherwise(Space("a", 1), after=0, limit=100),
        "census": await store.census(after=0, limit=100),
        "latest stamp": store.last_at_ms,
        "applied": (store.applied_index, store.applied_term),
    }
    for session_id in SESSION_IDS:
        session = await store.session(session_id)
        answers[session_id] = (session, await store.conversation(session_id, limit=3))
        if session is not None:
            key = session.session_key
            answers[f"{session_id} in full"] = (
                await store.messages(key, limit=EVERY),
                await store.messages(key, after=1, limit=2),
                await store.messages(key, limit=3, descending=True),
                [await store.message(key, message_id) for message_id in MESSAGE_IDS],
                await store.messages_at([(key, 2), (key, 0), (key, 9)]),
                await store.labels(key, first=1, limit=3),
                await store.facts(key),
                await store.timeline(key, limit=EVERY),
                await store.recall_delta(key, next_ordinal=1, vectors_index=2),
            )
    return answers


async def asked(entries: Sequence[Entry], *, batch: int = 1024, restarts: bool = False) -> dict[str, Any]:
    """Return all answers of a fresh store that has folded `entries`, so many at a time."""
    with scratch_folder() as folder:
        store = await open_store(Path(folder))
        for start in range(0, len(entries), batch):
            await store.apply(entries[start : start + batch])
            if restarts:
                await store.close()
                store = await open_store(Path(folder))
        answers = await everything(store)
        await store.close()
    return answers


@given(HISTORIES, st.integers(1, 6))
def test_readers_see_neither_batches_nor_restarts(entries: list[Entry], batch: int) -> None:
    whole = asyncio.run(asked(entries))

    assert asyncio.run(asked(entries, batch=batch, restarts=True)) == whole


@given(HISTORIES, st.integers(1, 8))
def test_readers_cannot_tell_an_erased_history_from_the_full_one(entries: list[Entry], every: int) -> None:
    log, _ = asyncio.run(erased(entries, every))
    full = asyncio.run(asked(entries))
    rest = asyncio.run(asked(log.committed, batch=every))

    # The latest stamp of all may have been that of an entry of which nothing is left.
    assert rest.pop("latest stamp") <= full.pop("latest stamp")
    assert rest == full
