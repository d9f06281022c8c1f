"""Drives one Raft core: its disk, its clock, and what it wants sent and applied.

Two tasks and a ticker, all on one loop. The driver moves the core from one settled state to the next without ever
waiting in between. The writer has at most one transaction under way; whatever the core asks for meanwhile goes into the
next one, so that the slower the disk, the more each fsync carries. What is for other nodes leaves through an `Outlet`
while the disk still writes; what promises something leaves when the promise is on disk.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from contextlib import suppress

from engram.clock import Clock
from engram.log.changes import Append
from engram.log.consensus.rawnode import RawNode, Ready
from engram.log.consensus.types import (
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    NO_NODE,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageRefusedError,
    ProposalDroppedError,
    Role,
    decode_conf_change,
)
from engram.log.options import Observer, Options, Outlet, core_config
from engram.log.proposals import Proposals
from engram.log.reads import ReadQuestions
from engram.log.roster import Roster
from engram.log.sqlite import SqliteLog

ALONE_TICK_S = 1.0
"""Who has nobody to send heartbeats to has no use for time, and waking up 40 times a second costs 1 % of a core."""

NOTICE_S = 0.010
"""How much later than the first follower the last one notices that the leader is gone. Asked before, it would say no."""

_log = logging.getLogger(__name__)


def next_tick_s(before_s: float, now_s: float, tick_s: float) -> float:
    """Return when the next tick is due, after the one that was due at `before_s`: later than `now_s`.

    As much as one comes late, the next comes sooner: each comes a millisecond late, and with ticks of 7.5 ms every
    timeout took 15 % longer than was asked for. One that was missed altogether is not made up for.
    """
    on_time_s = before_s + tick_s
    return on_time_s if on_time_s > now_s else now_s + tick_s


class Driver:
    """The only caller of the core. Everything is called on one loop; what is public here is so to `replica` alone."""

    def __init__(
        self, log: SqliteLog, *, clock: Clock, rng: random.Random, observer: Observer, options: Options
    ) -> None:
        self.log = log
        self.options = options
        self.outlet: Outlet | None = None
        self.reads = ReadQuestions(rng.randbytes(8))
        self.is_stopping = False
        self.moved = asyncio.Event()
        """Set, and replaced, when the applied index, the term, the role or the leader changes."""
        self._clock = clock
        self._rng = rng
        self._observer = observer
        self._is_driving = False
        """The core knows the membership that its log ends with."""
        self._appends: list[Message] = []
        self._must_sync = False
        self._base_due = False
        """The membership changed: a snapshot from before that is worth nothing to whoever was added."""
        self._write_started_s: float | None = None
        self._released: list[Message] = []
        self.proposals = Proposals(clock, observer)
        self._wake = asyncio.Event()
        self._to_write = asyncio.Event()
        self._has_company = asyncio.Event()
        """The membership changed: who was alone may have others to send heartbeats to, from now on."""
        self._published = (0, NO_NODE, 0, Role.FOLLOWER, False)
        self.load()

    def load(self) -> None:
        """Make the core of what the log holds, which must not change meanwhile."""
        self._hard_state, members = self.log.initial_state()
        self.roster = Roster(members, self.log.state.base_book)
        self.applied_index = self._hard_state.commit
        """The last committed entry that is handed out."""
        self.raw = RawNode(core_config(self.log, self._rng, self.options, applied=self.applied_index))

    @property
    def is_hung(self) -> bool:
        """Whether the disk has not answered for so long that others should lead (raft.md, pitfall 11)."""
        started_s = self._write_started_s
        if started_s is None or self._clock.monotonic_s() - started_s <= self.options.hung_s:
            return False
        return self.roster.voters != {self.raw.raft.id}  # alone it can only wait

    async def run(self) -> None:
        """Drive the core until `is_stopping`, then finish what is under way."""
        await self._join()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._write()), group.create_task(self._tick())]
            await self._drive()
            for task in tasks:
                task.cancel()
        await self.log.append([Append(hard_state=self._hard_state)])  # the commit index is recorded late

    def core(self) -> RawNode:
        """Return the core to tell it something, after all that was proposed before; what it has to say is heard soon."""
        self.proposals.flush(self.raw)
        self._wake.set()
        return self.raw

    def wake(self) -> None:
        """See to it that what the core has to say is heard soon."""
        self._wake.set()

    def receive(self, messages: Sequence[Message]) -> None:
        """Take messages of other nodes. A node whose disk hangs takes none: it could promise nothing."""
        if self.is_hung or not self._is_driving:
            return
        core = self.core()
        for message in messages:
            try:
                core.step(message)
            except (MessageRefusedError, ProposalDroppedError):
                continue  # whoever sent it hears of it by what does not come

    def lose(self, node_id: int) -> None:
        """Note that the connection to `node_id` broke. If it led, its process may be gone: ask who would follow another.

        That is safe at any time: nobody follows who still hears of the leader, and whoever does not get a majority
        disturbs nobody. The voters ask one after the other, so that they do not take the votes from each other.
        """
        raft = self.raw.raft
        if raft.leader_id != node_id or raft.role is not Role.FOLLOWER:
            return
        self.core().forget_leader()
        others = sorted(self.roster.voters - {node_id})
        if raft.id in others:
            delay_s = NOTICE_S + others.index(raft.id) * self.options.election_s / 3
            asyncio.get_running_loop().call_later(delay_s, self._stand)

    async def move_base(self) -> None:
        """Move the base up to what is applied."""
        if self.applied_index > self.log.state.base_index:
            await self.log.move_base(self.applied_index, self.roster.members, dict(self.roster.book))
            self._observer.snapshot_built()

    def notify(self) -> None:
        """Wake all who wait for something to move."""
        moved, self.moved = self.moved, asyncio.Event()  # whoever comes later waits for the next one
        moved.set()

    def tell_outlet(self) -> None:
        """Say that the roster is another one."""
        self._has_company.set()
        if self.outlet is not None:
            self.outlet.members_changed()

    # The tasks.

    async def _join(self) -> None:
        """Take up the membership of the committed entries, and stand for election if no other node could."""
        changes = await self.log.membership_changes(self.applied_index)
        for entry in changes:
            self._change_members(entry)
        self._base_due = bool(changes)
        self._is_driving = True
        self.tell_outlet()
        if self.roster.voters == {self.raw.raft.id}:
            self.raw.campaign()

    async def _drive(self) -> None:
        while True:
            self._settle()
            if self.is_stopping and self._write_started_s is None and not self._appends:
                return
            await self._wake.wait()
            self._wake.clear()

    async def _write(self) -> None:
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            batch, self._appends, self._must_sync = self._appends, [], False
            await self._write_down(batch, self._hard_state)
            self._release(batch)
            self._wake.set()
            if self._base_due or self.log.needs_base_move(self.applied_index, self.options.snapshot_threshold):
                self._base_due = False
                await self.move_base()
            self._write_started_s = None
            self._wake.set()

    async def _write_down(self, batch: Sequence[Message], hard_state: HardState) -> None:
        started_s = self._clock.monotonic_s()
        appends: list[Append] = []
        count = 0
        for message in batch:
            if message.snapshot is not None:
                if appends:
                    state = HardState(term=hard_state.term, vote=hard_state.vote)  # the commit index is the snapshot's
                    await self.log.append([*appends, Append(hard_state=state)])
                    appends = []
                await self.log.install(message.snapshot, hard_state)
                self._installed()
            if message.entries:
                appends.append(Append(entries=message.entries))
                count += len(message.entries)
        await self.log.append([*appends, Append(hard_state=hard_state)])
        self._observer.synced(self._clock.monotonic_s() - started_s, count)

    async def _tick(self) -> None:
        # At most one tick for each time this wakes. After a pause of the whole process the missed ones are not made up
        # for: they would time the leader out before its messages, which wait in the socket, are read.
        due_s = asyncio.get_running_loop().time()
        while True:
            due_s = await self._wait_tick(due_s)
            if self.is_hung:  # neither lead nor stand until a write succeeds
                self.core().step_down()
            else:
                self.core().tick()

    async def _wait_tick(self, before_s: float) -> float:
        """Wait for the tick after the one that was due at `before_s`; return when it was due."""
        loop = asyncio.get_running_loop()
        if not self.roster.ids <= {self.raw.raft.id}:
            now_s = loop.time()
            due_s = next_tick_s(before_s, now_s, self.options.tick_s)
            await asyncio.sleep(due_s - now_s)
            return due_s
        self._has_company.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(ALONE_TICK_S):
                await self._has_company.wait()
        return loop.time()

    # One settled state to the next.

    def _settle(self) -> None:
        """Let the core do all that it can without the disk, and start the next transaction if none is under way."""
        self.proposals.flush(self.raw)
        self.reads.ask(self.raw.read_index)
        while True:
            released, self._released = self._released, []
            for message in released:
                try:
                    self.raw.step(message)
                except MessageRefusedError:  # its own answer, though it is no member any more: it was removed meanwhile
                    continue
            if self.raw.has_ready():
                self._take(self.raw.ready())
            elif (self._appends or self._base_due) and self._write_started_s is None:
                self._dispatch()
            elif not self._released:
                break
        self._publish()

    def _take(self, ready: Ready) -> None:
        outgoing: list[Message] = []
        for message in ready.messages:
            if message.to == LOCAL_APPEND_THREAD:
                self._queue(message)
            elif message.to == LOCAL_APPLY_THREAD:
                self._apply(message)
            else:
                outgoing.append(message)
        for state in ready.read_states:
            self.reads.answer(state)
        self._send(outgoing)

    def _queue(self, message: Message) -> None:
        if message.term:
            hard_state = HardState(term=message.term, vote=message.vote, commit=message.commit)
            if (hard_state.term, hard_state.vote) != (self._hard_state.term, self._hard_state.vote):
                self._must_sync = True
            self._hard_state = hard_state
        if message.entries or message.snapshot is not None:
            self._must_sync = True
        self._appends.append(message)

    def _dispatch(self) -> None:
        if self._must_sync or self._base_due:
            self._write_started_s = self._clock.monotonic_s()
            self._to_write.set()
        else:  # at most a higher commit index, which the next transaction takes along
            batch, self._appends = self._appends, []
            self._release(batch)

    def _release(self, batch: Sequence[Message]) -> None:
        """Let what `batch` promises leave: it is durable."""
        outgoing: list[Message] = []
        own_id = self.raw.raft.id
        for message in batch:
            for response in message.responses:
                (self._released if response.to == own_id else outgoing).append(response)
        self._send(outgoing)

    def _send(self, messages: Sequence[Message]) -> None:
        if messages:
            assert self.outlet is not None, "a cluster of one has nobody to send to"
            self.outlet.send(messages)

    def _apply(self, message: Message) -> None:
        for entry in message.entries:
            if entry.kind is not EntryKind.NORMAL:
                self._change_members(entry)
                self._base_due = True
                self.tell_outlet()
        self.applied_index = message.entries[-1].index
        self._released.extend(message.responses)

    def _installed(self) -> None:
        state = self.log.state
        self.applied_index = state.base_index
        self.roster.replace(state.base_members, state.base_book)
        self._observer.snapshot_installed()
        self.tell_outlet()

    def _change_members(self, entry: Entry) -> None:
        change = decode_conf_change(entry)
        self.roster.apply(change, self.raw.apply_conf_change(change))

    def _publish(self) -> None:
        raft = self.raw.raft
        news = (self.applied_index, raft.leader_id, raft.term, raft.role, raft.log.unstable.snapshot is not None)
        if news == self._published:
            return
        self._tell_leader(self._published)
        self._published = news
        self.proposals.committed(self.applied_index)
        self.log.trim(self.applied_index)
        self.notify()

    def _tell_leader(self, before: tuple[int, int, int, Role, bool]) -> None:
        raft = self.raw.raft
        if raft.leader_id == before[1]:
            return
        self._observer.led_by(raft.leader_id)
        if self.roster.voters == {raft.id}:
            return
        extra = {"term": raft.term, "leader_id": raft.leader_id, "commit_index": self.raw.committed}
        if raft.leader_id == raft.id:
            _log.info("this node leads", extra=extra)
        elif raft.leader_id:
            _log.info("this node follows", extra=extra)
        else:
            _log.info("no leader is known", extra={**extra, "last_leader_id": before[1]})

    def _stand(self) -> None:
        raft = self.raw.raft
        if raft.leader_id == NO_NODE and raft.role is Role.FOLLOWER and not (self.is_stopping or self.is_hung):
            self.core().campaign()
