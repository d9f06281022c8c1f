"""The log's SQLite tables: what a row holds, its checksum, and each statement that touches one.

Everything here runs in the database's thread. Nothing here decides what Raft wants; `engram.log.sqlite` does.

An entry once written is never deleted, save by Raft's own truncation. SQLite's `secure_delete` zeroes the cell that
goes, but a deletion may also make it move the cells that stay, from page to page, and leave old copies in the gaps
between them. Those would outlive a later erasure. So erasing replaces a payload, in place, and a truncation leaves a
mark that makes the next erasure rebuild the file.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import google_crc32c
import msgspec

from engram.database import Connection, Format, file_format, insert_rows, is_empty, quick_check, stamp
from engram.errors import CorruptionError
from engram.log.consensus.types import ConfState, Entry, EntryKind
from engram.log.members import Book, decode_book, encode_book

FORMAT = Format(application_id=0x656E674C, version=2)
"""`engL`, and the layout below. A file of an unknown version is refused: the log is the truth, it is never rebuilt."""
OLD_FORMAT = FORMAT._replace(version=1)
"""Before clusters: no `staged`, and no cluster, epoch, or book in the state. It is read, and brought up to date."""

CHUNK_ENTRIES_MAX = 1024
CHUNK_BYTES_MAX = 8 * 1024 * 1024
"""One read of the file. While it runs an append waits: it must stay a matter of milliseconds."""

_ROW = """
    idx INTEGER PRIMARY KEY,
    term INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    data BLOB NOT NULL,
    crc INTEGER NOT NULL
"""
_CREATE_ENTRIES = f"CREATE TABLE entries ({_ROW})"
CREATE_STAGED = f"CREATE TABLE staged ({_ROW})"
"""Entries of a snapshot that is on its way: committed elsewhere, not yet this log's."""
_CREATE_STATE = """
    CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        store_id TEXT NOT NULL,
        node_id INTEGER NOT NULL,
        term INTEGER NOT NULL,
        vote INTEGER NOT NULL,
        commit_index INTEGER NOT NULL,
        last_index INTEGER NOT NULL,
        base_index INTEGER NOT NULL,
        base_term INTEGER NOT NULL,
        base_members TEXT NOT NULL,
        rebuild_due INTEGER NOT NULL,
        cluster_id TEXT NOT NULL,
        boot_epoch INTEGER NOT NULL,
        base_book BLOB NOT NULL,
        crc INTEGER NOT NULL
    )
"""
_INSERT_STATE = """
    INSERT INTO state (
        id, store_id, node_id, term, vote, commit_index, last_index, base_index, base_term, base_members, rebuild_due,
        cluster_id, boot_epoch, base_book, crc
    ) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SELECT_STATE = """
    SELECT
        store_id, node_id, term, vote, commit_index, last_index, base_index, base_term, base_members, rebuild_due,
        cluster_id, boot_epoch, base_book, crc
    FROM state
"""
_SELECT_OLD_STATE = """
    SELECT store_id, node_id, term, vote, commit_index, last_index, base_index, base_term, base_members, rebuild_due, crc
    FROM state
"""
_UPDATE_STATE = """
    UPDATE state SET
        store_id = ?, node_id = ?, term = ?, vote = ?, commit_index = ?, last_index = ?, base_index = ?, base_term = ?,
        base_members = ?, rebuild_due = ?, cluster_id = ?, boot_epoch = ?, base_book = ?, crc = ?
"""
_HEADER = struct.Struct(">QQB")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The log's one row beside its entries, written in the same transaction as they are."""

    store_id: str
    """Made when the file is: two files never share one, so a node that comes back without its disk is noticed."""
    node_id: int
    term: int = 0
    vote: int = 0
    commit: int = 0
    """A lower bound: it is written with the batch after the one it speaks of."""
    last_index: int = 0
    """Kept beside the entries, so that losing the newest of them is noticed."""
    base_index: int = 0
    base_term: int = 0
    base_members: ConfState
    """Who belonged to the cluster at the base."""
    rebuild_due: bool = False
    """A truncation may have left old copies of entries in the file; an erasure must rebuild it."""
    cluster_id: str = ""
    """Empty: this node has never been in a cluster."""
    boot_epoch: int = 0
    """How many times the file was opened for writing: what is left over from an earlier run is told by it."""
    base_book: Book = field(default_factory=dict)
    """Where the members at the base are."""


