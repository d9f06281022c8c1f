"""The log on a disk that fails: what was acknowledged is there, as a whole, or the node refuses to start and says why.

A failing seed is repeated by the line that is printed. `DISK_SEED=5000 pytest tests/disk` tries others; thousands are
for `python -m tests.disk.run --trials 100000 --seed 1`.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from engram.errors import CorruptionError, StorageError
from engram.log.changes import Append
from engram.log.consensus.types import HardState
from engram.log.mark import MARK_BYTES, mark_of
from engram.log.rows import as_row
from engram.log.sqlite import SqliteLog
from engram.log.wal import FRAME_HEADER_BYTES, HEADER_BYTES, examine
from tests.disk.crash_vfs import PATH, done, mount, mounted
from tests.disk.medium import Disk, Trouble
from tests.disk.trial import WAL, Image, Trial, explained
from tests.log.logs import committed, entry, run, snapshot_at

FIRST_SEED = int(os.environ.get("DISK_SEED", "1"))
SEEDS_PER_TEST = 40


@contextmanager
def mounted_disk(seed: int, checkpoint_pages: int = 1000) -> Iterator[Disk]:
    disk = Disk(random.Random(seed), 512)
    with mount(disk, checkpoint_pages=checkpoint_pages, rewrite_entries_max=2):
        yield disk


def opened() -> SqliteLog:
    return done(SqliteLog.open(PATH, store_id="x"))


def ended(disk: Disk, log: SqliteLog) -> None:
    """Let the process end as by `kill -9`."""
    disk.is_dead = True
    with pytest.raises(StorageError):
        done(log.append([Append(hard_state=HardState(term=99))]))
    with pytest.raises(StorageError):
        done(log.close())


@pytest.mark.parametrize("part", range(8))
def test_no_fault_takes_what_was_acknowledged(part: int) -> None:
    first = FIRST_SEED + part * SEEDS_PER_TEST
    for seed in range(first, first + SEEDS_PER_TEST):
        failure = explained(seed)
        assert not failure, failure


@pytest.mark.thorough
@pytest.mark.parametrize(("seed", "trouble"), [(0, Trouble.POWER_CUT), (1, Trouble.POWER_CUT), (2, Trouble.SYNC_FAILS)])
@pytest.mark.parametrize("part", range(4))
def test_a_fault_at_each_step_of_a_life_is_survived(seed: int, trouble: Trouble, part: int) -> None:
    for step in range(part, 1000, 4):
        trial = Trial(seed, troubles=[(trouble, step)])
        trial.run()
        if not trial.struck:
            assert step > 20
            return


def test_a_seed_repeats_a_run_to_the_byte() -> None:
    traces, images = [], []
    for _ in range(2):
        trial = Trial(FIRST_SEED)
        trial.run()
        traces.append(trial.trace)
        images.append(trial.disk.kept())

    assert traces[0] == traces[1]
    assert images[0] == images[1]


@pytest.mark.parametrize("step", range(30))
def test_a_sync_that_fails_at_the_opening_is_heard_of(step: int) -> None:
    """A pragma's own commit failed unheard: the log then said that it was locked, whatever it was asked for."""
    with mounted_disk(step) as disk:
        disk.begin_life(Trouble.SYNC_FAILS, step)
        told = ""
        try:
            log = opened()
        except StorageError as error:
            told = str(error)
        else:
            with suppress(StorageError):
                done(log.append(committed(run(1, 3))))
            try:
                done(log.rewrite({2: b""}))
            except StorageError as error:
                told = str(error)
            done(log.close())

    assert "FSYNC" in told or not told


@pytest.mark.parametrize("seed", range(10))
def test_what_was_erased_does_not_come_back_in_a_power_cut(seed: int) -> None:
    """SQLite cuts its write-ahead log, and does not sync that."""
    with mounted_disk(seed) as disk:
        log = opened()
        done(log.append(committed([entry(1, data=b"secret")])))
        done(log.rewrite({1: b"nothing"}))
        ended(disk, log)
        disk.cut_power()

    assert b"secret" not in b"".join(disk.kept().values())


@pytest.mark.parametrize("seed", range(40))
def test_a_vote_is_kept_that_was_given_after_a_failed_sync_and_a_restart(seed: int) -> None:
    """The system took the failed pages for clean, and the new process took them for durable."""
    with mounted_disk(seed) as disk:
        log = opened()
        done(log.append(committed(run(1, 3))))
        disk.begin_life(Trouble.SYNC_FAILS, 0)
        with pytest.raises(StorageError):
            done(log.append(committed([entry(4, data=b"x" * 9000)])))
        ended(disk, log)
        disk.begin_life(Trouble.NONE, 0)
        log = opened()
        done(log.append([Append(hard_state=HardState(term=7, vote=3))]))
        ended(disk, log)
        disk.cut_power()

        disk.begin_life(Trouble.NONE, 0)
        log = opened()
        assert (log.state.term, log.state.vote) == (7, 3)
        done(log.close())


def test_a_flipped_bit_of_an_entry_is_refused_by_its_index() -> None:
    with mounted_disk(1) as disk:
        log = opened()
        done(log.append(committed([entry(index, data=b"payload-%d" % index) for index in range(1, 9)])))
        done(log.close())
        data = disk.kept()[PATH.as_posix()]
        disk.flip(PATH.as_posix(), data.index(b"payload-5") * 8)

        with pytest.raises(CorruptionError, match="log entry 5: fails its checksum"):
            opened()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM entries WHERE idx = 8", "log entry 8: "),
        ("DELETE FROM entries WHERE idx > 4", "log entry 5: "),
        ("UPDATE state SET last_index = 7, commit_index = 7", "state row fails its checksum"),
    ],
)
def test_the_loss_of_the_newest_entries_is_noticed(statement: str, message: str) -> None:
    with mounted_disk(1):
        log = opened()
        done(log.append(committed(run(1, 8))))
        mounted.connection.execute(statement)
        done(log.close())

        with pytest.raises(CorruptionError, match=message):
            opened()


