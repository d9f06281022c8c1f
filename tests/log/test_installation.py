import asyncio
import logging
import random
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from engram.errors import CorruptionError
from engram.log import staging
from engram.log.changes import Append
from engram.log.consensus.types import ConfState, Entry, HardState, InvariantViolation, Snapshot
from engram.log.members import Member
from engram.log.rows import State
from engram.log.sqlite import SqliteLog
from tests.log.logs import (
    bytes_on_disk,
    committed,
    entry,
    opened,
    read_outside,
    retained,
    run,
    snapshot_at,
    tamper,
    written_in_the_old_format,
)

PROJECT = Path(__file__).parents[2]
BOOK = {1: Member(address="one:9000"), 2: Member(address="two:9000", http_address="two:8000", store_id="s2")}
NOBODY = ConfState()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raft.db"


def hard_state(snapshot: Snapshot) -> HardState:
    """Return what Raft records together with `snapshot`."""
    return HardState(term=snapshot.meta.term, vote=2, commit=snapshot.meta.index)


async def installed(log: SqliteLog, snapshot: Snapshot) -> None:
    await log.install(snapshot, hard_state(snapshot))


def staged_rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM staged").fetchone()
    return int(count)


def wal_bytes(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


async def test_a_new_node_becomes_what_it_was_sent(path: Path) -> None:
    snapshot = snapshot_at(9, 2, book=BOOK)
    history = [*run(1, 5), *run(6, 9, term=2)]
    async with opened(path, members=NOBODY) as log:
        assert log.staged_index == 0
        for start in range(0, 9, 4):
            await log.stage(history[start : start + 4])
        assert log.staged_index == 9
        assert (log.last_index(), log.first_index(), await retained(log)) == (0, 1, [])

        await installed(log, snapshot)

        assert await asyncio.to_thread(wal_bytes, path) == 0  # not as much again as the whole history
        assert (log.first_index(), log.last_index(), log.term(9), log.staged_index) == (10, 9, 2, 9)
        assert log.initial_state() == (HardState(term=2, vote=2, commit=9), ConfState(voters=(1, 2)))
        assert log.snapshot() == snapshot
        assert await log.read(0, 9) == history
        await log.append(committed(run(10, 12, term=2)))
        assert log.entries(10, 13) == run(10, 12, term=2)
    async with opened(path) as log:
        assert log.snapshot() == snapshot
        assert log.state.base_book == BOOK
        assert (log.first_index(), log.last_index()) == (10, 12)
        assert await retained(log) == [*history, *run(10, 12, term=2)]
        assert await log.verify() == []


@pytest.mark.parametrize("last", [4, 6, 9])
@pytest.mark.parametrize("index", [4, 6, 7])
async def test_a_snapshot_replaces_what_is_not_committed_and_nothing_else(path: Path, last: int, index: int) -> None:
    async with opened(path) as log:
        await log.append([Append(entries=run(1, last), hard_state=HardState(term=1, vote=1, commit=3))])
        await log.stage(run(4, index, term=2))

        await installed(log, snapshot_at(index, 2))

        assert (log.first_index(), log.last_index()) == (index + 1, index)
        assert log.state.rebuild_due
    async with opened(path) as log:
        assert await retained(log) == [*run(1, 3), *run(4, index, term=2)]
        assert await log.verify() == []
    assert staged_rows(path) == 0


async def test_a_transfer_goes_on_after_a_restart_and_from_another_sender(path: Path) -> None:
    async with opened(path) as log:
        await log.append([Append(entries=run(1, 5), hard_state=HardState(term=1, vote=1, commit=2))])
        await log.stage(run(3, 8, term=2))
    async with opened(path) as log:
        assert log.staged_index == 8
        assert await log.verify() == []
        await log.stage(run(7, 12, term=2))  # it overlaps: what is here is good
        assert log.staged_index == 12

        await installed(log, snapshot_at(10, 2))  # of one that has not come as far

        assert await retained(log) == [*run(1, 2), *run(3, 10, term=2)]
        assert log.staged_index == 12
        await log.stage(run(13, 14, term=2))
    async with opened(path) as log:
        assert log.staged_index == 14
        await installed(log, snapshot_at(14, 2))
        assert await retained(log) == [*run(1, 2), *run(3, 14, term=2)]
    assert await asyncio.to_thread(staged_rows, path) == 0


async def test_what_was_sent_beyond_a_snapshot_waits_for_the_next(path: Path) -> None:
    async with opened(path, members=NOBODY) as log:
        await log.stage(run(1, 9))
        await installed(log, snapshot_at(6))
        assert (log.last_index(), log.staged_index) == (6, 9)
    async with opened(path) as log:
        assert await retained(log) == run(1, 6)
        assert log.staged_index == 9
        await log.stage(run(10, 11))
        await installed(log, snapshot_at(11))
        assert await retained(log) == run(1, 11)


@pytest.mark.parametrize("first", [4, 7])
@pytest.mark.parametrize("entries", [run(9, 9), [entry(8), entry(10)], [entry(8), entry(8)]])
async def test_staging_leaves_no_gap(path: Path, first: int, entries: Sequence[Entry]) -> None:
    async with opened(path) as log:
        await log.append(committed(run(1, first - 1)))
        await log.stage(run(first, 7))

        with pytest.raises(InvariantViolation, match="staged after"):
            await log.stage(entries)

        assert log.staged_index == 7
        await log.stage(run(8, 8))


async def test_entries_that_are_committed_here_are_not_staged(path: Path) -> None:
    async with opened(path) as log:
        await log.append(committed(run(1, 6)))
        await log.stage(run(2, 5))
        assert log.staged_index == 6
        await log.stage(run(5, 8))
        assert log.staged_index == 8
    assert await asyncio.to_thread(staged_rows, path) == 2


@pytest.mark.parametrize(
    ("staged", "snapshot", "message"),
    [
        ([], snapshot_at(6, 2), "do not lead from 3 to the snapshot's 6"),
        (run(4, 5, term=2), snapshot_at(6, 2), "do not lead from 3 to the snapshot's 6"),
        (run(4, 6, term=1), snapshot_at(6, 2), "staged entry 6 is of term 1, the snapshot of term 2"),
        (run(4, 8, term=1), snapshot_at(6, 2), "staged entry 6 is of term 1, the snapshot of term 2"),
        (run(4, 6, term=2), Snapshot(snapshot_at(6, 2).meta, b"no book"), "undecodable address book"),
    ],
)
async def test_a_snapshot_whose_entries_are_not_here_changes_nothing(
    path: Path, staged: Sequence[Entry], snapshot: Snapshot, message: str
) -> None:
    async with opened(path) as log:
        await log.append([Append(entries=run(1, 5), hard_state=HardState(term=1, vote=1, commit=3))])
        await log.stage(staged)
        state, staged_index = log.state, log.staged_index

        with pytest.raises(CorruptionError, match=message):
            await installed(log, snapshot)

        assert (log.state, log.staged_index, log.last_index()) == (state, staged_index, 5)
        assert log.entries(1, 6) == run(1, 5)
        assert await retained(log) == run(1, 5)
    assert await asyncio.to_thread(staged_rows, path) == len(staged)


@pytest.mark.parametrize(
    ("snapshot", "state"),
    [
        (snapshot_at(3, 2), HardState(term=2, commit=3)),
        (snapshot_at(6, 2), HardState(term=1, commit=6)),
        (snapshot_at(6, 1), HardState(term=1, commit=6)),
    ],
)
async def test_a_snapshot_that_turns_anything_back_is_refused(path: Path, snapshot: Snapshot, state: HardState) -> None:
    async with opened(path) as log:
        await log.append([Append(entries=run(1, 3), hard_state=HardState(term=2, vote=1, commit=3))])
        await log.stage(run(4, 6, term=snapshot.meta.term))

        with pytest.raises(InvariantViolation, match="Raft never does this"):
            await log.install(snapshot, state)

        assert (log.last_index(), log.staged_index) == (3, 6)


async def test_staged_entries_with_a_hole_are_not_installed(path: Path) -> None:
    async with opened(path) as log:
        await log.append(committed(run(1, 3)))
        await log.stage(run(4, 9))
        state = log.state
    tamper(path, "DELETE FROM staged WHERE idx = 6")

    def install() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            staging.install(connection, 3, replace(state, base_index=9, base_term=1))

    with pytest.raises(CorruptionError, match="of the staged entries 4 to 9 there are only 5"):
        await asyncio.to_thread(install)


async def test_staged_entries_that_the_log_has_overtaken_are_forgotten(path: Path) -> None:
    async with opened(path) as log:
        await log.append(committed(run(1, 3)))
        await log.stage(run(4, 6))
        await log.append(committed(run(4, 5)))
        assert log.staged_index == 6
        await log.append(committed(run(6, 9)))
        assert log.staged_index == 9
    assert await asyncio.to_thread(staged_rows, path) == 3

    async with opened(path) as log:
        assert log.staged_index == 9
    assert await asyncio.to_thread(staged_rows, path) == 0

    async with opened(path) as log:
        await log.stage(run(10, 11))
        await log.append(committed(run(10, 14)))
        await log.stage(run(15, 16))  # in their place
        assert log.staged_index == 16
    async with opened(path) as log:
        assert log.staged_index == 16
        await installed(log, snapshot_at(16))
        assert await retained(log) == run(1, 16)


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("UPDATE staged SET crc = crc + 1 WHERE idx = 8", 8),
        ("UPDATE staged SET data = 7 WHERE idx = 6", 6),
        ("DELETE FROM staged WHERE idx = 7", 8),
    ],
)
async def test_damaged_staged_entries_are_dropped_and_the_node_starts(
    path: Path, caplog: pytest.LogCaptureFixture, statement: str, index: int
) -> None:
    async with opened(path) as log:
        await log.append(committed(run(1, 5)))
        await log.stage(run(6, 9))
    tamper(path, statement)

    with caplog.at_level(logging.WARNING):
        async with opened(path) as log:
            assert log.staged_index == 5
            await log.stage(run(6, 7))
            await installed(log, snapshot_at(7))
            assert await retained(log) == run(1, 7)
    assert [record.getMessage() for record in caplog.records] == [
        f"the part of a snapshot that was received is damaged at entry {index}: it is dropped"
    ]


