"""One node of the replicated log: drives the Raft core, its disk and its clock, and hands out what is committed.

Two tasks and a ticker, all on one loop. The driver owns the core: it moves it from one settled state to the next without
ever waiting in between. The writer has at most one transaction under way; whatever the core asks for meanwhile goes
into the next one, so that the slower the disk, the more each fsync carries.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from engram.clock import Clock
from engram.errors import (
    FatalError,
    NoLeaderError,
    NotLeaderError,
    NotReadyError,
    OverloadedError,
    TooLargeError,
    first_of,
)
from engram.log.consensus.config import Config
from engram.log.consensus.rawnode import RawNode, Ready
from engram.log.consensus.types import (
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    Entry,
    EntryKind,
    HardState,
    Message,
    ProposalDroppedError,
    Role,
    decode_conf_change,
)
from engram.log.position import Position
from engram.log.rows import CHUNK_ENTRIES_MAX
from engram.log.sqlite import Append, SqliteLog

PROPOSAL_BYTES_MAX = 4 * 1024 * 1024 + 64 * 1024
"""The largest entry of the application, 4 MiB, and the framing around it; a message between nodes holds one."""

UNCOMMITTED_BYTES_MAX = 64 * 1024 * 1024
"""Beyond this the disk is hopelessly behind, and memory is what is left to lose."""


class Observer(Protocol):
    """Who wants to know how long things take."""

    def synced(self, seconds: float, entries: int) -> None:
        """One transaction made `entries` entries durable."""

    def committed(self, seconds: float) -> None:
        """An entry that was proposed here is committed, this long after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How patient the node is, and how often its base moves."""

    tick_s: float = 0.05
    heartbeat_ticks: int = 1
    election_ticks: int = 6
    snapshot_threshold: int = 1000
    """Committed entries between one base and the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """What a node knows of itself at one moment."""

    node_id: int
    role: str
    leader_id: int
    """0 while none is known."""
    term: int
    commit_index: int
    last_index: int
    base_index: int
    applied_index: int
    """The last committed entry that `entries` hands out here."""
    members: Sequence[int]


