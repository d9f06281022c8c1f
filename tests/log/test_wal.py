"""Where a write-ahead log may end. The files are SQLite's own; what SQLite makes of each is compared with what we read."""

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

import pytest

from engram.log.wal import FRAME_HEADER_BYTES, HEADER_BYTES, Ending, Place, examine

PAGE_BYTES = 1024
FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES


class Image:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, amount_bytes: int, offset: int) -> bytes:
        return self.data[offset : offset + amount_bytes]


class Written:
    """A database whose write-ahead log has eight transactions, and what each file held before and after a checkpoint."""

    def __init__(self, folder: Path, page_bytes: int = PAGE_BYTES) -> None:
        path = folder / "written.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA page_size = {page_bytes}")
            connection.execute("PRAGMA locking_mode = exclusive")
            connection.execute("PRAGMA journal_mode = wal")
            connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)")
            for number in range(7):
                connection.execute("INSERT INTO t VALUES (?, ?)", (number, b"%d" % number * page_bytes))
            self.wal = wal_of(path).read_bytes()
            self.database = path.read_bytes()
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self.checkpointed = path.read_bytes()

    @property
    def commits(self) -> list[int]:
        """The numbers of the frames that end a transaction."""
        places = range(HEADER_BYTES, len(self.wal), FRAME_BYTES)
        return [number for number, place in enumerate(places, 1) if any(self.wal[place + 4 : place + 8])]

    def examined(self, wal: bytes, mark: Place | None = None) -> Ending:
        return examine(Image(wal), Image(self.database), mark)

    def place(self, frames: int) -> Place:
        """The place behind so many frames."""
        salts = struct.unpack_from(">2I", self.wal, 16)
        total = struct.unpack_from(">2I", self.wal, HEADER_BYTES + frames * FRAME_BYTES - PAGE_BYTES - 8)
        return Place((salts[0], salts[1]), frames, (total[0], total[1]))


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def bits_of_frame(number: int) -> Iterator[int]:
    """All bits of its header, and some of its page."""
    start = (HEADER_BYTES + (number - 1) * FRAME_BYTES) * 8
    header = FRAME_HEADER_BYTES * 8
    return chain(range(start, start + header), range(start + header, start + FRAME_BYTES * 8, 997))


def recovered(folder: Path, database: bytes, wal: bytes) -> int:
    """Return how many frames SQLite takes."""
    path = folder / "recovered.db"
    path.write_bytes(database)
    wal_of(path).write_bytes(wal)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = exclusive")
        (_, frames, _) = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return int(frames)


@pytest.mark.parametrize("page_bytes", [512, 1024, 4096, 65536])
def test_a_sound_file_ends_where_sqlite_ends_it(tmp_path: Path, page_bytes: int) -> None:
    one = Written(tmp_path, page_bytes)

    ending = one.examined(one.wal)

    assert ending.damage == ""
    assert ending.frames == recovered(tmp_path, one.database, one.wal) > 8


def test_wherever_a_file_is_cut_short_it_ends_where_sqlite_ends_it(tmp_path: Path, written: Written) -> None:
    for size in range(0, len(written.wal), 311):
        cut = written.wal[:size]

        ending = written.examined(cut)

        assert ending.damage == ""
        assert ending.frames == recovered(tmp_path, written.database, cut)


def test_a_transaction_of_which_some_frames_never_came_was_not_durable(tmp_path: Path, written: Written) -> None:
    start = HEADER_BYTES + written.commits[-2] * FRAME_BYTES
    for place in range(start, len(written.wal), 256):
        torn = (written.wal[:place] + b"?" * 256 + written.wal[place + 256 :])[: len(written.wal)]

        ending = written.examined(torn)

        assert ending.damage == ""
        assert ending.frames == recovered(tmp_path, written.database, torn) == written.commits[-2]


def test_a_bit_in_any_transaction_but_the_last_is_found(written: Written) -> None:
    for number in range(1, written.commits[-2] + 1):
        for bit in bits_of_frame(number):
            ending = written.examined(flipped(written.wal, bit))

            assert ending.damage == f"frame {number} is not as it was written, and what it belongs to was durable"
            assert ending.frames < number


def test_a_bit_in_the_last_transaction_is_found_by_the_mark(written: Written) -> None:
    last = written.commits[-1]
    for number in range(written.commits[-2] + 1, last + 1):
        for bit in bits_of_frame(number):
            wal = flipped(written.wal, bit)

            assert written.examined(wal, written.place(last)).damage
            assert not written.examined(wal).damage
            assert not written.examined(wal, written.place(written.commits[-2])).damage


def test_a_lost_sector_is_found_too(written: Written) -> None:
    """If it has the header of a frame, what is in that one and the next tells nothing: one transaction more is needed."""
    for place in range(512, HEADER_BYTES + written.commits[-3] * FRAME_BYTES - 512, 512):
        wal = written.wal[:place] + bytes(512) + written.wal[place + 512 :]

        assert wal == written.wal or written.examined(wal).damage


def test_a_bit_in_the_header_matters_unless_the_database_has_everything(written: Written) -> None:
    for bit in range(HEADER_BYTES * 8):
        wal = flipped(written.wal, bit)

        assert written.examined(wal).damage.startswith("its header is damaged, and frame ")
        assert examine(Image(wal), Image(written.checkpointed), None) == Ending(None, 0)


def test_frames_of_an_older_generation_mean_nothing(written: Written) -> None:
    """After a checkpoint SQLite begins at the first frame again, under other salts."""
    newer = bytearray(written.wal)
    newer[16:24] = b"otherone"
    first, second = 0, 0
    for one, other in struct.iter_unpack("<2I", newer[:24]):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    newer[24:32] = struct.pack(">2I", first, second)

    ending = written.examined(bytes(newer), written.place(written.commits[-1]))

    assert ending == Ending(struct.unpack(">2I", b"otherone"), 0)
    assert ending.starts_over


def test_a_file_that_was_put_back_to_an_older_state_is_found_by_the_mark(written: Written) -> None:
    older = written.wal[: HEADER_BYTES + written.commits[3] * FRAME_BYTES]

    assert written.examined(older, written.place(written.commits[4])).damage
    assert not written.examined(older, written.place(written.commits[3])).damage


def test_checksums_in_the_other_order_of_bytes_are_understood(tmp_path: Path, written: Written) -> None:
    """As a machine of the other kind writes them: SQLite takes either."""
    wal = bytearray(written.wal)
    wal[0:4] = struct.pack(">I", 0x377F0683)
    first, second = 0, 0

    def put(place: int, data: bytes) -> None:
        nonlocal first, second
        for one, other in struct.iter_unpack(">2I", data):
            first = (first + one + second) & 0xFFFFFFFF
            second = (second + other + first) & 0xFFFFFFFF
        wal[place : place + 8] = struct.pack(">2I", first, second)

    put(24, bytes(wal[:24]))
    for start in range(HEADER_BYTES, len(wal), FRAME_BYTES):
        body = start + FRAME_HEADER_BYTES
        put(start + 16, bytes(wal[start : start + 8]) + bytes(wal[body : body + PAGE_BYTES]))
    data = bytes(wal)

    assert written.examined(data).frames == recovered(tmp_path, written.database, data) == written.commits[-1]
    for number in range(1, written.commits[-2]):
        assert written.examined(flipped(data, (HEADER_BYTES + number * FRAME_BYTES) * 8 - 9)).damage


def test_nothing_is_lost_with_a_file_that_is_not_there_yet() -> None:
    assert examine(Image(b""), Image(b""), None) == Ending(None, 0)