async def test_staged_entries_that_do_not_reach_the_log_are_dropped(path: Path) -> None:
    async with opened(path) as log:
        await log.append(committed(run(1, 5)))
        await log.stage(run(6, 9))
    tamper(path, "DELETE FROM staged WHERE idx = 6")

    async with opened(path) as log:
        assert log.staged_index == 5


async def test_staged_entries_are_no_damage_to_the_log(path: Path) -> None:
    async with opened(path) as log:
        await log.append(committed(run(1, 3)))
        await log.stage(run(4, 9))

    async with opened(path, read_only=True) as log:
        assert await log.verify() == []
        assert await retained(log) == run(1, 3)
    async with opened(path) as log:
        assert (log.last_index(), log.staged_index) == (3, 9)


async def test_an_empty_log_begins_where_the_senders_history_does(path: Path) -> None:
    async with opened(path, members=NOBODY) as log:
        await log.stage(run(500, 509))
        assert log.staged_index == 509
    async with opened(path) as log:
        await log.stage(run(510, 520))
        await installed(log, snapshot_at(520))
        assert await log.read(0, 520) == run(500, 520)
    async with opened(path) as log:
        assert (log.first_index(), log.last_index()) == (521, 520)
        assert await retained(log) == run(500, 520)
        assert await log.verify() == []
        await log.stage(run(521, 525))
        await installed(log, snapshot_at(525))
        assert await retained(log) == run(500, 525)