class Problem(NamedTuple):
    """Something that is not as it was written; `log_index` is None where no entry is to blame."""

    log_index: int | None
    detail: str

    def __str__(self) -> str:
        return self.detail if self.log_index is None else f"log entry {self.log_index}: {self.detail}"


def checksum(index: int, term: int, kind: int, data: bytes) -> int:
    """Return the CRC32C of an entry: a row that was swapped with another fails it, as one with a flipped bit does."""
    header: int = google_crc32c.value(_HEADER.pack(index, term, kind))
    return int(google_crc32c.extend(header, data))


def create(connection: Connection, state: State) -> None:
    """Make the tables of a new file, in a transaction."""
    for statement in (_CREATE_ENTRIES, CREATE_STAGED, _CREATE_STATE):
        connection.execute(statement)
    connection.execute(_INSERT_STATE, _state_row(state))
    stamp(connection, FORMAT)


def migrate(connection: Connection, state: State) -> None:
    """Bring a file of the old format, whose state is `state`, up to date, in a transaction."""
    connection.execute("DROP TABLE state")
    connection.execute(_CREATE_STATE)
    connection.execute(_INSERT_STATE, _state_row(state))
    connection.execute(CREATE_STAGED)
    stamp(connection, FORMAT)


def found_format(connection: Connection) -> Format | None:
    """Return the format of the log file, FORMAT or OLD_FORMAT; None when it is new.

    Raises:
        CorruptionError: It is something else, or of another version.
    """
    if is_empty(connection):
        return None
    found = file_format(connection)
    if found not in {FORMAT, OLD_FORMAT}:
        raise CorruptionError(f"not a log file of this version: its format is {found}, {FORMAT} is needed")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    if not {"entries", "state"} | ({"staged"} if found == FORMAT else set()) <= tables:
        raise CorruptionError(f"a table is missing: there is only {sorted(tables)}")
    return found


def load_state(connection: Connection) -> State:
    """Return the recorded state, of a file in either format.

    Raises:
        CorruptionError: It is missing or fails its checksum.
    """
    is_old = file_format(connection) == OLD_FORMAT
    row = connection.execute(_SELECT_OLD_STATE if is_old else _SELECT_STATE).fetchone()
    if row is None:
        raise CorruptionError("the log's state row is missing")
    if row[-1] != _state_checksum(row[:-1]):
        raise CorruptionError("the log's state row fails its checksum")
    state = State(
        store_id=row[0],
        node_id=row[1],
        term=row[2],
        vote=row[3],
        commit=row[4],
        last_index=row[5],
        base_index=row[6],
        base_term=row[7],
        base_members=msgspec.json.decode(row[8], type=ConfState),
        rebuild_due=bool(row[9]),
    )
    if is_old:
        return state
    return replace(state, cluster_id=row[10], boot_epoch=row[11], base_book=decode_book(row[12]))


def save_state(connection: Connection, state: State) -> None:
    """Replace the recorded state."""
    connection.execute(_UPDATE_STATE, _state_row(state))


def insert(connection: Connection, entries: Iterable[Entry]) -> None:
    """Add `entries` behind the last one."""
    statement = "INSERT INTO entries (idx, term, kind, data, crc) VALUES (?, ?, ?, ?, ?)"
    insert_rows(connection, statement, [as_row(entry) for entry in entries])


def as_row(entry: Entry) -> tuple[int, int, int, bytes, int]:
    """Return what is written of `entry`: idx, term, kind, data, crc."""
    crc = checksum(entry.index, entry.term, entry.kind, entry.data)
    return (entry.index, entry.term, entry.kind, entry.data, crc)


def truncate(connection: Connection, first_index: int) -> None:
    """Remove the entries from `first_index` on. The caller records that a rebuild is due."""
    connection.execute("DELETE FROM entries WHERE idx >= ?", (first_index,))


def read(connection: Connection, after: int, up_to: int, limit: int, *, base_index: int) -> list[Entry]:
    """Return the retained entries in (after, up_to], at most `limit` and about CHUNK_BYTES_MAX, but at least one.

    Entries at or below `base_index` may be missing: an older history than this file's.

    Raises:
        CorruptionError: A checksum does not fit, or one above the base is missing; the message names the entry.
    """
    rows = connection.execute(
        "SELECT idx, term, kind, data, crc FROM entries WHERE idx > ? AND idx <= ? ORDER BY idx LIMIT ?",
        (after, up_to, min(limit, CHUNK_ENTRIES_MAX)),
    )
    entries: list[Entry] = []
    expected = max(after, base_index) + 1
    size_bytes = 0
    for row in rows:
        if row[0] > base_index:
            if row[0] != expected:
                raise CorruptionError(str(Problem(expected, "is missing")))
            expected += 1
        if not is_sound(row):
            raise CorruptionError(str(Problem(row[0], "fails its checksum")))
        entries.append(Entry(term=row[1], index=row[0], kind=EntryKind(row[2]), data=row[3]))
        size_bytes += len(row[3])
        if size_bytes >= CHUNK_BYTES_MAX:
            break
    if not entries and up_to >= expected:
        raise CorruptionError(str(Problem(expected, "is missing")))
    return entries


