"""Digests tell stores apart by what readers see, and by nothing else."""

from pathlib import Path

import pytest

from engram.events import Event
from tests.projections.histories import (
    History,
    apply,
    created,
    deleted,
    embedded,
    entries_of,
    open_store,
    pinned,
    said,
    scratch_folder,
)

BEFORE: History = [created(), [said("m1"), embedded("m1")], said("m2"), deleted("m2"), pinned("f1")]


async def digest_of(history: History) -> dict[str, str]:
    with scratch_folder() as folder:
        store = await open_store(Path(folder))
        await apply(store, entries_of(history))
        digest = await store.digest()
        await store.close()
        return digest


@pytest.mark.parametrize(
    ("place", "instead", "changed"),
    [
        (0, created(agent_id="a"), {"sessions"}),
        (1, [said("m1", "other"), embedded("m1")], {"messages"}),
        (1, [said("m1"), embedded("m1", model="b")], {"messages"}),
        (1, [said("m1"), embedded("m1", chunks=[])], {"vectors"}),
        (4, pinned("f1", "other!"), {"facts"}),
        (4, said("m3"), {"sessions", "messages", "facts", "totals"}),
        (3, deleted("m3"), {"sessions", "messages", "tombstones", "totals"}),
    ],
)
async def test_a_difference_is_found_and_named(place: int, instead: Event | list[Event], changed: set[str]) -> None:
    after = [instead if n == place else item for n, item in enumerate(BEFORE)]

    before_digest, after_digest = await digest_of(BEFORE), await digest_of(after)

    assert {table for table in before_digest if before_digest[table] != after_digest[table]} == changed


async def test_an_entry_without_effect_makes_no_difference() -> None:
    assert await digest_of([*BEFORE, said("m1"), said("m1", "other"), said("m2")]) == await digest_of(BEFORE)