async def test_a_history_that_begins_late_does_not_follow_a_log_that_is_there(path: Path) -> None:
    async with opened(path, members=NOBODY) as log:
        await log.stage(run(500, 509))
        await log.append(committed(run(1, 3)))
        assert log.staged_index == 3
        with pytest.raises(InvariantViolation, match="log entry 510: staged after 3"):
            await log.stage(run(510, 520))
        with pytest.raises(CorruptionError, match="do not lead from 3"):
            await installed(log, snapshot_at(509))
        await log.stage(run(4, 6))
        await installed(log, snapshot_at(6))
        assert await retained(log) == run(1, 6)


async def test_a_snapshot_does_not_bring_back_what_was_erased(path: Path) -> None:
    secret = [entry(index, data=b"secret-%d" % index) for index in range(1, 10)]
    async with opened(path) as log:
        await log.append([Append(entries=secret[:6], hard_state=HardState(term=1, vote=1, commit=2))])
        await log.rewrite({4: b""})  # committed, though that is not recorded yet
        assert log.staged_index == 4
        await log.stage(secret)  # its sender has not erased yet
        await installed(log, snapshot_at(9))

        assert [one.data for one in await log.read(0, 5)] == [b"secret-1", b"secret-2", b"secret-3", b"", b"secret-5"]


async def test_an_erased_payload_is_not_among_the_staged_either(tmp_path: Path, path: Path) -> None:
    secret = [entry(index, data=b"secret-%d" % index * 900) for index in range(1, 10)]
    async with opened(path) as log:
        await log.append(committed(secret[:2]))
        await log.stage(secret[2:])
        await log.append(committed(secret[2:6]))
        await log.rewrite(dict.fromkeys(range(1, 7), b""))

        on_disk = await asyncio.to_thread(read_outside, tmp_path)
        assert [index for index in range(1, 10) if b"secret-%d" % index in on_disk] == [7, 8, 9]
        await installed(log, snapshot_at(9))
    async with opened(path) as log:
        assert [one.data for one in await retained(log)] == [b""] * 6 + [one.data for one in secret[6:]]


