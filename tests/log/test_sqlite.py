import asyncio
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engram.errors import ConfigError, CorruptionError, StorageError
from engram.log.changes import Append
from engram.log.consensus.types import (
    ChangeKind,
    ConfState,
    HardState,
    InvariantViolation,
    Snapshot,
    SnapshotMeta,
    decode_conf_change,
)
from engram.log.members import Member, decode_book, encode_book
from engram.log.sqlite import SETTINGS, SqliteLog
from engram.log.storage import CompactedError
from tests.log.logs import (
    bytes_on_disk,
    committed,
    entry,
    file_bytes,
    flip_bit,
    opened,
    read_outside,
    retained,
    run,
    snapshot_at,
    tamper,
    written,
)

OPEN_IT = """
import asyncio, sys
from pathlib import Path
from engram.errors import StorageError
from engram.log.sqlite import SqliteLog

async def main():
    try:
        await SqliteLog.open(Path(sys.argv[1]), read_only=sys.argv[2] == "read")
    except StorageError as error:
        print(error)

asyncio.run(main())
"""


SIZES_MAX = (1, 60, 200, 1000, 3000, 9000)
"""Payloads of all the ways in which a row may lie: many to a page, few to a page, over several pages."""

BOOK = {
    1: Member(address="one:9000", http_address="one:8000", store_id="s1"),
    2: Member(address="two:9000"),
}

MEMORY = Path("/dev/shm")
"""For tests that write much and pull no plug."""


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="engram-log-", dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raft.db"


async def test_a_new_log_is_empty_and_knows_its_members(path: Path) -> None:
    async with opened(path) as log:
        assert log.initial_state() == (HardState(), ConfState(voters=(1,)))
        assert (log.first_index(), log.last_index()) == (1, 0)
        assert log.state.store_id == "test"


async def test_entries_and_state_are_there_after_opening_again(path: Path) -> None:
    async with opened(path) as log:
        await log.append([Append(entries=run(1, 3)), Append(hard_state=HardState(term=2, vote=1, commit=2))])

    async with opened(path) as log:
        assert await retained(log) == run(1, 3)
        assert log.initial_state()[0] == HardState(term=2, vote=1, commit=2)
        assert log.last_index() == 3
        assert log.entries(3, 4) == run(3, 3)


async def test_the_file_carries_the_settings_that_durability_rests_on(path: Path) -> None:
    wanted = {setting.name: setting.value for setting in SETTINGS}

    assert wanted["locking_mode"] == "exclusive"
    assert wanted["journal_mode"] == "wal"
    assert wanted["synchronous"] == 2
    assert wanted["secure_delete"] == 1
    assert [*wanted].index("locking_mode") < [*wanted].index("journal_mode")


async def test_a_conflicting_entry_replaces_all_from_its_index_on(path: Path) -> None:
    async with opened(path) as log:
        await log.append([Append(entries=run(1, 9), hard_state=HardState(term=1, vote=1, commit=3))])
        await log.append([Append(entries=run(5, 6, term=2), hard_state=HardState(term=2, vote=0, commit=3))])

        expected = [*run(1, 4), *run(5, 6, term=2)]
        assert list(log.entries(1, 7)) == expected
        assert [log.term(index) for index in (4, 5, 6)] == [1, 2, 2]
    async with opened(path) as log:
        assert await retained(log) == expected
        assert log.last_index() == 6


async def test_appends_of_one_batch_may_replace_one_another(path: Path) -> None:
    async with opened(path) as log:
        await log.append([Append(entries=run(1, 4))])
        await log.append(
            [
                Append(entries=run(5, 8)),
                Append(entries=run(7, 9, term=2), hard_state=HardState(term=2)),
                Append(entries=run(4, 4, term=3), hard_state=HardState(term=3)),
            ]
        )

    async with opened(path) as log:
        assert await retained(log) == [*run(1, 3), *run(4, 4, term=3)]


