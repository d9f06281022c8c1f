"""The log on disk: one SQLite file, its live part mirrored in memory for Raft, one fsync for each batch of appends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar

from engram.database import Connection, Database, Setting
from engram.errors import ConfigError, CorruptionError, StorageError
from engram.log import rows
from engram.log.consensus.types import ConfState, Entry, HardState, InvariantViolation, Snapshot, SnapshotMeta
from engram.log.rows import Problem, State
from engram.log.storage import fitting
from engram.log.window import Window

T = TypeVar("T")

WINDOW_BYTES_MAX = 8 * 1024 * 1024
"""Recent payloads kept in memory. A reader that is further behind reads the file."""

SETTINGS = (
    Setting("locking_mode", "exclusive"),  # before WAL: its index then lives in the heap, and no other process gets in
    Setting("page_size", 4096),
    Setting("auto_vacuum", 0),
    Setting("journal_mode", "wal"),
    Setting("synchronous", 2),  # FULL: one fdatasync for each commit. NORMAL loses acknowledged writes in a power cut
    Setting("wal_autocheckpoint", 1000),  # the WAL is then overwritten in place, which is faster than growing it
    Setting("secure_delete", 1),
    Setting("cache_size", -16_000),
    Setting("temp_store", 2),  # memory: a temporary file would keep what was to be forgotten
    Setting("mmap_size", 0),  # an I/O error under mmap is a SIGBUS
    Setting("foreign_keys", 0),
    Setting("trusted_schema", 0),
    Setting("cell_size_check", 1),
)
"""Each is read back and checked; why these and no others was measured with power cuts and with timings."""

READ_ONLY_SETTINGS = (Setting("query_only", 1), Setting("trusted_schema", 0), Setting("cell_size_check", 1))

_REWRITE_ENTRIES_MAX = 256
"""One transaction of an erasure; appends wait for no more than that."""

_PROBLEMS_MAX = 1000
"""A file that has more of them is not examined further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """What Raft asks to make durable at once: entries, which replace those from their first index on, and its state."""

    entries: Sequence[Entry] = ()
    hard_state: HardState | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """One transaction: truncate, insert, and record the state."""

    truncate_from: int | None
    entries: Sequence[Entry]
    state: State


