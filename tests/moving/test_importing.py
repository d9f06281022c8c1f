"""What was exported and imported is, to every reader, what it was."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engram.errors import InvalidError
from engram.moving.export import export
from engram.moving.export_format import ExportHead
from engram.moving.importing import GAP_ROWS_MAX, Importer
from tests.moving.test_export_format import HEAD, exported
from tests.moving.test_rows import STEPS, BusyLog, Step
from tests.projections.histories import Entry, embedded, ended, entries_of, open_store, said, scratch_folder
from tests.property.test_projections import HISTORIES, erased, folded


def imported(*exports: bytes, size: int = 1 << 20) -> list[Entry]:
    """Return the rows that `exports` make, read so many bytes at a time."""
    importer = Importer()
    rows: list[Entry] = []
    for content in exports:
        for at in range(0, len(content), size):
            for part in importer.feed(content[at : at + size]):
                rows += [Entry(row.index, row.data, row.term) for row in part]
        for part in importer.finish():
            rows += [Entry(row.index, row.data, row.term) for row in part]
    return rows


@given(HISTORIES, st.integers(1, 500))
def test_a_round_trip_gives_equal_digests(entries: list[Entry], size: int) -> None:
    async def digests(rows: Sequence[Entry]) -> tuple[dict[str, str], dict[str, str]]:
        return await folded(entries), await folded(rows)

    rows = imported(exported(entries), size=size)
    source, copy = asyncio.run(digests(rows))

    assert source == copy
    assert [row.index for row in rows] == list(range(1, len(entries) + 1))


@given(HISTORIES, st.integers(1, 8))
def test_a_round_trip_of_what_is_left_after_erasures_gives_equal_digests(entries: list[Entry], every: int) -> None:
    async def digests() -> tuple[dict[str, str], dict[str, str], list[Entry]]:
        log, kept = await erased(entries, every)
        rows = imported(await asyncio.to_thread(exported, log.committed))
        return kept, await folded(rows), rows

    kept, copy, rows = asyncio.run(digests())

    assert kept == copy
    assert [row.index for row in rows] == list(range(1, len(entries) + 1))


@given(HISTORIES, STEPS, st.integers(1, 12), st.integers(1, 4))
@example(
    entries_of([said("m1"), said("m1", "x"), said("m2"), ended(), said("m1"), said("m1")]),
    [Step(4, erases=True, reads_first=True)],
    3,
    1,
)
def test_a_round_trip_while_others_write_and_erase_gives_equal_digests(
    entries: list[Entry], steps: list[Step], begin: int, part: int
) -> None:
    """What counted in a session's earlier life is not known any more when it is over; so all of that is kept."""

    async def export_meanwhile() -> bytes:
        with scratch_folder() as folder:
            store = await open_store(Path(folder))
            log = BusyLog(entries, steps, part, store)
            await log.grow(begin)
            content = b"".join([lines async for lines in export(log, store, HEAD)])
            await store.close()
            return content

    async def digests(rows: Sequence[Entry]) -> tuple[dict[str, str], dict[str, str]]:
        return await folded(entries[: len(rows)]), await folded(rows)

    rows = imported(asyncio.run(export_meanwhile()))
    source, copy = asyncio.run(digests(rows))

    assert source == copy
    assert len(rows) >= min(begin, len(entries))


@given(HISTORIES, st.integers(0, 25))
def test_a_part_and_what_came_behind_it_are_the_whole(entries: list[Entry], cut: int) -> None:
    cut = min(cut, len(entries))
    behind = msgspec.structs.replace(HEAD, after=cut)
    rows = imported(exported(entries[:cut]), exported(entries, behind))

    assert rows == imported(exported(entries))


def test_vectors_that_came_later_find_their_message_behind_what_was_erased() -> None:
    entries = [Entry(1, b""), Entry(2, b""), *entries_of([said("x")] * 2 + [said("m1"), embedded("m1", 3)])[2:]]

    async def digests() -> tuple[dict[str, str], dict[str, str]]:
        return await folded(entries), await folded(imported(await asyncio.to_thread(exported, entries)))

    source, copy = asyncio.run(digests())

    assert source == copy


def test_a_long_gap_comes_in_parts() -> None:
    entries = [*(Entry(index, b"") for index in range(1, 3 * GAP_ROWS_MAX)), Entry(3 * GAP_ROWS_MAX, b"")]

    assert [row.index for row in imported(exported(entries))] == [entry.index for entry in entries]


ENTRIES = entries_of([said("m1"), said("m2"), said("m3")])


def behind(after: int, **changes: str) -> ExportHead:
    return msgspec.structs.replace(HEAD, after=after, **changes)


@pytest.mark.parametrize(
    ("exports", "said"),
    [
        ([exported(ENTRIES, behind(1))], "begins behind log entry 1, and there is nothing before it"),
        ([exported(ENTRIES[:1]), exported(ENTRIES, behind(2))], "begins behind log entry 2, and there is nothing"),
        ([exported(ENTRIES[:2]), exported(ENTRIES, behind(1))], "behind log entry 1, but entry 2 was there before"),
        ([exported(ENTRIES), exported(ENTRIES)], "behind log entry 0, but entry 3 was there before"),
        ([exported(ENTRIES[:2]), exported(ENTRIES, behind(2, store_id="another"))], "not of the same store"),
        ([exported(ENTRIES[:2]), exported(ENTRIES, behind(2, session_id="s"))], "not of the same store"),
    ],
)
def test_exports_that_do_not_go_together_are_refused(exports: list[bytes], said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        imported(*exports)