@pytest.mark.parametrize(
    ("append", "message"),
    [
        (Append(entries=run(3, 6, term=2)), "log entry 3: committed"),
        (Append(entries=run(7, 7)), "log entry 7: appended after 5 would leave a gap"),
        (Append(hard_state=HardState(term=1, vote=1, commit=6)), "commit 6 of 5"),
        (Append(hard_state=HardState(term=0, vote=1, commit=3)), "term 0 after 1"),
    ],
)
async def test_what_raft_never_asks_for_is_refused_and_changes_nothing(
    path: Path, append: Append, message: str
) -> None:
    async with opened(path) as log:
        await log.append([Append(entries=run(1, 5), hard_state=HardState(term=1, vote=1, commit=3))])

        with pytest.raises(InvariantViolation, match=message):
            await log.append([append])

        assert await retained(log) == run(1, 5)


async def test_moving_the_base_keeps_the_history_readable(path: Path) -> None:
    async with opened(path) as log:
        await log.append(committed(run(1, 10)))
        await log.move_base(7, ConfState(voters=(1, 2)), BOOK)

        assert log.snapshot() == snapshot_at(7, book=BOOK)
        assert log.entries(3, 11) == run(3, 10)  # a follower that is a little behind is sent entries
    async with opened(path) as log:
        assert await retained(log) == run(1, 10)
        assert log.initial_state() == (HardState(term=1, vote=1, commit=10), ConfState(voters=(1, 2)))
        assert (log.first_index(), log.last_index(), log.term(7)) == (8, 10, 1)
        assert log.snapshot() == snapshot_at(7, book=BOOK)
        assert log.state.base_book == BOOK


async def test_a_commit_index_that_lags_behind_the_base_starts_at_the_base(path: Path) -> None:
    async with opened(path) as log:
        await log.append([Append(entries=run(1, 4), hard_state=HardState(term=1, vote=1, commit=1))])
        await log.move_base(3, ConfState(voters=(1,)), {})

    async with opened(path) as log:
        assert log.initial_state()[0].commit == 3


async def test_history_that_is_missing_below_the_base_is_no_damage(path: Path) -> None:
    async with opened(path) as log:
        await log.append(committed(run(1, 9)))
        await log.move_base(6, ConfState(voters=(1,)), {})
    tamper(path, "DELETE FROM entries WHERE idx IN (1, 3, 6)")

    async with opened(path) as log:
        assert [entry.index for entry in await retained(log)] == [2, 4, 5, 7, 8, 9]
        assert await log.read(5, 6) == []


async def test_entries_beyond_the_window_are_read_from_the_file(path: Path) -> None:
    entries = [entry(index, data=bytes([index]) * 1000) for index in range(1, 101)]

    async with opened(path, window_bytes_max=20_000) as log:
        for one in entries:
            await log.append(committed([one]))
            if log.needs_base_move(one.index, 1000):
                await log.move_base(one.index, ConfState(voters=(1,)), {})
            log.trim(one.index)

        assert log.first_index() > 80
        assert await log.read(0, 100, 10) == entries[:10]
        assert await log.read(95, 100) == entries[95:]
        assert [one async for batch in log.history() for one in batch] == entries


async def test_what_is_above_the_base_stays_in_memory_whatever_its_size(path: Path) -> None:
    entries = [entry(index, data=bytes(1000)) for index in range(1, 51)]
    async with opened(path, window_bytes_max=5000) as log:
        await log.append(committed(entries))
        log.trim(50)
        assert (log.first_index(), log.entries(1, 51)) == (1, entries)

        await log.move_base(10, ConfState(voters=(1,)), {})
        log.trim(50)
        assert (log.first_index(), log.entries(11, 51)) == (11, entries[10:])

    async with opened(path, window_bytes_max=5000) as log:  # though all of it is committed
        log.trim(50)
        assert (log.first_index(), log.entries(11, 51)) == (11, entries[10:])