class SqliteLog:
    """A durable log, and the `Storage` that Raft reads. Its owner is one event loop; the file has one open log.

    After an error of the disk every call fails with it: the process must open the file again.
    """

    def __init__(self, database: Database, state: State, window: Window) -> None:
        self._database = database
        self._state = state
        self._window = window
        self._changing = (
            asyncio.Lock()
        )  # a new state is computed from the old one, and is the old one until it is durable

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        node_id: int = 1,
        store_id: str = "",
        members: ConfState | None = None,
        window_bytes_max: int = WINDOW_BYTES_MAX,
        read_only: bool = False,
    ) -> Self:
        """Open the log at `path`, after checking all of it; create it with `store_id` and `members` if there is none.

        A log opened `read_only` is not checked, so that `verify` can say all that is wrong with it; it cannot be
        opened while a node runs.

        Raises:
            CorruptionError: Anything is not as it was written: the message names the file and the entry.
            ConfigError: The log belongs to another node.
            StorageError: Another process has it open, or the disk failed.
        """
        settings = READ_ONLY_SETTINGS if read_only else SETTINGS
        database = await Database.open(path, settings, read_only=read_only)
        try:
            if read_only:
                state = await _run(database, _load_unchecked)
                return cls(database, state, Window(base_index=0, base_term=0, bytes_max=0))
            new = State(store_id=store_id, node_id=node_id, base_members=members or ConfState(voters=(node_id,)))
            state, window = await _run(database, lambda connection: _boot(connection, new, window_bytes_max))
        except BaseException:
            await database.close()
            raise
        return cls(database, state, window)

    @property
    def state(self) -> State:
        """What is recorded on disk now."""
        return self._state

    # What Raft reads: never waits.

    def initial_state(self) -> tuple[HardState, ConfState]:
        """Return the state to start from, and the members at the base."""
        state = self._state
        commit = max(
            state.commit, state.base_index
        )  # it is recorded late, but nothing at or below the base is undecided
        return HardState(term=state.term, vote=state.vote, commit=commit), state.base_members

    def first_index(self) -> int:
        """Return the first index of the live log: base + 1."""
        return self._window.base_index + 1

    def last_index(self) -> int:
        """Return the index of the last durable entry."""
        return self._window.last_index

    def term(self, index: int) -> int:
        """Return the term of entry `index`, from the base on."""
        return self._window.term(index)

    def entries(self, low: int, high: int, max_bytes: int | None = None) -> Sequence[Entry]:
        """Return the entries in [low, high), as many as fit `max_bytes` but at least one."""
        return fitting(self._window.entries(low, high), max_bytes)

    def snapshot(self) -> Snapshot:
        """Return the base. The history itself travels as rows, on a channel of its own."""
        window = self._window
        return Snapshot(SnapshotMeta(window.base_index, window.base_term, self._state.base_members), b"")

    # What the replica does: one hop into the database's thread each.

    async def append(self, appends: Iterable[Append]) -> None:
        """Make `appends` durable, in order, in one transaction with one fsync.

        Raises:
            InvariantViolation: A committed entry would be replaced, or a gap left: a bug in the caller.
            StorageError: The disk failed; what it holds now is unknown.
        """
        async with self._changing:
            plan = _planned(self._state, appends)
            await self._database.transact(lambda connection: _carry_out(connection, plan))
            self._window.append(plan.entries)
            self._state = plan.state

    async def move_base(self, index: int, members: ConfState) -> None:
        """Let the live log begin after `index`, which must be committed, where `members` belonged to the cluster.

        Everything below stays readable as history.
        """
        async with self._changing:
            state = self._state
            assert state.base_index <= index <= state.last_index
            moved = replace(
                state,
                base_index=index,
                base_term=self._window.term(index),
                base_members=members,
                commit=max(state.commit, index),
            )
            await self._database.transact(lambda connection: rows.save_state(connection, moved))
            self._window.move_base(index)
            self._state = moved

    async def read(self, after: int, up_to: int, limit: int = rows.CHUNK_ENTRIES_MAX) -> Sequence[Entry]:
        """Return the first entries of (after, up_to], some 8 MiB and `limit` at most; all of them may be called for.

        Only entries at or below the base may be missing; none is returned when all of them are.

        Raises:
            CorruptionError: One fails its checksum, or is missing above the base.
        """
        recent = self._window.recent(after, min(up_to, after + limit))
        if recent is not None:
            return fitting(recent, rows.CHUNK_BYTES_MAX)
        base_index = self._state.base_index
        return await _run(
            self._database, lambda connection: rows.read(connection, after, up_to, limit, base_index=base_index)
        )

    async def membership_changes(self, up_to: int) -> Sequence[Entry]:
        """Return the entries above the base, up to `up_to`, that change the membership."""
        base_index = self._state.base_index
        return await self._database.run(lambda connection: rows.read_kinds(connection, base_index, up_to))

    async def rewrite(self, payloads: Mapping[int, bytes]) -> None:
        """Replace the payloads of committed entries, by index; when it returns the old ones are nowhere in the file.

        Doing it again, after a crash in the middle, is harmless.

        Raises:
            CorruptionError: There is no such entry.
        """
        pending = sorted(payloads.items())
        self._window.replace(payloads)
        for start in range(0, len(pending), _REWRITE_ENTRIES_MAX):
            chunk = dict(pending[start : start + _REWRITE_ENTRIES_MAX])
            await self._database.transact(partial(rows.rewrite, payloads=chunk))
        async with self._changing:
            if self._state.rebuild_due:
                state = self._state
                self._state = await self._database.run(lambda connection: rows.rebuild(connection, state))
        if not await self._database.truncate_wal():
            raise StorageError(f"{self._database.path}: the write-ahead log could not be emptied after an erasure")

    def trim(self, handed_over: int) -> None:
        """Forget payloads in memory beyond the limit, of entries up to `handed_over`."""
        self._window.trim(handed_over)

    async def close(self) -> None:
        """Close the file; what was appended is durable already."""
        await self._database.close()

    # What the command line does.

    async def history(self, after: int = 0) -> AsyncIterator[Sequence[Entry]]:
        """Yield all retained entries above `after`, in batches, those not known to be committed included.

        Raises:
            CorruptionError: One fails its checksum, or is missing above the base.
        """
        while after < self._state.last_index:
            batch = await self.read(after, self._state.last_index)
            if not batch:
                return
            yield batch
            after = batch[-1].index

    async def verify(self) -> Sequence[Problem]:
        """Check the whole file and return what is wrong with it, at most 1000 things; none when it is sound."""
        found: list[Problem] = []
        try:
            await self._database.run(lambda connection: _find_problems(connection, found))
        except CorruptionError as error:  # SQLite itself cannot get on
            found.append(Problem(None, str(error)))
        return found


