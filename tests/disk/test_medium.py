"""The disk itself: what it keeps, what it may lose, and what it may not do."""

import random

import pytest

from tests.disk.medium import Disk, DiskError, Fate, File, Trouble

SECTOR = 512


def disk(trouble: Trouble = Trouble.NONE, steps_left: int = 0) -> tuple[Disk, File]:
    made = Disk(random.Random(7), SECTOR)
    file = made.create("a")
    made.sync_names()
    made.begin_life(trouble, steps_left)
    return made, file


def survivors(file: File, fate: Fate, tries: int = 200) -> set[bytes]:
    return {bytes(file.survivor(random.Random(seed), fate)) for seed in range(tries)}


def test_what_was_synced_survives_any_power_cut() -> None:
    made, file = disk()
    made.write(file, b"a" * 2000, 0)
    made.sync(file)

    assert {image for fate in Fate for image in survivors(file, fate)} == {b"a" * 2000}


def test_each_sector_that_was_not_synced_is_lost_for_itself() -> None:
    made, file = disk()
    made.write(file, b"a" * 1024, 0)
    made.sync(file)
    made.write(file, b"b" * 1024, 0)

    old, new = b"a" * SECTOR, b"b" * SECTOR
    assert survivors(file, Fate.MIXED) == {old + old, old + new, new + old, new + new}
    assert survivors(file, Fate.LOST) == {old + old}
    assert survivors(file, Fate.KEPT) == {new + new}


def test_a_sector_is_torn_between_what_it_held_and_nothing_beside_what_was_written_changes() -> None:
    made, file = disk()
    made.write(file, b"a" * SECTOR, 0)
    made.sync(file)
    made.write(file, b"b" * 100, 200)

    images = survivors(file, Fate.TORN)
    assert any(0 < image.count(b"b") < 100 for image in images)
    assert {image[:200] + image[300:] for image in images} == {b"a" * 412}


def test_a_cut_is_done_as_a_whole_or_not_at_all() -> None:
    made, file = disk()
    made.write(file, b"a" * 1024, 0)
    made.sync(file)
    made.truncate(file, 0)

    assert survivors(file, Fate.MIXED) == {b"", b"a" * 1024}


def test_after_a_failed_sync_what_is_read_may_never_reach_the_disk() -> None:
    made, file = disk(Trouble.SYNC_FAILS)
    made.write(file, b"a" * SECTOR * 20, 0)
    with pytest.raises(DiskError, match="IOERR_FSYNC"):
        made.sync(file)
    made.sync(file)

    assert made.read(file, SECTOR, 0) == b"a" * SECTOR
    assert file.durable != file.view


def test_a_full_disk_takes_what_does_not_grow() -> None:
    made, file = disk(Trouble.FULL, steps_left=1)
    made.write(file, b"a" * 100, 0)
    with pytest.raises(DiskError, match="FULL"):
        made.write(file, b"b" * 100, 100)
    made.write(file, b"c" * 50, 0)

    assert made.read(file, 50, 0) == b"c" * 50


@pytest.mark.parametrize("trouble", [Trouble.POWER_CUT, Trouble.KILL])
def test_the_dead_do_nothing_more(trouble: Trouble) -> None:
    made, file = disk(trouble, steps_left=1)
    made.write(file, b"a", 0)
    for _ in range(2):
        with pytest.raises(DiskError):
            made.sync(file)
    with pytest.raises(DiskError):
        made.read(file, 1, 0)

    assert file.durable == b""


def test_a_name_that_was_not_synced_may_be_gone() -> None:
    found = set()
    for seed in range(50):
        made = Disk(random.Random(seed), SECTOR)
        made.create("a")
        made.cut_power()
        found.add("a" in made.files)

    assert found == {True, False}