async def test_the_window_is_trimmed_by_a_quarter_so_that_the_newest_below_the_base_stay(path: Path) -> None:
    entries = [entry(index, data=bytes(800)) for index in range(1, 101)]  # counted as 1000 bytes each
    async with opened(path, window_bytes_max=40_000) as log:
        await log.append(committed(entries[:40]))
        await log.move_base(40, ConfState(voters=(1,)), {})
        log.trim(40)
        assert log.first_index() == 1

        await log.append(committed(entries[40:41]))
        log.trim(0)
        assert log.first_index() == 1
        log.trim(41)
        assert log.first_index() == 12
        assert log.term(11) == 1
        with pytest.raises(CompactedError):
            log.entries(11, 13)


@pytest.mark.parametrize(
    ("window_bytes_max", "handed_over", "is_needed"),
    [(50_000, 13, True), (50_000, 12, False), (5000, 4, True), (5000, 3, False)],
)
async def test_the_base_moves_by_count_and_by_bytes(
    path: Path, window_bytes_max: int, handed_over: int, *, is_needed: bool
) -> None:
    async with opened(path, window_bytes_max=window_bytes_max) as log:
        await log.append(committed([entry(index, data=bytes(1000)) for index in range(1, 21)]))
        await log.move_base(3, ConfState(voters=(1,)), {})

        assert log.needs_base_move(handed_over, threshold=10) == is_needed


async def test_bytes_that_a_trim_would_free_move_no_base(path: Path) -> None:
    async with opened(path, window_bytes_max=5000) as log:
        await log.append(committed([entry(index, data=bytes(1000)) for index in range(1, 21)]))
        await log.move_base(19, ConfState(voters=(1,)), {})

        assert not log.needs_base_move(20, 1000)


async def test_a_cluster_begins_with_an_entry_that_is_its_base(path: Path) -> None:
    members = ConfState(voters=(1, 2), learners=(3,))
    async with opened(path, members=ConfState()) as log:
        await log.bootstrap("c1", members, BOOK)
        wanted = log.state

        assert (wanted.cluster_id, wanted.base_book) == ("c1", BOOK)
        assert log.initial_state() == (HardState(term=1, vote=0, commit=1), members)
        assert log.snapshot() == Snapshot(SnapshotMeta(1, 1, members), encode_book(BOOK))
        assert (log.first_index(), log.last_index(), log.term(1)) == (2, 1, 1)  # others get it as a snapshot
    async with opened(path) as log:
        assert log.state == replace(wanted, boot_epoch=2)
        (first,) = await log.read(0, 1)
        change = decode_conf_change(first)
        assert [(one.kind, one.node_id) for one in change.changes] == [
            (ChangeKind.ADD_VOTER, 1),
            (ChangeKind.ADD_VOTER, 2),
            (ChangeKind.ADD_LEARNER, 3),
        ]
        assert decode_book(change.context) == BOOK


async def test_a_cluster_does_not_begin_where_something_is(path: Path, tmp_path: Path) -> None:
    async with opened(path) as log:
        with pytest.raises(ConfigError, match="empty"):
            await log.bootstrap("c1", ConfState(voters=(1,)), {})  # it is its own cluster
    async with opened(tmp_path / "adopted.db", members=ConfState()) as log:
        await log.adopt_cluster("c2")
        with pytest.raises(ConfigError, match="empty"):
            await log.bootstrap("c1", ConfState(voters=(1,)), {})
    async with opened(tmp_path / "filled.db", members=ConfState()) as log:
        await log.append([Append(entries=run(1, 1))])
        with pytest.raises(ConfigError, match="empty"):
            await log.bootstrap("c1", ConfState(voters=(1,)), {})
        assert log.state.cluster_id == ""


async def test_a_node_belongs_to_one_cluster_for_good(path: Path) -> None:
    async with opened(path, members=ConfState()) as log:
        await log.adopt_cluster("c1")
        await log.adopt_cluster("c1")
    async with opened(path, members=ConfState()) as log:
        with pytest.raises(ConfigError, match="cluster c1, not of c2"):
            await log.adopt_cluster("c2")
        assert log.state.cluster_id == "c1"