def read_kinds(connection: Connection, after: int, up_to: int) -> list[Entry]:
    """Return the entries in (after, up_to] that change the membership; they are few."""
    rows = connection.execute(
        "SELECT term, idx, kind, data FROM entries WHERE idx > ? AND idx <= ? AND kind <> ? ORDER BY idx",
        (after, up_to, EntryKind.NORMAL),
    )
    return [Entry(term=term, index=index, kind=EntryKind(kind), data=data) for term, index, kind, data in rows]


def rewrite(connection: Connection, payloads: Mapping[int, bytes]) -> None:
    """Replace payloads, keeping index, term and kind.

    Raises:
        CorruptionError: An entry is missing.
    """
    for index, data in payloads.items():
        if not replace_payload(connection, "entries", index, data):
            raise CorruptionError(str(Problem(index, "is missing")))


def replace_payload(connection: Connection, table: Literal["entries", "staged"], index: int, data: bytes) -> bool:
    """Replace the payload of one row, keeping index, term and kind; return whether there is such a row."""
    row = connection.execute(f"SELECT term, kind FROM {table} WHERE idx = ?", (index,)).fetchone()  # noqa: S608
    if row is None:
        return False
    crc = checksum(index, row[0], row[1], data)
    connection.execute(f"UPDATE {table} SET data = ?, crc = ? WHERE idx = ?", (data, crc, index))  # noqa: S608
    return True


def rebuild(connection: Connection, state: State) -> State:
    """Write the whole file anew, which leaves no old copy of anything, and return the state that says so."""
    connection.execute("VACUUM")
    rebuilt = replace(state, rebuild_due=False)
    save_state(connection, rebuilt)
    return rebuilt


def problems(connection: Connection, state: State) -> Iterator[Problem]:
    """Check everything, in bounded memory; yield what is wrong, nothing for a sound log."""
    yield from (Problem(None, complaint) for complaint in quick_check(connection))
    yield from _state_problems(state)
    expected = state.base_index + 1
    term = 0
    for row in connection.execute("SELECT idx, term, kind, data, crc FROM entries ORDER BY idx"):
        index = row[0]
        if not is_sound(row):
            yield Problem(index, "fails its checksum")
            expected = max(expected, index + 1)
            continue
        if row[1] < term or row[1] > state.term:
            yield Problem(index, f"has term {row[1]} after term {term} in a log whose term is {state.term}")
        term = row[1]
        if index > state.base_index:
            if index != expected:
                yield Problem(expected, "is missing")
            expected = index + 1
    if expected - 1 != state.last_index:
        yield Problem(
            min(expected, state.last_index + 1),
            f"the recorded last index is {state.last_index}, the last row is {expected - 1}",
        )


def _state_problems(state: State) -> Iterator[Problem]:
    if not state.base_index <= state.last_index:
        yield Problem(None, f"the last index {state.last_index} is below the base {state.base_index}")
    if state.commit > state.last_index:
        yield Problem(None, f"the commit index {state.commit} is beyond the last index {state.last_index}")


def is_sound(row: tuple[int, int, int, bytes, int]) -> bool:
    """Return whether a row (idx, term, kind, data, crc) is as it was written."""
    index, term, kind, data, crc = row
    try:
        return checksum(index, term, kind, data) == crc
    except (TypeError, struct.error):  # a flipped bit in a row's header changes the type of its values
        return False


def _state_row(state: State) -> tuple[object, ...]:
    fields = (
        state.store_id,
        state.node_id,
        state.term,
        state.vote,
        state.commit,
        state.last_index,
        state.base_index,
        state.base_term,
        msgspec.json.encode(state.base_members).decode(),
        int(state.rebuild_due),
        state.cluster_id,
        state.boot_epoch,
        encode_book(state.base_book),
    )
    return (*fields, _state_checksum(fields))


def _state_checksum(fields: Sequence[object]) -> int:
    return int(google_crc32c.value(repr(tuple(fields)).encode()))