def test_entries_that_the_state_does_not_know_are_noticed() -> None:
    """As when a transaction is there in part."""
    with mounted_disk(1):
        log = opened()
        done(log.append(committed(run(1, 8))))
        mounted.connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", as_row(entry(9)))
        done(log.close())

        with pytest.raises(CorruptionError, match="the recorded last index is 8, the last row is 9"):
            opened()


def test_a_snapshot_is_installed_as_a_whole_or_not_at_all_wherever_the_power_goes() -> None:
    for step in range(1000):
        with mounted_disk(step) as disk:
            log = opened()
            done(log.append([Append(entries=run(1, 6), hard_state=HardState(term=1))]))
            done(log.stage(run(1, 9, term=2)))
            disk.begin_life(Trouble.POWER_CUT, step)
            try:
                done(log.install(snapshot_at(9, 2), HardState(term=2, vote=0, commit=9)))
            except StorageError:
                is_acknowledged = False
                ended(disk, log)
                disk.cut_power()
            else:
                is_acknowledged = True
                disk.begin_life(Trouble.NONE, 0)
                done(log.close())
            disk.begin_life(Trouble.NONE, 0)
            log = opened()
            found = (log.last_index(), log.state.base_index, log.state.term)
            done(log.close())
        assert found in ({(9, 9, 2)} if is_acknowledged else {(6, 0, 1), (9, 9, 2)})
        if is_acknowledged:
            assert step > 3
            return


def test_limit_a_folder_that_is_put_back_as_it_was_is_told_by_its_epoch_only() -> None:
    """An older state of all files is a state that was promised once. Its peers see an epoch that they know already."""
    with mounted_disk(1) as disk:
        log = opened()
        done(log.append(committed(run(1, 3))))
        done(log.close())
        kept = disk.kept()
        log = opened()
        done(log.append(committed(run(4, 6))))
        epoch = log.state.boot_epoch
        done(log.close())
        disk.roll_back(kept)
        log = opened()
        found = (log.last_index(), log.state.boot_epoch)
        done(log.close())

    assert found == (3, epoch)


def killed_with_five_entries(disk: Disk) -> bytes:
    """Return the write-ahead log of a node that ended as by `kill -9` when five entries were acknowledged."""
    log = opened()
    for index in range(1, 6):
        done(log.append(committed([entry(index, data=b"payload-%d" % index)])))
    ended(disk, log)
    disk.begin_life(Trouble.NONE, 0)
    return disk.kept()[WAL]


@pytest.mark.parametrize("index", range(1, 6))
def test_a_flipped_bit_in_the_write_ahead_log_is_refused_by_the_index_that_is_lost(index: int) -> None:
    """SQLite takes it for a torn tail: the log ended there, without a word."""
    with mounted_disk(1) as disk:
        wal = killed_with_five_entries(disk)
        disk.flip(WAL, wal.index(b"payload-%d" % index) * 8)
        before = disk.kept()

        for _ in range(2):
            with pytest.raises(CorruptionError, match=rf"frame \d+ .*log entry {index}: cannot be read.* there were 5"):
                opened()
        assert disk.kept() == before


def test_a_flipped_bit_in_a_vote_is_refused() -> None:
    with mounted_disk(1) as disk:
        killed_with_five_entries(disk)
        log = opened()
        done(log.append([Append(hard_state=HardState(term=9, vote=2, commit=5))]))
        ended(disk, log)
        disk.begin_life(Trouble.NONE, 0)
        last = examine(Image(disk.kept()[WAL]), Image(b""), None).frames
        disk.flip(WAL, (HEADER_BYTES + last * (FRAME_HEADER_BYTES + 4096) - 100) * 8)

        with pytest.raises(CorruptionError, match="a vote, or what else was written after log entry 5"):
            opened()


def test_a_write_ahead_log_that_is_read_wrongly_is_noticed_and_left_as_it_is() -> None:
    """Whichever read of an opening it is."""
    noticed = 0
    for reads in range(60):
        with mounted_disk(1) as disk:
            killed_with_five_entries(disk)
            disk.flip_read = reads
            try:
                log = opened()
            except (CorruptionError, StorageError):
                noticed += 1
                disk.flip_read = None
                log = opened()
            assert log.last_index() == 5
            done(log.close())

    assert noticed > 5


@pytest.mark.parametrize("index", range(1, 6))
def test_limit_after_a_power_cut_a_bit_in_the_last_transaction_may_take_that(index: int) -> None:
    """The mark may be older then, or not there, as a frame that nobody waited for may be torn. All others are noticed."""
    with mounted_disk(1) as disk:
        wal = killed_with_five_entries(disk)
        disk.flip(WAL, wal.index(b"payload-%d" % index) * 8)
        disk.delete(mark_of(PATH).as_posix(), durably=True)

        if index < 5:
            with pytest.raises(CorruptionError, match=f"log entry {index}: cannot be read"):
                opened()
            return
        log = opened()
        assert log.last_index() == 4
        done(log.close())


@pytest.mark.parametrize("bit", range(0, 8 * MARK_BYTES, 5))
def test_a_mark_that_is_damaged_says_nothing(bit: int) -> None:
    with mounted_disk(1) as disk:
        killed_with_five_entries(disk)
        disk.flip(mark_of(PATH).as_posix(), bit)

        log = opened()
        assert log.last_index() == 5
        done(log.close())