async def test_a_batch_read_is_bounded_in_bytes(path: Path) -> None:
    big = [entry(index, data=bytes(3 * 1024 * 1024)) for index in range(1, 6)]
    await written(path, big)

    async with opened(path) as log:
        assert len(await log.read(0, 5)) in {2, 3}
        assert await retained(log) == big


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "UPDATE entries SET data = CAST('X' || substr(data, 2) AS BLOB) WHERE idx = 4",
            "log entry 4: fails its checksum",
        ),
        ("UPDATE entries SET term = 2 WHERE idx = 4", "log entry 4: fails its checksum"),
        ("UPDATE entries SET kind = 1 WHERE idx = 4", "log entry 4: fails its checksum"),
        ("UPDATE entries SET crc = crc + 1 WHERE idx = 4", "log entry 4: fails its checksum"),
        ("UPDATE entries SET data = 4 WHERE idx = 4", "log entry 4: fails its checksum"),
        ("DELETE FROM entries WHERE idx = 4", "log entry 4: is missing"),
        ("DELETE FROM entries WHERE idx > 8", "log entry 9: .*recorded last index is 10"),
        ("DELETE FROM entries", "log entry 1: .*recorded last index is 10"),
        ("INSERT INTO entries SELECT 11, term, kind, data, crc FROM entries WHERE idx = 10", "log entry 11: fails"),
        ("UPDATE state SET last_index = 9", "state row fails its checksum"),
        ("UPDATE state SET term = 0", "state row fails its checksum"),
        ("DELETE FROM state", "state row is missing"),
        ("DROP TABLE entries", "a table is missing"),
        ("DROP TABLE staged", "a table is missing"),
        ("UPDATE state SET cluster_id = 'other'", "state row fails its checksum"),
        ("UPDATE state SET boot_epoch = 0", "state row fails its checksum"),
        ("UPDATE state SET base_book = x'80'", "state row fails its checksum"),
        ("PRAGMA user_version = 3", "format"),
    ],
)
async def test_damage_stops_the_node_and_is_named(path: Path, statement: str, message: str) -> None:
    await written(path, run(1, 10))
    tamper(path, statement)

    with pytest.raises(CorruptionError, match=f"^{re.escape(str(path))}: .*{message}"):
        await SqliteLog.open(path)

    async with opened(path, read_only=True) as log:
        assert any(re.search(message, str(problem)) for problem in await log.verify())


async def test_a_recorded_last_index_beyond_the_rows_is_noticed_even_with_a_fitting_checksum(path: Path) -> None:
    await written(path, run(1, 10))
    async with opened(path) as log:
        await log.append(committed(run(11, 12)))
    tamper(path, "DELETE FROM entries WHERE idx > 10")

    with pytest.raises(CorruptionError, match="log entry 11: the recorded last index is 12"):
        await SqliteLog.open(path)


async def test_a_flipped_bit_anywhere_in_a_row_is_found(path: Path) -> None:
    marker = b"here lies a payload of some length"
    await written(path, [*run(1, 5), entry(6, data=marker), *run(7, 9)])
    flip_bit(path, marker)

    with pytest.raises(CorruptionError, match="log entry 6: fails its checksum"):
        await SqliteLog.open(path)


async def test_verify_names_every_problem_where_opening_stops_at_the_first(path: Path) -> None:
    await written(path, run(1, 20))
    tamper(path, "DELETE FROM entries WHERE idx IN (5, 11)")
    tamper(path, "UPDATE entries SET crc = 0 WHERE idx = 8")

    async with opened(path, read_only=True) as log:
        problems = await log.verify()

    assert [str(problem) for problem in problems] == [
        "log entry 5: is missing",
        "log entry 8: fails its checksum",
        "log entry 11: is missing",
    ]


