"""A node's disk: the product's log store without SQLite, and with every misfortune that a disk can have.

What is on it is decided by the product's own code (`changes`, `window`), as in `SqliteLog`, and one transaction at a
time is under way. When a process dies in the middle of one, the disk holds all of it, nothing, or the first of the
messages that it was made of; what was asked for and not begun is gone.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engram.log.changes import Append, continuing, founded, installed, planned
from engram.log.consensus.types import ConfState, Entry, EntryKind, HardState, Message, Snapshot, SnapshotMeta
from engram.log.members import Book, encode_book
from engram.log.rows import State
from engram.log.storage import fitting
from engram.log.window import Window
from tests.simulation.referee import Foul

if TYPE_CHECKING:
    from tests.simulation.world import World

Step = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Transaction:
    """What is to be done to the disk at once, and whom to tell; `torn` does a random part of it."""

    change: Step
    done: Step
    torn: Step


class Disk:
    """The store of one node id. The `Storage` that the core reads; writes are asked for, and done later."""

    def __init__(self, node_id: int, store_id: str, world: "World") -> None:
        self._world = world
        self._dice = world.dice
        self.node_id = node_id
        self.state = State(store_id=store_id, node_id=node_id, base_members=ConfState())
        self.rows: list[Entry] = []
        """The whole history: entry n is at place n - 1."""
        self._staged: list[Entry] = []
        self.window = self._opened_window()
        self.write_us = world.weather.write_us
        self.hung_until_us = 0
        self.full_until_us = 0
        self.is_failing = False
        """The next transaction fails, and nobody knows what becomes of it."""
        self._waiting: deque[Transaction] = deque()
        self._current: Transaction | None = None
        self._life = 0
        self._fail: Step = _nothing

    # What the core reads.

    def initial_state(self) -> tuple[HardState, ConfState]:
        state = self.state
        return HardState(state.term, state.vote, max(state.commit, state.base_index)), state.base_members

    def first_index(self) -> int:
        return self.window.first_index

    def last_index(self) -> int:
        return self.window.last_index

    def term(self, index: int) -> int:
        return self.window.term(index)

    def entries(self, low: int, high: int, max_bytes: int | None = None) -> Sequence[Entry]:
        return fitting(self.window.entries(low, high), max_bytes)

    def snapshot(self) -> Snapshot:
        state = self.state
        return Snapshot(
            SnapshotMeta(state.base_index, state.base_term, state.base_members), encode_book(state.base_book)
        )

    def holds(self, index: int, term: int) -> bool:
        """Return whether entry `index` is durable here, and of `term`."""
        return index <= len(self.rows) and (index == 0 or self.rows[index - 1].term == term)

    def membership_changes(self, up_to: int) -> list[Entry]:
        """Return the entries above the base, up to `up_to`, that change the membership."""
        return [entry for entry in self.rows[self.state.base_index : up_to] if entry.kind is not EntryKind.NORMAL]

    @property
    def staged_index(self) -> int:
        """The last index up to which committed entries are here, staged ones included."""
        commit = self.state.commit
        if self._staged and self._staged[-1].index > commit and self._staged[0].index <= commit + 1:
            return self._staged[-1].index
        return commit

    def needs_base_move(self, handed_over: int, threshold: int) -> bool:
        base_index = self.state.base_index
        if handed_over - base_index >= threshold:
            return True
        return handed_over > base_index and self.window.size_above_base_bytes > self.window.bytes_max

    # The life of a process.

    def open(self, fail: Step) -> None:
        """Let a process read the disk; `fail` is called when it is to die of an error of the disk."""
        self.window = self._opened_window()
        self.state = replace(self.state, boot_epoch=self.state.boot_epoch + 1)
        self._fail = fail

    def crash(self) -> None:
        """End the process: what is under way is done, or in part, or not; all else is lost."""
        current, self._current = self._current, None
        self._waiting.clear()
        self._life += 1
        if current is not None:
            (_nothing, current.torn, current.change)[self._dice.below(3)]()

    def found(self, cluster_id: str, members: ConfState, book: Book) -> None:
        """Begin a cluster, as `SqliteLog.bootstrap` does."""
        plan = founded(self.state, cluster_id, members, book)
        self.rows = list(plan.entries)
        self.window.restart(plan.state.base_index, plan.state.base_term)
        self.state = plan.state

    # What the process asks for, one transaction after the other.

    def append(self, appends: Sequence[Append], batch: Sequence[Message], done: Step) -> None:
        """Make `appends` durable; if that is torn, the first messages of `batch` are."""
        self._ask(Transaction(lambda: self._append(appends), done, lambda: self._append_part(batch)))

    def install(self, snapshot: Snapshot, hard_state: HardState, done: Step) -> None:
        """Put the staged rows, and `snapshot`, in the place of what is not known to be committed."""
        self._ask(Transaction(lambda: self._install(snapshot, hard_state), done, _nothing))

    def move_base(self, index: int, members: ConfState, book: Book, done: Step) -> None:
        """Move the base up to `index`, where `members` belonged to the cluster."""
        self._ask(Transaction(lambda: self._move_base(index, members, book), done, _nothing))

    def stage(self, entries: Sequence[Entry], done: Step) -> None:
        """Keep rows that another node sent."""
        self._ask(Transaction(lambda: self._stage(entries), done, lambda: self._stage(entries[: len(entries) // 2])))

    def rewrite(self, payloads: Mapping[int, bytes], done: Step) -> None:
        """Replace payloads of committed entries."""
        self.window.replace(payloads)
        self._ask(Transaction(lambda: self._rewrite(payloads), done, _nothing))

    def _ask(self, transaction: Transaction) -> None:
        self._waiting.append(transaction)
        if self._current is None:
            self._begin()

    def _begin(self) -> None:
        self._current = self._waiting.popleft()
        world = self._world
        takes_us = self.write_us // 2 + self._dice.below(self.write_us)
        world.after(max(takes_us, self.hung_until_us - world.now_us), self._end, self._life)

    def _end(self, life: int) -> None:
        current = self._current
        if life != self._life or current is None:
            return
        if self.full_until_us > self._world.now_us or self.is_failing:
            self._current = None
            if self.is_failing and self._dice.chance(0.5):  # the error may be a lie
                current.change()
            self.is_failing = False
            self._fail()
            return
        current.change()
        self._current = None
        if self._waiting:
            self._begin()
        current.done()

    # What the transactions do.

    def _append(self, appends: Iterable[Append]) -> None:
        plan = planned(self.state, appends)
        if plan.truncate_from is not None:
            del self.rows[plan.truncate_from - 1 :]
        self.rows.extend(plan.entries)
        self.window.append(plan.entries)
        self._record(plan.state)

    def _append_part(self, batch: Sequence[Message]) -> None:
        part = batch[: self._dice.below(len(batch) + 1)]
        for message in part:
            if message.snapshot is not None:
                return
            state = HardState(message.term, message.vote, message.commit) if message.term else None
            self._append([Append(entries=message.entries, hard_state=state)])

    def _install(self, snapshot: Snapshot, hard_state: HardState) -> None:
        state = installed(self.state, snapshot, hard_state)
        commit, index = self.state.commit, state.base_index
        first = self._staged[0].index if self._staged else 0
        if not first or first > commit + 1 or self._staged[-1].index < index:
            raise Foul(f"node {self.node_id}: the staged rows do not lead from {commit} to the snapshot's {index}")
        rows = self._staged[max(first, commit + 1) - first : index + 1 - first]
        if rows[-1].term != state.base_term:
            raise Foul(f"node {self.node_id}: row {index} is of term {rows[-1].term}, the snapshot of another")
        self._world.referee.staged(rows)
        self.rows[commit:] = rows
        self._staged = []
        self.window.restart(state.base_index, state.base_term)
        self._record(state)

    def _move_base(self, index: int, members: ConfState, book: Book) -> None:
        state = self.state
        if not state.base_index <= index <= state.last_index:
            raise Foul(f"node {self.node_id}: base moved from {state.base_index} to {index} of {state.last_index}")
        moved = replace(
            state,
            base_index=index,
            base_term=self.window.term(index),
            base_members=members,
            base_book=dict(book),
            commit=max(state.commit, index),
        )
        self._record(moved)
        self.window.move_base(index)

    def _stage(self, entries: Sequence[Entry]) -> None:
        reached = self.staged_index
        added = continuing(entries, reached)
        if not added:
            return
        if reached == self.state.commit:
            self._staged = []
        self._staged.extend(added)

    def _rewrite(self, payloads: Mapping[int, bytes]) -> None:
        for index, data in payloads.items():
            old = self.rows[index - 1]
            self.rows[index - 1] = Entry(old.term, index, old.kind, data)
        self._record(replace(self.state, commit=max(self.state.commit, *payloads)))

    def _record(self, state: State) -> None:
        self._world.referee.recorded(self.node_id, self.state, state)
        self.state = state
        if len(self.rows) != state.last_index:
            raise Foul(f"node {self.node_id}: {len(self.rows)} rows, but the last index is {state.last_index}")

    def _opened_window(self) -> Window:
        state = self.state
        window = Window(
            base_index=state.base_index, base_term=state.base_term, bytes_max=self._world.weather.window_bytes
        )
        window.append(self.rows[state.base_index :])
        return window


def _nothing() -> None:
    """Nothing of it is on disk."""
