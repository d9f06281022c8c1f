"""A comparison names the first key that differs and the entry behind it, in pieces of any size."""

from pathlib import Path

import pytest

from engram.events import Event
from engram.projections.comparison import Difference, compare
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

HISTORY: History = [created(), [said("m1"), embedded("m1")], said("m2"), said("m3"), deleted("m3"), pinned("f1")]


async def compared(there: History, wanted: History, rows: int) -> list[str]:
    async def is_there(log_index: int) -> None:
        pass

    with scratch_folder() as one, scratch_folder() as two:
        stored, fresh = await open_store(Path(one)), await open_store(Path(two))
        await apply(stored, entries_of(there))
        await apply(fresh, entries_of(wanted))
        steps = [step async for step in compare(stored, fresh, is_there, rows=rows)]
        await stored.close()
        await fresh.close()
    return [str(step) for step in steps if isinstance(step, Difference)]


@pytest.mark.parametrize("rows", [1, 2, 1000])
async def test_equal_stores_have_no_difference(rows: int) -> None:
    assert await compared(HISTORY, HISTORY, rows) == []


@pytest.mark.parametrize("rows", [1, 2, 1000])
@pytest.mark.parametrize(
    ("place", "instead", "named"),
    [
        (0, created(agent_id="a"), "sessions: session s, entry 1: agent_id differs; agent_hash differs"),
        (2, said("m2", "jello"), "messages: session s, message m2, entry 3: text differs"),
        (2, said("m9"), "messages: session s, message m2, entry 3: message_id differs"),
        (1, [said("m1"), embedded("m1", chunks=[])], "vectors: session s, message m1, chunk 0, entry 2: is missing"),
        (4, deleted("m2"), "tombstones: session s, message m2: is there, but the log says that it is not"),
        (5, pinned("f1", "a fax!"), "facts: session s, fact f1, entry 6: text differs"),
    ],
)
async def test_the_first_key_that_differs_is_named(
    place: int, instead: Event | list[Event], named: str, rows: int
) -> None:
    there = [instead if n == place else item for n, item in enumerate(HISTORY)]

    found = await compared(there, HISTORY, rows)

    assert any(line.startswith(named) for line in found), found


async def test_a_piece_that_differs_is_looked_at_again(tmp_path: Path) -> None:
    """As where an entry is erased before it is folded again, while its deletion is not folded yet."""
    entries, looks = entries_of(HISTORY), 0
    (tmp_path / "fresh").mkdir()
    stored, fresh = await open_store(tmp_path), await open_store(tmp_path / "fresh")
    await apply(stored, entries)
    await apply(fresh, entries[:5])

    async def catch_up(_: int) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            await apply(fresh, entries[5:])

    found = [step async for step in compare(stored, fresh, catch_up, tries=2) if isinstance(step, Difference)]

    assert found == []
    await stored.close()
    await fresh.close()