async def _run(database: Database, function: Callable[[Connection], T]) -> T:
    """Run `function`, and say which file it is that it finds damaged."""
    try:
        return await database.run(function)
    except CorruptionError as error:
        path = str(database.path)
        if path in str(error):  # SQLite's own complaint
            raise
        raise CorruptionError(f"{path}: {error}") from error


def _boot(connection: Connection, new: State, window_bytes_max: int) -> tuple[State, Window]:
    if not rows.exists(connection):
        connection.execute("BEGIN IMMEDIATE")
        rows.create(connection, new)
        connection.execute("COMMIT")
    state = rows.load_state(connection)
    if state.node_id != new.node_id:
        raise ConfigError(f"the log is that of node {state.node_id}; this is node {new.node_id}")
    for problem in rows.problems(connection, state):
        raise CorruptionError(str(problem))  # the first is enough to stop
    window = Window(base_index=state.base_index, base_term=state.base_term, bytes_max=window_bytes_max)
    committed = max(state.commit, state.base_index)
    window.restore((run for run in rows.first_of_terms(connection, state.base_index) if run[0] <= committed), committed)
    while window.last_index < state.last_index:  # Raft has yet to hand these over: it needs their payloads
        window.append(
            rows.read(
                connection, window.last_index, state.last_index, rows.CHUNK_ENTRIES_MAX, base_index=state.base_index
            )
        )
    return state, window


def _load_unchecked(connection: Connection) -> State:
    try:
        if rows.exists(connection):
            return rows.load_state(connection)
    except CorruptionError:  # verify will tell
        pass
    return State(store_id="", node_id=0, base_members=ConfState())


def _find_problems(connection: Connection, found: list[Problem]) -> None:
    if not rows.exists(connection):
        found.append(Problem(None, "the file has nothing in it, not even an empty log"))
        return
    found.extend(islice(rows.problems(connection, rows.load_state(connection)), _PROBLEMS_MAX))


def _planned(state: State, appends: Iterable[Append]) -> _Plan:
    """Fold `appends` into one transaction: what an earlier one adds and a later one replaces is never written."""
    added: list[Entry] = []
    truncate_from: int | None = None
    term, vote, commit, last_index = state.term, state.vote, state.commit, state.last_index
    for append in appends:
        if append.entries:
            first = append.entries[0].index
            _check_place(first, commit=commit, last_index=last_index)
            if first <= state.last_index:
                truncate_from = first if truncate_from is None else min(first, truncate_from)
            if added and first <= last_index:
                del added[max(first - added[0].index, 0) :]
            added.extend(append.entries)
            last_index = append.entries[-1].index
        if append.hard_state is not None:
            term, vote = append.hard_state.term, append.hard_state.vote
            commit = max(commit, append.hard_state.commit)
    if term < state.term or commit > last_index:
        raise InvariantViolation(
            f"term {term} after {state.term}, commit {commit} of {last_index}: Raft never does this"
        )
    planned = replace(
        state,
        term=term,
        vote=vote,
        commit=commit,
        last_index=last_index,
        rebuild_due=state.rebuild_due or truncate_from is not None,
    )
    return _Plan(truncate_from, added, planned)


def _check_place(first: int, *, commit: int, last_index: int) -> None:
    if first <= commit:
        raise InvariantViolation(f"log entry {first}: committed, up to {commit}, and never to be replaced")
    if first > last_index + 1:
        raise InvariantViolation(f"log entry {first}: appended after {last_index} would leave a gap")


def _carry_out(connection: Connection, plan: _Plan) -> None:
    if plan.truncate_from is not None:
        rows.truncate(connection, plan.truncate_from)
    rows.insert(connection, plan.entries)
    rows.save_state(connection, plan.state)
