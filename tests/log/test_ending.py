"""The end of a log in real files, as a killed process leaves them: it starts with everything, or says what is lost."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engram.database import wal_of
from engram.errors import CorruptionError
from engram.log.mark import mark_of
from engram.log.sqlite import SqliteLog
from tests.log.logs import committed, entry, opened, retained, run, written

OPEN = "import asyncio, sys; from pathlib import Path; from engram.log.sqlite import SqliteLog"


@pytest.fixture
async def killed(tmp_path: Path) -> Path:
    """A log of which five entries were acknowledged before its process was killed, and the mark was not closed."""
    (tmp_path / "running").mkdir()
    async with opened(tmp_path / "running" / "raft.db") as log:
        for index in range(1, 6):
            await log.append(committed([entry(index, data=b"payload-%d" % index)]))
        shutil.copytree(tmp_path / "running", tmp_path / "killed")
    return tmp_path / "killed" / "raft.db"


def flip(path: Path, place: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(place)] ^= 1  # where it was first written
    path.write_bytes(data)


def opened_elsewhere(path: Path) -> str:
    """Return what another process says that opens it."""
    code = f"{OPEN}; asyncio.run(SqliteLog.open(Path(sys.argv[1])))"
    return subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False).stderr


async def test_a_killed_log_starts_with_everything(killed: Path) -> None:
    async with opened(killed) as log:
        assert [one.data for one in await retained(log)] == [b"payload-%d" % index for index in range(1, 6)]


@pytest.mark.parametrize("index", range(1, 6))
@pytest.mark.parametrize("read_only", [False, True])
async def test_a_flipped_bit_is_named_and_nothing_is_changed(killed: Path, index: int, *, read_only: bool) -> None:
    flip(wal_of(killed), b"payload-%d" % index)
    before = {path.name: path.read_bytes() for path in (killed, wal_of(killed), mark_of(killed))}

    with pytest.raises(CorruptionError, match=rf"raft\.db-wal: frame .* log entry {index}: cannot be read"):
        await SqliteLog.open(killed, read_only=read_only)

    assert {path.name: path.read_bytes() for path in (killed, wal_of(killed), mark_of(killed))} == before


async def test_while_a_process_writes_it_is_told_that_the_log_is_locked(tmp_path: Path) -> None:
    """Not that it is damaged: what is read of a file that is being written may be in no order."""
    path = tmp_path / "raft.db"
    async with opened(path) as log:
        for index in range(1, 4):
            await log.append(committed([entry(index, data=b"payload-%d" % index)]))
        flip(wal_of(path), b"payload-2")
        told = await asyncio.to_thread(opened_elsewhere, path)

    assert "StorageError" in told
    assert "is locked: another engram uses this data folder" in told


async def test_after_a_clean_stop_the_mark_of_a_log_says_nothing_of_another(tmp_path: Path) -> None:
    """As when a log is removed, and one made in its place."""
    path, other = tmp_path / "raft.db", tmp_path / "other.db"
    await written(path, run(1, 9))
    await written(other, run(1, 3))
    other.replace(path)

    async with opened(path) as log:
        assert log.last_index() == 3


async def test_a_log_without_a_mark_is_opened_and_gets_one(killed: Path) -> None:
    """As one of an earlier version."""
    mark_of(killed).unlink()

    async with opened(killed) as log:
        assert log.last_index() == 5
    assert mark_of(killed).stat().st_size == 40


async def test_a_flipped_bit_that_makes_no_text_of_a_text_is_damage(tmp_path: Path) -> None:
    """Python's driver says it in its own words, without a code of SQLite's."""
    path = tmp_path / "raft.db"
    await written(path, run(1, 3))
    data = path.read_bytes()
    path.write_bytes(data.replace(b'{"voters"', b'{"voter\xf3'))

    with pytest.raises(CorruptionError, match="Could not decode to UTF-8"):
        await SqliteLog.open(path)


async def test_large_changes_are_followed_to_their_end(tmp_path: Path) -> None:
    """A commit of many frames, and a write-ahead log that begins anew."""
    path, copy = tmp_path / "raft.db", tmp_path / "copy.db"
    async with opened(path) as log:
        for index in range(1, 2500, 500):
            await log.append(committed([entry(n, data=bytes(3000)) for n in range(index, index + 500)]))
        await log.append(committed([entry(2501, data=b"the last")]))
        for one, name in ((path, copy), (wal_of(path), wal_of(copy)), (mark_of(path), mark_of(copy))):
            shutil.copy(one, name)
    flip(wal_of(copy), b"the last")

    with pytest.raises(CorruptionError, match=r"log entry 2501: cannot be read.* there were 2501"):
        await SqliteLog.open(copy)
