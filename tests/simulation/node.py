"""A node: the real core, driven as the product's `Driver` drives it, but by the simulation's clock instead of tasks."""

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from engram.log.changes import Append
from engram.log.consensus.rawnode import RawNode, Ready
from engram.log.consensus.types import (
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    NO_NODE,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageRefusedError,
    ProposalDroppedError,
    Role,
    decode_conf_change,
)
from engram.log.roster import Roster
from tests.simulation.clients import Waiting
from tests.simulation.disk import Disk
from tests.simulation.machine import Machine
from tests.simulation.network import NewerDisk
from tests.simulation.weather import ELECTION_TICKS, TICK_US

if TYPE_CHECKING:
    from tests.simulation.clients import Attempt
    from tests.simulation.world import World

HUNG_US = 1_000_000
"""As in the product: a disk that takes longer is not one to lead with."""

RESTART_US = 200_000

Step = Callable[[], None]
Write = Callable[[Step], None]
"""Begins a transaction; what it is given is called when that is durable."""


class Node:
    """One node id. Its process comes and goes; the disk stays."""

    def __init__(self, node_id: int, disk: Disk, world: "World") -> None:
        self.id = node_id
        self.disk = disk
        self.machine: Machine | None = None
        self.life = 0
        """Counts the starts; what is left over from an earlier one is told by it."""
        self.is_up = False
        self.paused_until_us = 0
        self.clock_rate = 1.0
        self.applied_ever = 0
        """The highest index that a process of this node has applied with this disk."""
        self.raw: RawNode
        self.roster = Roster(ConfState())
        self.applied_index = 0
        self._waiting = Waiting()
        self.members_seen: object = None
        self.led_term = self.term_seen = self.vote_seen = self.committed_seen = self.last_seen = self.last_term_seen = 0
        self.elected_at = 0
        self._world = world
        self._weather = world.weather
        self._hard_state = HardState()
        self._appends: list[Message] = []
        self._must_sync = False
        self._base_due = False
        self._write_started_us: int | None = None
        self._writing: Generator[Write, None, None] | None = None
        self._released: list[Message] = []
        self._applies: deque[Message] = deque()
        self.newer_disks: dict[int, NewerDisk] = {}
        """Of members, as they said themselves: by entries that are not applied here."""
        self._covered_index = 0
        """The index of the last snapshot that came in: nothing up to there is applied any more."""

    @property
    def leads(self) -> bool:
        return self.is_up and self.raw.raft.role is Role.LEADER

    @property
    def is_hung(self) -> bool:
        """Whether the disk has not answered for so long that others should lead."""
        started_us = self._write_started_us
        if started_us is None or self._world.now_us - started_us <= HUNG_US:
            return False
        return self.roster.voters != {self.id}

    # The process.

    def boot(self) -> None:
        """Start a process on what the disk holds."""
        self.life += 1
        self.is_up = True
        self.paused_until_us = 0
        disk, weather = self.disk, self._weather
        life = self.life
        disk.open(lambda: self._fail(life))
        self._hard_state, members = disk.initial_state()
        self.roster = Roster(members, disk.state.base_book)
        self.applied_index = self._hard_state.commit
        self._appends, self._released = [], []
        self._applies = deque()
        self._covered_index = 0
        self.newer_disks = {}
        self._must_sync = self._base_due = False
        self._write_started_us = self._writing = None
        self._waiting = Waiting()
        self.raw = RawNode(weather.core_config(self.id, disk, self._world.dice, applied=self.applied_index))
        self._world.referee.booted(self)
        for entry in disk.membership_changes(self.applied_index):
            self._change_members(entry)
            self._base_due = True  # a snapshot from before is worth nothing to whoever was added
        if self.machine is not None:
            self.machine.restarted(self)
        if self.roster.voters == {self.id}:
            self.raw.campaign()
        self.settle()
        self._world.after(self._world.dice.below(TICK_US), self.tick, life)

    def crash(self) -> None:
        """End the process at once."""
        if not self.is_up:
            return
        self.is_up = False
        self.life += 1
        self.disk.crash()

    def _fail(self, life: int) -> None:
        """End the process because its disk failed; whoever watches over it starts it again, until that goes well."""
        if life != self.life:
            return
        self.crash()
        self._world.after(RESTART_US, self.restart, None)

    def restart(self, _: object = None) -> None:
        if self.is_up:
            return
        if self.disk.full_until_us > self._world.now_us:  # the start must record its epoch
            self._world.after(RESTART_US, self.restart, None)
            return
        self.boot()

    # What reaches it.

    def tick(self, life: int) -> None:
        if life != self.life:
            return
        world = self._world
        if self.paused_until_us > world.now_us:
            world.after(self.paused_until_us - world.now_us, self.tick, life)
            return
        if self.is_hung:  # neither lead nor stand until a write succeeds
            self.raw.step_down()
        else:
            self.raw.tick()
        self.settle()
        world.after(int(TICK_US * self.clock_rate), self.tick, life)

    def receive(self, message: Message) -> None:
        """Take a message of another node."""
        if self.is_hung:
            return
        with suppress(MessageRefusedError, ProposalDroppedError):
            self.raw.step(message)
        self.settle()

    def do(self, move: Callable[[RawNode], None]) -> bool:
        """Let the core make `move`; return False if it was a proposal that was dropped."""
        is_taken = True
        try:
            move(self.raw)
        except ProposalDroppedError:
            is_taken = False
        self.settle()
        return is_taken

    def propose(self, data: bytes, attempt: "Attempt") -> bool:
        """Append `data` if this node leads, and tell `attempt` when it is applied; return False if nothing is appended."""
        if self.is_hung:
            return False
        raw = self.raw
        try:
            raw.propose(data)
        except ProposalDroppedError:
            return False
        self._waiting.expect(raw.last_index, raw.term, attempt)
        self.settle()
        return True

    def read(self, context: bytes, attempt: "Attempt") -> None:
        """Ask how far to apply, and tell `attempt` once that is done."""
        self._waiting.ask(context, attempt)
        self.raw.read_index(context)
        self.settle()

    def lose(self, node_id: int) -> None:
        """Note that the connection to `node_id` broke. If it led, ask who would follow another."""
        raft = self.raw.raft
        self.raw.report_unreachable(node_id)
        if raft.leader_id == node_id and raft.role is Role.FOLLOWER:
            self.raw.forget_leader()
            others = sorted(self.roster.voters - {node_id})
            if self.id in others:
                delay_us = others.index(self.id) * ELECTION_TICKS * TICK_US // 3
                self._world.after(delay_us, self._stand, self.life)
        self.settle()

    def _stand(self, life: int) -> None:
        if life != self.life or self.paused_until_us > self._world.now_us:
            return
        raft = self.raw.raft
        if raft.leader_id == NO_NODE and raft.role is Role.FOLLOWER and not self.is_hung:
            self.raw.campaign()
            self.settle()

    def take_snapshot(self) -> None:
        """Move the base as soon as the disk has time."""
        self._base_due = True
        self.settle()

    def rewrite(self, payloads: Mapping[int, bytes], done: Step) -> None:
        """Erase payloads from the log on disk, and call `done` then."""
        life = self.life
        self.disk.rewrite(payloads, lambda: done() if life == self.life else None)

    # One settled state to the next.

    def settle(self) -> None:
        """Let the core do all that it can without the disk, and start the next write if none is under way."""
        raw = self.raw
        while True:
            if self._released:
                released, self._released = self._released, []
                for message in released:
                    with suppress(MessageRefusedError):  # its own answer, of a node that is no member any more
                        raw.step(message)
            if raw.has_ready():
                self._take(raw.ready())
            elif (self._appends or self._base_due) and self._write_started_us is None:
                self._dispatch()
            elif not self._released:
                break
        self._world.referee.look(self)
        self.disk.window.trim(self.applied_index)

    def _take(self, ready: Ready) -> None:
        world = self._world
        world.referee.readied(self, ready)
        for message in ready.messages:
            to = message.to
            if to == LOCAL_APPEND_THREAD:
                self._queue(message)
            elif to == LOCAL_APPLY_THREAD:
                self._begin_apply(message)
            else:
                world.referee.sent(self, message)
                world.network.send(self, message)
        if ready.read_states:
            self._waiting.confirmed(ready.read_states)
            self._waiting.answer(self)

    def _queue(self, message: Message) -> None:
        if message.term:
            known = self._hard_state
            self._hard_state = HardState(message.term, message.vote, message.commit)
            if message.term != known.term or message.vote != known.vote:
                self._must_sync = True
        if message.entries or message.snapshot is not None:
            self._must_sync = True
        if message.snapshot is not None:
            self._covered_index = message.snapshot.meta.index
        self._appends.append(message)

    def _dispatch(self) -> None:
        batch, self._appends = self._appends, []
        if not (self._must_sync or self._base_due):  # at most a higher commit index, for the next transaction to take
            self._release(batch)
            return
        self._must_sync = False
        self._write_started_us = self._world.now_us
        self._writing = self._write(batch, self._hard_state)
        self._go_on(self.life)

    def _go_on(self, life: int) -> None:
        """Begin the next transaction of the write that is under way, now that the one before is durable."""
        if life != self.life:
            return
        world = self._world
        if self.paused_until_us > world.now_us:
            world.after(self.paused_until_us - world.now_us, self._go_on, life)
            return
        assert self._writing is not None
        write = next(self._writing, None)
        if write is not None:
            write(lambda: self._go_on(life))
            if self._released:  # what the transaction before it promised
                self.settle()
            return
        self._write_started_us = self._writing = None
        self.settle()

    def _write(self, batch: Sequence[Message], hard_state: HardState) -> Generator[Write, None, None]:
        disk = self.disk
        first = 0
        for place, message in enumerate(batch):
            if message.snapshot is None:
                continue
            before = batch[first:place]
            if any(one.entries for one in before):
                state = HardState(hard_state.term, hard_state.vote)  # the commit index is the snapshot's
                appends = [*_appends(before), Append(hard_state=state)]
                yield lambda done, appends=appends, before=before: disk.append(appends, before, done)  # type: ignore[misc]
            yield lambda done, snapshot=message.snapshot: disk.install(snapshot, hard_state, done)  # type: ignore[misc]
            self._installed()
            first = place
        rest = batch[first:]
        appends = [*_appends(rest), Append(hard_state=hard_state)]
        yield lambda done: disk.append(appends, rest, done)
        self._release(batch)
        if self._base_due or disk.needs_base_move(self.applied_index, self._weather.snapshot_threshold):
            self._base_due = False
            if self.applied_index > disk.state.base_index:
                index, members, book = self.applied_index, self.roster.members, dict(self.roster.book)
                yield lambda done: disk.move_base(index, members, book, done)

    def _release(self, batch: Sequence[Message]) -> None:
        """Let what `batch` promises leave: it is durable."""
        world = self._world
        for message in batch:
            for response in message.responses:
                world.referee.sent(self, response)
                if response.to == self.id:
                    self._released.append(response)
                else:
                    world.network.send(self, response)

    # What is committed.

    def _begin_apply(self, message: Message) -> None:
        if not self._weather.is_apply_slow:
            self._apply(message)
            return
        self._applies.append(message)
        if len(self._applies) == 1:
            self._world.after(self._world.dice.below(self._weather.write_us), self._apply_next, self.life)

    def _apply_next(self, life: int) -> None:
        if life != self.life:
            return
        world = self._world
        if self.paused_until_us > world.now_us:
            world.after(self.paused_until_us - world.now_us, self._apply_next, life)
            return
        self._apply(self._applies.popleft())
        if self._applies:
            world.after(world.dice.below(self._weather.write_us), self._apply_next, life)
        self.settle()

    def _apply(self, message: Message) -> None:
        referee = self._world.referee
        for entry in message.entries:
            if entry.index <= max(self.applied_index, self._covered_index):
                referee.covered(self, entry)
                continue
            referee.applied(self, entry)
            self.applied_index = entry.index
            if entry.kind is not EntryKind.NORMAL:
                self._change_members(entry)
                self._base_due = True
            self._waiting.applied(self, entry)
        if self.machine is not None:
            self.machine.applied(self)
        self._waiting.answer(self)
        self._released.extend(message.responses)

    def _installed(self) -> None:
        state = self.disk.state
        self.applied_index = state.base_index
        self.roster.replace(state.base_members, state.base_book)
        self._world.referee.installed(self)
        if self.machine is not None:
            self.machine.applied(self)

    def _change_members(self, entry: Entry) -> None:
        change = decode_conf_change(entry)
        members = self.raw.apply_conf_change(change)
        self.roster.apply(change, members)
        self._world.referee.members_changed(self, entry.index, members)


def _appends(batch: Sequence[Message]) -> list[Append]:
    return [Append(entries=message.entries) for message in batch if message.entries]
