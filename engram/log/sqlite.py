"""The log on disk: one SQLite file, its live part mirrored in memory for Raft, one fsync for each batch of appends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from engram.database import Connection, Database, Setting
from engram.errors import ConfigError, CorruptionError, StorageError
from engram.log import opening, rows, staging
from engram.log.changes import Append, Plan, continuing, founded, installed, planned
from engram.log.consensus.types import ConfState, Entry, HardState, Snapshot, SnapshotMeta
from engram.log.ending import Recovery
from engram.log.mark import Marker
from engram.log.members import Book, encode_book
from engram.log.opening import Opened
from engram.log.rows import Problem, State
from engram.log.staging import Staged
from engram.log.storage import fitting
from engram.log.wal import Ending

T = TypeVar("T")

WINDOW_BYTES_MAX = 8 * 1024 * 1024
"""Recent payloads kept in memory. A reader that is further behind reads the file, a follower gets a snapshot."""

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


class SqliteLog:
    """A durable log, and the `Storage` that Raft reads. Its owner is one event loop; the file has one open log.

    After an error of the disk every call fails with it: the process must open the file again.
    """

    def __init__(self, database: Database, opened: Opened, marker: Marker | None) -> None:
        self._database = database
        self._marker = marker
        self._state, self._window, self._staged = opened
        self.rewrites = 0
        """How often payloads were replaced; counted before any of them is."""
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

        Without `members` the node is its own cluster; with an empty `ConfState` it waits to become part of one. Each
        opening has a boot epoch of its own, which is durable when this returns.

        Of a log opened `read_only` only the end is checked, so that `verify` can say all that is wrong with it; it
        cannot be opened while a node runs.

        Raises:
            CorruptionError: Anything is not as it was written: the message names the file and the entry.
            ConfigError: The log belongs to another node.
            StorageError: Another process has it open, or the disk failed.
        """
        settings = READ_ONLY_SETTINGS if read_only else SETTINGS
        recovery = Recovery(path)
        database = await Database.open(path, settings, read_only=read_only, before=recovery.foresee)
        try:
            if read_only:
                return cls(database, await _named(database, database.run(opening.look)), None)
            voters = ConfState(voters=(node_id,)) if members is None else members
            new = State(store_id=store_id, node_id=node_id, base_members=voters)
            boot = partial(opening.boot, new=new, window_bytes_max=window_bytes_max)
            await database.settle_wal()
            await database.run(recovery.agree)
            if recovery.ending.starts_over:
                await database.truncate_wal()
            opened = await _named(database, database.run(boot))
            marker = await database.run(partial(_marked, path=path, ending=recovery.ending, state=opened.state))
            return cls(database, opened, marker)
        except BaseException:
            await database.close()
            raise

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
        """Return the first index that is in memory: the base + 1, or before."""
        return self._window.first_index

    def last_index(self) -> int:
        """Return the index of the last durable entry."""
        return self._window.last_index

    def term(self, index: int) -> int:
        """Return the term of entry `index`, from first_index() - 1 on."""
        return self._window.term(index)

    def entries(self, low: int, high: int, max_bytes: int | None = None) -> Sequence[Entry]:
        """Return the entries in [low, high), as many as fit `max_bytes` but at least one."""
        return fitting(self._window.entries(low, high), max_bytes)

    def snapshot(self) -> Snapshot:
        """Return the base, with the address book there. The history itself travels as rows, on a channel of its own."""
        state = self._state
        return Snapshot(
            SnapshotMeta(state.base_index, state.base_term, state.base_members), encode_book(state.base_book)
        )

    # What the replica does: one hop into the database's thread each.

    async def append(self, appends: Iterable[Append]) -> None:
        """Make `appends` durable, in order, in one transaction with one fsync.

        Raises:
            InvariantViolation: A committed entry would be replaced, or a gap left: a bug in the caller.
            StorageError: The disk failed; what it holds now is unknown.
        """
        async with self._changing:
            plan = planned(self._state, appends)
            await self._change(partial(_carry_out, plan=plan), plan.state)
            self._window.append(plan.entries)
            self._state = plan.state

    async def bootstrap(self, cluster_id: str, members: ConfState, book: Book) -> None:
        """Begin the cluster `cluster_id`: entry 1 says who belongs to it and where they are, and is the base.

        Raises:
            ConfigError: The log is not empty, or the node is in a cluster.
        """
        async with self._changing:
            plan = founded(self._state, cluster_id, members, book)
            await self._change(partial(_carry_out, plan=plan), plan.state)
            # Nobody is to be sent entry 1 by itself: it would be taken for a change of a membership that is there.
            self._window.restart(plan.state.base_index, plan.state.base_term)
            self._state = plan.state

    async def adopt_cluster(self, cluster_id: str) -> None:
        """Become a node of the cluster `cluster_id` for good; again is harmless.

        Raises:
            ConfigError: It is one of another.
        """
        async with self._changing:
            state = self._state
            if state.cluster_id not in {"", cluster_id}:
                raise ConfigError(f"this node is one of cluster {state.cluster_id}, not of {cluster_id}")
            if state.cluster_id != cluster_id:
                await self._record(replace(state, cluster_id=cluster_id))

    async def move_base(self, index: int, members: ConfState, book: Book) -> None:
        """Move the base up to `index`, which must be committed, where `members` belonged to the cluster, as in `book`.

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
                base_book=dict(book),
                commit=max(state.commit, index),
            )
            await self._record(moved)
            self._window.move_base(index)

    def needs_base_move(self, handed_over: int, threshold: int) -> bool:
        """Return whether the base should move to `handed_over`: `threshold` entries, or more bytes than fit in memory."""
        base_index = self._state.base_index
        if handed_over - base_index >= threshold:
            return True
        return handed_over > base_index and self._window.size_above_base_bytes > self._window.bytes_max

    @property
    def staged_index(self) -> int:
        """The last index up to which entries are here that are known to be committed, staged ones included."""
        return self._staged.reached(self._state.commit)

    async def stage(self, entries: Sequence[Entry]) -> None:
        """Make `entries`, committed elsewhere, durable without adding them to the log; any that are here are left out.

        Raises:
            InvariantViolation: They would leave a gap after `staged_index`.
            StorageError: The disk failed.
        """
        async with self._changing:
            reached = self.staged_index
            added = continuing(entries, reached)
            if not added:
                return
            anew = reached == self._state.commit
            await self._change(partial(staging.add, entries=added, anew=anew), self._state)
            self._staged = Staged(added[0].index if anew else self._staged.first, added[-1].index)

    async def install(self, snapshot: Snapshot, hard_state: HardState) -> None:
        """Put what is staged, up to the snapshot's index, in the place of all that is not known to be committed.

        After a crash the log is as before, or as after. The log then ends in the snapshot, which is its base. What is
        staged beyond it stays staged.

        Raises:
            CorruptionError: The staged entries do not lead to the snapshot; nothing has changed.
            InvariantViolation: The snapshot holds nothing new, or would turn the term back.
            StorageError: The disk failed.
        """
        async with self._changing:
            state = installed(self._state, snapshot, hard_state)
            change = partial(staging.install, commit=self._state.commit, installed=state)
            await _named(self._database, self._change(change, state))
            self._window.restart(state.base_index, state.base_term)
            self._state = state
            if self._staged.last == state.base_index:
                self._staged = Staged()
        await self._database.truncate_wal()  # it holds all of it, and would stay as large

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
        fetch = partial(rows.read, after=after, up_to=up_to, limit=limit, base_index=base_index)
        return await _named(self._database, self._database.run(fetch))

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
        self.rewrites += 1
        self._window.replace(payloads)
        for start in range(0, len(pending), _REWRITE_ENTRIES_MAX):
            chunk = dict(pending[start : start + _REWRITE_ENTRIES_MAX])
            async with self._changing:
                # Recorded as committed: a snapshot that was sent by a node that has not erased yet must not replace them.
                state = replace(self._state, commit=max(self._state.commit, *chunk))
                await self._change(partial(_rewrite, payloads=chunk, state=state), state)
                self._state = state
        async with self._changing:
            if self._state.rebuild_due:
                state = self._state
                self._state = await self._database.run(lambda connection: rows.rebuild(connection, state))
        if not await self._database.truncate_wal():
            raise StorageError(f"{self._database.path}: the write-ahead log could not be emptied after an erasure")

    def trim(self, handed_over: int) -> None:
        """Forget entries in memory beyond the limit, up to `handed_over` and the base."""
        self._window.trim(handed_over)

    async def close(self) -> None:
        """Close the file; what was appended is durable already."""
        try:
            await self._database.close()
        finally:
            if self._marker is not None:
                self._marker.close()

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
            await self._database.run(partial(opening.find_problems, found=found))
        except CorruptionError as error:  # SQLite itself cannot get on
            found.append(Problem(None, str(error)))
        return found

    async def _record(self, state: State) -> None:
        await self._change(partial(rows.save_state, state=state), state)
        self._state = state

    async def _change(self, change: Callable[[Connection], None], after: State) -> None:
        """Carry out `change`, durably, which makes the state `after` of this one."""
        if self._marker is None:  # SQLite refuses, read only
            await self._database.transact(change)
        else:
            await self._database.transact(change, after=partial(self._marker.note, after.last_index))


async def _named(database: Database, work: Awaitable[T]) -> T:
    """Await `work`, and say which file it is that it finds damaged."""
    try:
        return await work
    except CorruptionError as error:
        path = str(database.path)
        if path in str(error):  # SQLite's own complaint
            raise
        raise CorruptionError(f"{path}: {error}") from error


def _marked(_: Connection, path: Path, ending: Ending, state: State) -> Marker:
    marker = Marker.open(path, ending.salts)
    try:
        marker.note(state.last_index)
    except BaseException:
        marker.close()
        raise
    return marker


def _carry_out(connection: Connection, plan: Plan) -> None:
    if plan.truncate_from is not None:
        rows.truncate(connection, plan.truncate_from)
    rows.insert(connection, plan.entries)
    rows.save_state(connection, plan.state)


def _rewrite(connection: Connection, payloads: Mapping[int, bytes], state: State) -> None:
    rows.rewrite(connection, payloads)
    for index, data in payloads.items():
        rows.replace_payload(connection, "staged", index, data)  # it may be on its way in, too
    rows.save_state(connection, state)
