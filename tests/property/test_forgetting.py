"""Whatever was erased by now: a log without what is forgotten folds, up to any place, as it does when all is erased."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from engram.events import decode
from engram.projections.eraser import Eraser
from engram.projections.forgetting import ErasedLog, Forgetting
from tests.projections.histories import (
    Entry,
    MemoryLog,
    apply,
    deleted,
    ended,
    entries_of,
    open_store,
    pinned,
    said,
    scratch_folder,
    unpinned,
)
from tests.property.test_projections import HISTORIES, folded


async def erased_for_good(entries: Sequence[Entry], up_to: int) -> list[Entry]:
    """Return the log after the erasures that were asked for up to an index."""
    log = MemoryLog(entries)
    with scratch_folder() as folder:
        store = await open_store(Path(folder))
        await apply(store, entries[:up_to])
        eraser = Eraser(log, store, None)
        while await eraser.clean_log():
            pass
        await store.close()
    return log.committed


async def left_of(log: MemoryLog, index: int) -> list[Entry]:
    """Return the entries up to `index` without what was forgotten behind it."""
    left, forgetting = ErasedLog(log), Forgetting()
    for entry in log.committed[index:]:
        if entry.data:
            forgetting.note(decode(entry.data))
    if forgetting:
        with scratch_folder() as folder:
            store = await open_store(Path(folder))
            await forgetting.erase(left, store, lambda _: None)
            await store.close()
    return [Entry(entry.index, entry.data, entry.term) for entry in await left.read(0, index)]


@example(entries_of([said("m1"), pinned("f1"), said("m2"), unpinned("f1"), deleted("m1")]), 0, 2)
@example(entries_of([said("m1"), said("m2"), deleted("m1"), ended("s")]), 3, 1)
@given(HISTORIES, st.integers(0, 10), st.integers(1, 6))
def test_a_fold_up_to_any_place_is_that_of_the_log_when_all_is_erased(
    entries: list[Entry], erased_up_to: int, behind: int
) -> None:
    async def check() -> None:
        index = max(1, len(entries) - behind)
        log = MemoryLog(await erased_for_good(entries, min(erased_up_to, len(entries))))
        before = list(log.committed)
        wanted = (await erased_for_good(entries, len(entries)))[:index]

        left = await left_of(log, index)

        assert await folded(left) == await folded(wanted)
        assert log.committed == before, "the log is only read"

    asyncio.run(check())
