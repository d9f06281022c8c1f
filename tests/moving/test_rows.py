"""Whatever is written, deleted and erased while rows are read: what was read is the log at one index."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engram.errors import OverloadedError
from engram.moving.rows import ROUNDS_MAX, rows_at_one_index
from engram.projections.entries import LogEntry
from engram.projections.eraser import Eraser
from engram.projections.sqlite_store import PrimaryStore
from tests.projections.histories import (
    Entry,
    MemoryLog,
    deleted,
    entries_of,
    open_store,
    said,
    scratch_folder,
)
from tests.property.test_projections import HISTORIES, folded


class Step(NamedTuple):
    """What happens while one part is read."""

    grows: int
    erases: bool
    reads_first: bool
    """The rows were read before that happened; else after."""


STEPS = st.lists(st.builds(Step, st.integers(0, 4), st.booleans(), st.booleans()), max_size=12)


class BusyLog(MemoryLog):
    """A log that is written to and erased from while it is read, `part` rows at a time."""

    def __init__(self, entries: Sequence[Entry], steps: Sequence[Step], part: int, store: PrimaryStore) -> None:
        super().__init__()
        self.rewrites = 0
        self._ahead = list(entries)
        self._steps = list(steps)
        self._part = part
        self._store = store
        self._eraser = Eraser(self, store, None)

    @property
    def applied_index(self) -> int:
        return len(self.committed)

    async def grow(self, count: int) -> None:
        """Commit and fold the next entries."""
        new, self._ahead = self._ahead[:count], self._ahead[count:]
        self.committed += new
        if new:
            await self._store.apply(new)

    async def read(self, after: int, limit: int) -> Sequence[Entry]:
        if limit == 1:  # the eraser's
            return await super().read(after, limit)
        step = self._steps.pop(0) if self._steps else Step(0, erases=False, reads_first=True)
        before = self.committed[after : after + self._part]
        await self.grow(step.grows)
        while step.erases and await self._eraser.clean_log():
            pass
        return before if step.reads_first else self.committed[after : after + self._part]

    async def rewrite(self, payloads: Mapping[int, bytes]) -> None:
        self.rewrites += 1
        await super().rewrite(payloads)


async def read_while(entries: Sequence[Entry], steps: Sequence[Step], begin: int, part: int) -> list[LogEntry]:
    """Return the rows that are read of a log that begins with so many entries and goes on to all of them."""
    with scratch_folder() as folder:
        store = await open_store(Path(folder))
        try:
            log = BusyLog(entries, steps, part, store)
            await log.grow(begin)
            return [row async for rows in rows_at_one_index(log) for row in rows]
        finally:
            await store.close()


ERASED_AHEAD = (
    entries_of([said("m1"), said("m2"), said("m3"), deleted("m2"), said("m4")]),
    [Step(2, erases=True, reads_first=True)],
)
"""The second message is erased after the first was read, because of a deletion that is beyond where reading was to end."""


@given(HISTORIES, STEPS, st.integers(1, 12), st.integers(1, 4))
@example(*ERASED_AHEAD, 3, 1)
def test_what_was_read_is_the_log_as_it_was_at_its_last_row(
    entries: list[Entry], steps: list[Step], begin: int, part: int
) -> None:
    async def both() -> tuple[dict[str, str], dict[str, str]]:
        rows = await read_while(entries, steps, begin, part)
        last = rows[-1].index
        assert [row.index for row in rows] == list(range(1, last + 1))
        assert last >= min(begin, len(entries)), "what was there when reading began"
        copy = [Entry(row.index, row.data) for row in rows]
        return await folded(copy), await folded(entries[:last])

    copied, wanted = asyncio.run(both())

    assert copied == wanted


async def test_without_an_erasure_reading_ends_where_the_log_ended() -> None:
    entries = entries_of([said(f"m{number}") for number in range(9)])

    rows = await read_while(entries, [Step(3, erases=False, reads_first=True)] * 3, begin=4, part=2)

    assert [row.index for row in rows] == [1, 2, 3, 4]


async def test_reading_gives_up_when_there_is_no_end_of_erasing() -> None:
    class Restless:
        applied_index = 0
        asked = 0

        @property
        def rewrites(self) -> int:
            self.asked += 1
            return self.asked

        async def read(self, after: int, limit: int) -> Sequence[Entry]:
            return []

    log = Restless()
    with pytest.raises(OverloadedError, match="erased all the time"):
        _ = [rows async for rows in rows_at_one_index(log)]

    assert log.asked >= ROUNDS_MAX
