"""The backup file: what was put together wrongly is noticed, though each of its parts is sound."""

import struct
from collections.abc import Iterable, Sequence

import pytest

from engram.errors import CorruptionError
from engram.log.consensus.types import Entry
from engram.moving.backup_format import MAGIC, BackupReader, BackupWriter, Head
from tests.log.logs import entry

HEAD = Head(engram="1", created_at_ms=1, store_id="s", cluster_id="", node_id=1)
BEGIN, FIRST, SECOND, END = range(4)
"""The parts of a backup with two parts of rows."""


def parts(first: Sequence[Entry], second: Sequence[Entry]) -> list[bytes]:
    writer = BackupWriter()
    return [writer.begin(HEAD), b"".join(writer.add(first)), b"".join(writer.add(second)), writer.end()]


def read(data: Iterable[bytes]) -> list[Entry]:
    reader = BackupReader()
    found = [one for part in data for rows in reader.feed(part) for one in rows.entries()]
    reader.finish()
    return found


ONE = parts([entry(1), entry(2)], [entry(3)])
OTHER = parts([entry(1), entry(2)], [entry(3, data=b"another")])


def test_a_backup_is_read_as_it_was_written_in_whatever_pieces_it_comes() -> None:
    data = b"".join(ONE)

    assert read(data[start : start + 7] for start in range(0, len(data), 7)) == [entry(1), entry(2), entry(3)]


def test_parts_that_were_exchanged_are_named() -> None:
    with pytest.raises(CorruptionError, match="log entry 1 of term 1 stands behind 3"):
        read([ONE[BEGIN], ONE[SECOND], ONE[FIRST], ONE[END]])


def test_a_part_of_another_backup_is_noticed() -> None:
    with pytest.raises(CorruptionError, match="it fails its SHA-256"):
        read([ONE[BEGIN], ONE[FIRST], OTHER[SECOND], ONE[END]])


def test_a_part_that_is_missing_is_noticed() -> None:
    with pytest.raises(CorruptionError, match="fails its SHA-256"):
        read([ONE[BEGIN], ONE[FIRST], ONE[END]])
    with pytest.raises(CorruptionError, match="ends too early"):
        read(ONE[:END])


def test_what_follows_the_end_is_noticed() -> None:
    with pytest.raises(CorruptionError, match="something follows its end"):
        read([*ONE, struct.pack(">II", 0, 0)])


def test_a_backup_of_another_version_is_told_apart_from_what_is_none() -> None:
    with pytest.raises(CorruptionError, match="of a version that is not known here"):
        read([MAGIC.replace(b"1", b"2")])
    with pytest.raises(CorruptionError, match="this is no backup of engram"):
        read([b"PK\x03\x04 something else"])