class Replica:
    """A node of the log, of a cluster of one. `run` drives it; everything else is called on the same loop.

    An error of the disk ends `run` with that error, and with it every wait and every later call: what the disk holds is
    unknown until the log is opened again.
    """

    def __init__(
        self, log: SqliteLog, *, clock: Clock, rng: random.Random, observer: Observer, options: Options | None = None
    ) -> None:
        self._log = log
        self._clock = clock
        self._observer = observer
        self._options = options or Options()
        self._hard_state, self._members = log.initial_state()
        self._handed_over = self._hard_state.commit
        self._raw = RawNode(self._config(rng))
        self._appends: list[Message] = []
        self._must_sync = False
        self._is_writing = False
        self._released: list[Message] = []
        self._proposals: deque[tuple[int, float]] = deque()  # index, and when
        self._is_stopping = False
        self._is_over = False
        self._failure: FatalError | None = None
        self._wake = asyncio.Event()
        self._to_write = asyncio.Event()
        self._over = asyncio.Event()
        self._over.set()
        self._moved = asyncio.Event()
        self._published = (0, 0, 0)

    def _config(self, rng: random.Random) -> Config:
        return Config(
            id=self._log.state.node_id,
            storage=self._log,
            rng=rng,
            election_ticks=self._options.election_ticks,
            heartbeat_ticks=self._options.heartbeat_ticks,
            applied=self._handed_over,
            async_storage_writes=True,
            max_uncommitted_bytes=UNCOMMITTED_BYTES_MAX,
            proposal_forwarding=False,
        )

    @property
    def commit_index(self) -> int:
        """The last index that a majority holds, and that this node knows to be so."""
        return self._raw.committed

    def status(self) -> ReplicaStatus:
        """Return what the node knows of itself now."""
        raft = self._raw.raft
        return ReplicaStatus(
            node_id=raft.id,
            role=raft.role.name.lower(),
            leader_id=raft.leader_id,
            term=raft.term,
            commit_index=self._raw.committed,
            last_index=self._raw.last_index,
            base_index=self._log.first_index() - 1,
            applied_index=self._handed_over,
            members=sorted({*self._members.voters, *self._members.learners}),
        )

    def propose(self, data: bytes) -> Position:
        """Append `data` on the leader and return where; it is not durable yet, and counts only once it is committed.

        Raises:
            NoLeaderError, NotLeaderError: This node does not lead.
            OverloadedError: 64 MiB wait to be committed.
            TooLargeError: It is over PROPOSAL_BYTES_MAX.
            NotReadyError: The node is stopping.
            StorageError, CorruptionError: The disk has failed.
        """
        self._check()
        if self._is_stopping:
            raise NotReadyError("the node is stopping")
        if len(data) > PROPOSAL_BYTES_MAX:
            raise TooLargeError("the log entry", size_bytes=len(data), limit_bytes=PROPOSAL_BYTES_MAX)
        self._check_leads()
        try:
            self._raw.propose(data)
        except ProposalDroppedError as error:
            raise OverloadedError(f"the log takes no more now: {error}") from error
        log_index = self._raw.last_index
        self._proposals.append((log_index, self._clock.monotonic_s()))
        self._wake.set()
        return Position(log_index, self._raw.term)

    async def entries(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        """Yield the committed entries above `after` in batches, in order, and wait for more until the node has stopped.

        A batch has at most 1024 entries and about 8 MiB, and is never empty. Entries that stand for nothing (payload
        b"") are among them. Only history may be missing.

        Raises:
            StorageError, CorruptionError: The disk has failed.
        """
        while True:
            self._check()
            if after < self._handed_over:
                up_to = self._handed_over
                batch = await self._log.read(after, up_to, CHUNK_ENTRIES_MAX)
                after = batch[-1].index if batch else up_to
                if batch:
                    yield batch
            elif self._is_over:
                return
            else:
                await self._moved.wait()

    async def read(self, after: int, limit: int = CHUNK_ENTRIES_MAX) -> Sequence[Entry]:
        """Return the first `limit` committed entries above `after`, or fewer, but at least one if there is one.

        Raises:
            StorageError, CorruptionError: The disk has failed.
        """
        self._check()
        return await self._log.read(after, self._handed_over, limit)

    async def rewrite(self, payloads: Mapping[int, bytes]) -> None:
        """Replace the payloads of committed entries, by index; b"" erases.

        When it returns, the old payloads are neither in memory nor in any file. Repeating it is harmless.

        Raises:
            StorageError, CorruptionError: The disk has failed, or there is no such entry.
        """
        self._check()
        assert all(0 < index <= self._handed_over for index in payloads), "only what is committed may be rewritten"
        await self._log.rewrite(payloads)

    async def wait_ready(self) -> None:
        """Wait until a leader is known, and, if that is this node, until all earlier entries are committed.

        Raises:
            StorageError, CorruptionError: The disk has failed.
            NotReadyError: The node has stopped.
        """
        while not self._is_ready():
            self._check()
            if self._is_over:
                raise NotReadyError("the node has stopped")
            await self._moved.wait()

    async def stop(self) -> None:
        """Take no more proposals, finish what is under way, and end `run`; readers get the rest and end too."""
        self._is_stopping = True
        self._wake.set()
        await self._over.wait()

    async def run(self) -> None:
        """Drive the node until `stop`. A node that is its cluster's only voter elects itself at once.

        Raises:
            StorageError, CorruptionError: The disk has failed; nothing that was acknowledged is lost.
        """
        self._over.clear()
        try:
            await self._join()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._write()), group.create_task(self._tick())]
                await self._drive()
                for task in tasks:
                    task.cancel()
            await self._log.append([Append(hard_state=self._hard_state)])  # the commit index is recorded late
        except* Exception as errors:  # noqa: BLE001  a task boundary: whatever it is, every waiter must hear of it
            self._failure = _first_fatal(errors)
        finally:
            self._is_over = self._is_stopping = True
            self._over.set()
            self._notify()
        self._check()

    async def _join(self) -> None:
        """Take up the membership of the committed entries, and stand for election if no other node could."""
        for entry in await self._log.membership_changes(self._handed_over):
            self._change_members(entry)
        if self._members.voters == (self._raw.raft.id,):
            self._raw.campaign()

    async def _drive(self) -> None:
        while True:
            self._settle()
            if self._is_stopping and not self._is_writing and not self._appends:
                return
            await self._wake.wait()
            self._wake.clear()

    async def _write(self) -> None:
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            batch, self._appends, self._must_sync = self._appends, [], False
            appends = [Append(entries=message.entries) for message in batch if message.entries]
            started_s = self._clock.monotonic_s()
            await self._log.append([*appends, Append(hard_state=self._hard_state)])
            self._observer.synced(self._clock.monotonic_s() - started_s, sum(len(append.entries) for append in appends))
            self._release(batch)
            self._wake.set()
            if self._handed_over - self._log.first_index() >= self._options.snapshot_threshold:
                await self._log.move_base(self._handed_over, self._members)
            self._is_writing = False
            self._wake.set()

    async def _tick(self) -> None:
        # At most one tick for each time this wakes. After a pause of the whole process the missed ones are not made up
        # for: they would time the leader out before its messages, which wait in the socket, are read.
        while True:
            await asyncio.sleep(self._options.tick_s)
            self._raw.tick()
            self._wake.set()

    def _settle(self) -> None:
        """Let the core do all that it can without the disk, and start the next transaction if none is under way."""
        while True:
            released, self._released = self._released, []
            for message in released:
                self._raw.step(message)
            if self._raw.has_ready():
                self._take(self._raw.ready())
            elif self._appends and not self._is_writing:
                self._dispatch()
            elif not self._released:
                break
        self._publish()

    def _take(self, ready: Ready) -> None:
        for message in ready.messages:
            if message.to == LOCAL_APPEND_THREAD:
                self._queue(message)
            elif message.to == LOCAL_APPLY_THREAD:
                self._apply(message)
            else:
                raise NotImplementedError(f"a message to node {message.to}: this node has no peers")

    def _queue(self, message: Message) -> None:
        assert message.snapshot is None, "a node without peers gets no snapshot"
        if message.term:
            hard_state = HardState(term=message.term, vote=message.vote, commit=message.commit)
            if (hard_state.term, hard_state.vote) != (self._hard_state.term, self._hard_state.vote):
                self._must_sync = True
            self._hard_state = hard_state
        if message.entries:
            self._must_sync = True
        self._appends.append(message)

    def _dispatch(self) -> None:
        if self._must_sync:
            self._is_writing = True
            self._to_write.set()
        else:  # at most a higher commit index, which the next transaction takes along
            batch, self._appends = self._appends, []
            self._release(batch)

    def _release(self, batch: Sequence[Message]) -> None:
        for message in batch:
            self._released.extend(message.responses)

    def _apply(self, message: Message) -> None:
        for entry in message.entries:
            if entry.kind is not EntryKind.NORMAL:
                self._change_members(entry)
        self._handed_over = message.entries[-1].index
        self._released.extend(message.responses)

    def _publish(self) -> None:
        news = (self._handed_over, self._raw.raft.leader_id, self._raw.raft.term)
        if news == self._published:
            return
        self._published = news
        now_s = self._clock.monotonic_s()
        while self._proposals and self._proposals[0][0] <= self._handed_over:
            self._observer.committed(now_s - self._proposals.popleft()[1])
        self._log.trim(self._handed_over)
        self._notify()

    def _notify(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()  # whoever comes later waits for the next one
        moved.set()

    def _check_leads(self) -> None:
        raft = self._raw.raft
        if raft.role is Role.LEADER:
            return
        if raft.leader_id:
            raise NotLeaderError(raft.leader_id)
        raise NoLeaderError("no leader is known")

    def _is_ready(self) -> bool:
        raft = self._raw.raft
        if raft.role is Role.LEADER:
            return self._log.term(self._handed_over) == raft.term
        return bool(raft.leader_id)

    def _change_members(self, entry: Entry) -> None:
        self._members = self._raw.apply_conf_change(decode_conf_change(entry))

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure


def _first_fatal(errors: BaseExceptionGroup[Exception]) -> FatalError:
    first = first_of(errors)
    if isinstance(first, FatalError):
        return first
    failure = FatalError(f"the log has stopped: {first!r}")
    failure.__cause__ = first
    return failure
