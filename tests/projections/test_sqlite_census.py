"""Counting whose vectors the messages have, and finding those that have others."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engram.events import Chunk, Event, MessageEmbedded, SessionDeleted
from engram.projections.lance_rows import Space
from engram.projections.sqlite_store import PrimaryStore
from tests.projections.histories import apply, deleted, embedded, entries_of, said

A, B = Space("model-a", 4), Space("model-b", 4)
WIDE = Space("model-a", 6)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[PrimaryStore]:
    opened = await PrimaryStore.open(tmp_path / "projections.db")
    yield opened
    await opened.close()


def wide(message_id: str, source_index: int = 0) -> MessageEmbedded:
    """Return vectors of the first model, but wider."""
    chunk = Chunk(start=0, end=5, vector=bytes([1, 0]) * WIDE.dimension)
    return MessageEmbedded(
        session_id="s", at_ms=2, message_id=message_id, source_index=source_index, model=WIDE.model,
        dimension=WIDE.dimension, chunks=[chunk],
    )  # fmt: skip


async def others(store: PrimaryStore, space: Space, *, limit: int = 100) -> list[str]:
    found: list[str] = []
    after: int | None = 0
    while after is not None:
        stretch = await store.embedded_otherwise(space, after=after, limit=limit)
        found += [message.message_id for message in stretch.messages]
        after = stretch.end
    return found


async def census(store: PrimaryStore, *, limit: int) -> dict[Space, int]:
    total: dict[Space, int] = {}
    after: int | None = 0
    while after is not None:
        counted = await store.census(after=after, limit=limit)
        total = {space: total.get(space, 0) + counted.messages.get(space, 0) for space in {*total, *counted.messages}}
        after = counted.end
    return total


def history() -> list[Event | list[Event]]:
    """Return an entry of two models' messages, one that waits, and a width that was replaced by another."""
    return [
        [said("m1"), embedded("m1")],
        [said("m2"), embedded("m2", model="model-b")],
        said("m3"),
        [said("m4"), said("m5"), embedded("m4"), embedded("m5")],
        wide("m4", 4),
    ]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
async def test_the_census_counts_by_model_and_width_in_any_stretches(store: PrimaryStore, limit: int) -> None:
    await apply(store, entries_of(history()))

    assert await census(store, limit=limit) == {A: 2, B: 1, WIDE: 1}


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_who_has_other_vectors_is_found_and_who_waits_is_not(store: PrimaryStore, limit: int) -> None:
    await apply(store, entries_of(history()))

    assert await others(store, A, limit=limit) == ["m2", "m4"]
    assert await others(store, B, limit=limit) == ["m1", "m4", "m5"]
    assert await others(store, WIDE, limit=limit) == ["m1", "m2", "m5"]


async def test_the_text_and_its_place_come_with_it(store: PrimaryStore) -> None:
    await apply(store, entries_of([[said("m1"), embedded("m1")]]))

    (message,) = (await store.embedded_otherwise(B, after=0, limit=9)).messages

    assert (message.session_id, message.message_id, message.log_index, message.text) == ("s", "m1", 1, "hello")


async def test_what_is_forgotten_is_not_counted(store: PrimaryStore) -> None:
    await apply(store, entries_of([*history(), deleted("m1"), SessionDeleted(session_id="s", at_ms=9)]))

    assert await census(store, limit=100) == {}
    assert await others(store, B) == []


async def test_a_message_whose_vectors_are_no_text_is_not_embedded_again_for_ever(store: PrimaryStore) -> None:
    await apply(store, entries_of([[said("m1"), embedded("m1", chunks=[])]]))

    assert await others(store, A) == []
    assert await others(store, B) == ["m1"]