async def test_a_sound_log_has_no_problem_and_can_be_listed_without_being_changed(path: Path) -> None:
    await written(path, run(1, 5))
    before = file_bytes(path)

    async with opened(path, read_only=True) as log:
        assert await log.verify() == []
        assert await retained(log) == run(1, 5)
        with pytest.raises(StorageError, match="READONLY"):
            await log.append(committed(run(6, 6)))

    assert file_bytes(path) == before


async def test_a_log_that_is_open_opens_for_nobody_else(path: Path) -> None:
    async with opened(path) as log:
        for how in ("read", "write"):
            child = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", OPEN_IT, str(path), how],
                capture_output=True,
                text=True,
                check=True,
            )

            assert "another engram uses this data folder" in child.stdout
        await log.append(committed(run(1, 1)))


async def test_the_log_of_another_node_is_refused(path: Path) -> None:
    await written(path, run(1, 1))

    with pytest.raises(ConfigError, match="node 1; this is node 2"):
        await SqliteLog.open(path, node_id=2)


async def test_an_erased_payload_is_in_no_file_and_everything_else_is_unharmed(tmp_path: Path, path: Path) -> None:
    secret = [entry(3, data=b"secret-small"), entry(5, data=b"secret-big" * 5000), entry(8, data=b"secret-live" * 30)]
    others = [one for one in run(1, 9) if one.index not in {3, 5, 8}]
    async with opened(path) as log:
        await log.append(committed(sorted([*others, *secret], key=lambda one: one.index)))
        await log.move_base(6, ConfState(voters=(1,)), {})

        await log.rewrite({3: b"", 5: b"kept part", 8: b""})

        left = [one for one in await retained(log) if one.index not in {3, 5, 8}]
        assert left == others
        assert log.entries(8, 9)[0].data == b""
        assert b"secret" not in await asyncio.to_thread(read_outside, tmp_path)

    async with opened(path) as log:
        assert [one.data for one in await log.read(0, 9) if one.index in {3, 5, 8}] == [b"", b"kept part", b""]
        assert await log.verify() == []


async def test_erasing_again_is_harmless_and_erasing_what_never_was_is_not(path: Path) -> None:
    async with opened(path) as log:
        await log.append(committed(run(1, 3)))
        await log.rewrite({2: b""})
        await log.rewrite({2: b""})

        with pytest.raises(CorruptionError, match="log entry 4: is missing"):
            await log.rewrite({4: b""})


@pytest.mark.parametrize("seed", [4, 14, 32, 47])  # of 300; these leave a copy behind if the file is not rebuilt
async def test_no_copy_of_an_erased_payload_outlives_page_splits_and_truncations(memory: Path, seed: int) -> None:
    rng = random.Random(seed)
    alive: dict[int, bytes] = {}
    gone: list[bytes] = []
    commit = last = 0
    async with opened(memory / "raft.db") as log:
        for term in range(1, 41):
            if rng.random() < 0.5:  # a new leader replaces the newest entries
                last = max(last - rng.randrange(1, 50), commit)
                gone.extend(alive.pop(index) for index in [index for index in alive if index > last])
            first, last = last + 1, last + rng.randrange(1, 60)
            alive |= {index: b"<%d-%d-%d>" % (seed, index, term) for index in range(first, last + 1)}
            sizes = [rng.randrange(rng.choice(SIZES_MAX)) for _ in range(first, last + 1)]
            entries = [
                entry(index, term, alive[index] + b"." * size + alive[index])
                for index, size in zip(range(first, last + 1), sizes, strict=True)
            ]
            commit = max(commit, last - 50)
            await log.append([Append(entries=entries, hard_state=HardState(term=term, commit=commit))])
            old = [index for index in alive if index <= commit]
            erased = rng.sample(old, min(len(old), 30))
            await log.rewrite({index: rng.choice((b"", b"rest")) for index in erased})
            gone.extend(alive.pop(index) for index in erased)
        assert await log.verify() == []
    data = bytes_on_disk(memory)

    assert [marker for marker in gone if marker in data] == []
    assert [marker for marker in alive.values() if marker not in data] == []