@pytest.mark.parametrize("seed", range(8))
async def test_nothing_that_was_dropped_or_erased_is_left_in_the_file(tmp_path: Path, path: Path, seed: int) -> None:
    """Snapshots over uncommitted entries, abandoned transfers, and erasures, with rows of all sizes."""
    rng = random.Random(seed)

    def sized(first: int, last: int, name: bytes) -> list[Entry]:
        sizes = [rng.randrange(rng.choice((1, 60, 200, 1000, 3000, 9000))) for _ in range(first, last + 1)]
        markers = [b"<%d-%s>" % (index, name) for index in range(first, last + 1)]
        return [
            entry(index, data=marker + b"." * size + marker)
            for index, marker, size in zip(range(first, last + 1), markers, sizes, strict=True)
        ]

    written: list[bytes] = []
    erased: set[int] = set()
    commit = 0
    async with opened(path, members=NOBODY) as log:
        for turn in range(12):
            own = sized(commit + 1, commit + rng.randrange(1, 40), b"own-%d" % turn)
            sent = sized(commit + 1, commit + rng.randrange(1, 40), b"sent-%d" % turn)
            written += [one.data.partition(b">")[0] for one in (*own, *sent)]
            await log.append([Append(entries=own)])
            await log.stage(sent[: len(sent) // 2])
            await log.stage(sent[len(sent) // 2 :])
            commit = rng.randrange(sent[0].index, sent[-1].index + 1)
            if rng.random() < 0.3:  # the leader sends entries after all
                await log.append(committed(sent[: commit + 1 - sent[0].index]))
            else:
                await installed(log, snapshot_at(commit))
            some = rng.sample(range(1, commit + 1), min(commit, 20))
            await log.rewrite(dict.fromkeys(some, b""))
            erased.update(some)
            in_files = await asyncio.to_thread(read_outside, tmp_path)
            assert [index for index in erased if b"<%d-" % index in in_files] == []
        await log.append(committed(sized(log.last_index() + 1, log.staged_index + 1, b"last")))
        kept = {one.data.partition(b">")[0] for one in await retained(log)}
    async with opened(path) as log:  # which forgets what is staged and of no use
        assert await log.verify() == []
        await log.rewrite({min(erased): b""})
    in_files = await asyncio.to_thread(bytes_on_disk, tmp_path)

    assert [marker for marker in written if marker not in kept and marker + b">" in in_files] == []
    assert [marker for marker in kept if marker not in in_files] == []


def crash_at_each_statement(path: Path, *action: object) -> Sequence[Path]:
    """Let processes act on copies of the log at `path`, and return the files that they left; the last one lived."""
    command = [sys.executable, "-m", "tests.log.crasher", str(path), *map(str, action)]
    subprocess.run(command, check=True, cwd=PROJECT)
    left = [file for file in path.parent.glob(f"{path.name}.*") if file.suffix[1:].isdigit()]
    return sorted(left, key=lambda file: int(file.suffix[1:]))


@pytest.mark.parametrize("own", [[], run(1, 7)])
async def test_a_crash_during_an_installation_leaves_the_old_log_or_the_new(path: Path, own: Sequence[Entry]) -> None:
    kept = len(own) // 2
    async with opened(path, members=NOBODY) as log:
        if own:
            await log.append([Append(entries=own, hard_state=HardState(term=1, vote=1, commit=kept))])
        await log.stage(run(kept + 1, 9, term=2))
        old = log.state
    new = run(1, kept) + run(kept + 1, 9, term=2)
    outcomes: list[bool] = []

    for file in await asyncio.to_thread(crash_at_each_statement, path, "install", 9, 2):
        async with opened(file) as log:
            is_new = log.last_index() == 9
            outcomes.append(is_new)
            assert await retained(log) == (new if is_new else own)
            assert log.staged_index == 9
            assert log.state.base_index == (9 if is_new else 0)
            assert is_new or log.state == replace(old, boot_epoch=old.boot_epoch + 2)
            if not is_new:  # and it can be done again
                await installed(log, snapshot_at(9, 2))
                assert await retained(log) == new

    assert sorted(outcomes) == outcomes
    assert outcomes.count(False) >= 8
    assert outcomes[-1]


async def test_a_crash_at_any_moment_of_bringing_a_log_up_to_date_is_harmless(path: Path) -> None:
    state = State(store_id="old", node_id=1, term=1, commit=5, last_index=7, base_members=ConfState(voters=(1,)))
    await asyncio.to_thread(written_in_the_old_format, path, run(1, 7), state)
    formats: list[int] = []

    for file in await asyncio.to_thread(crash_at_each_statement, path, "open"):
        async with opened(file, read_only=True) as log:
            assert replace(log.state, boot_epoch=0) == state
            formats.append(log.state.boot_epoch)
        async with opened(file) as log:
            assert await retained(log) == run(1, 7)
            assert log.staged_index == 5

    assert formats[0] == 0
    assert formats[-1] == 1
