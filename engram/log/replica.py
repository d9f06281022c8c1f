"""One node of the replicated log, as the application and whoever administers the cluster see it.

What is proposed here is appended on the leader, replicated, and handed out once a majority holds it. How that happens is
the driver's and the core's business.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from engram.clock import Clock
from engram.errors import (
    FatalError,
    HandingOverError,
    NoLeaderError,
    NotLeaderError,
    NotReadyError,
    OverloadedError,
    TooLargeError,
    first_of,
)
from engram.log.consensus.types import (
    NO_NODE,
    ConfChange,
    ConfState,
    DropReason,
    Entry,
    Message,
    ProposalDroppedError,
    Role,
)
from engram.log.driver import Driver
from engram.log.members import Book
from engram.log.options import PROPOSAL_BYTES_MAX, Observer, Options, Outlet
from engram.log.position import Position
from engram.log.roster import Roster
from engram.log.rows import CHUNK_ENTRIES_MAX
from engram.log.sqlite import SqliteLog
from engram.log.status import ReplicaStatus

__all__ = ["Observer", "Options", "Replica"]

READ_RETRY_S_MIN = 0.25
"""A question about a read, or its answer, may be lost: it is asked again after an election timeout, or this."""


class Replica:
    """A node of the log. `run` drives it; everything else is called on the same loop.

    An error of the disk ends `run` with that error, and with it every wait and every later call: what the disk holds is
    unknown until the log is opened again.
    """

    def __init__(
        self, log: SqliteLog, *, clock: Clock, rng: random.Random, observer: Observer, options: Options | None = None
    ) -> None:
        self._log = log
        self._driver = Driver(log, clock=clock, rng=rng, observer=observer, options=options or Options())
        self._is_over = False
        self._failure: FatalError | None = None
        self._over = asyncio.Event()
        self._over.set()

    # What a node knows.

    @property
    def node_id(self) -> int:
        """Of this node."""
        return self._driver.raw.raft.id

    @property
    def commit_index(self) -> int:
        """The last index that a majority holds, and that this node knows to be so."""
        return self._driver.raw.committed

    @property
    def applied_index(self) -> int:
        """The last committed entry that `entries` hands out here."""
        return self._driver.applied_index

    @property
    def rewrites(self) -> int:
        """How often payloads of committed entries were replaced; counted before any of them is."""
        return self._log.rewrites

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows: that it does not, it notices within an election timeout."""
        return self._driver.raw.raft.role is Role.LEADER

    @property
    def leader_id(self) -> int:
        """Who leads, as far as this node knows; 0: nobody."""
        return self._driver.raw.raft.leader_id

    @property
    def roster(self) -> Roster:
        """Who belongs to the cluster, as far as the log was applied here."""
        return self._driver.roster

    def status(self) -> ReplicaStatus:
        """Return what the node knows of itself now."""
        raw = self._driver.raw
        raft = raw.raft
        return ReplicaStatus(
            node_id=raft.id,
            role=raft.role,
            leader_id=raft.leader_id,
            term=raft.term,
            commit_index=raw.committed,
            last_index=raw.last_index,
            base_index=self._log.state.base_index,
            applied_index=self._driver.applied_index,
            is_joint=raft.tracker.members.is_joint,
            has_pending_change=raft.pending_conf_index > raft.log.applied,
            is_handing_over=raft.transferee != NO_NODE,
            progress=raw.status().progress,
        )

    async def wait_moved(self) -> None:
        """Wait until the applied index, the term, the role, or the leader changes.

        Raises:
            StorageError, CorruptionError: The disk has failed.
            NotReadyError: The node has stopped.
        """
        self._check()
        if self._is_over:
            raise NotReadyError("the node has stopped")
        await self._driver.moved.wait()

    async def wait_ready(self) -> None:
        """Wait until a leader is known, and, if that is this node, until all earlier entries are committed.

        Raises:
            StorageError, CorruptionError: The disk has failed.
            NotReadyError: The node has stopped.
        """
        while not self._is_ready():
            await self.wait_moved()

    def check_leads(self) -> None:
        """Return if this node leads, as far as it knows.

        Raises:
            NoLeaderError, NotLeaderError: It does not.
        """
        if not self.is_leader:
            if self.leader_id != NO_NODE:
                raise NotLeaderError(self.leader_id)
            raise NoLeaderError("no leader is known")

    async def wait_handed_over(self, timeout_s: float) -> None:
        """Return when it is known who leads after a handover, or `timeout_s` later."""
        raft = self._driver.raw.raft
        try:
            async with asyncio.timeout(timeout_s):
                while raft.transferee != NO_NODE or raft.leader_id == NO_NODE:
                    await self.wait_moved()
        except TimeoutError:
            return

    # What the application does.

    def propose(self, data: bytes) -> Position:
        """Append `data` on the leader and return where; it is not durable yet, and counts only once it is committed.

        Raises:
            NoLeaderError, NotLeaderError: This node does not lead.
            HandingOverError: It is about to lead no more.
            OverloadedError: 64 MiB wait to be committed, or the disk does not answer.
            TooLargeError: It is over PROPOSAL_BYTES_MAX.
            NotReadyError: The node is stopping, or has to because its disk failed.
        """
        if len(data) > PROPOSAL_BYTES_MAX:
            raise TooLargeError("the log entry", size_bytes=len(data), limit_bytes=PROPOSAL_BYTES_MAX)
        driver = self._driver
        return self._propose(lambda: driver.proposals.add(driver.raw, data))

    async def entries(self, after: int) -> AsyncIterator[Sequence[Entry]]:
        """Yield the committed entries above `after` in batches, in order, and wait for more until the node has stopped.

        A batch has at most 1024 entries and about 8 MiB, and is never empty. Entries that stand for nothing (payload
        b"") are among them. Only history may be missing.

        Raises:
            StorageError, CorruptionError: The disk has failed.
        """
        driver = self._driver
        while True:
            self._check()
            if after < driver.applied_index:
                up_to = driver.applied_index
                batch = await self._log.read(after, up_to, CHUNK_ENTRIES_MAX)
                after = batch[-1].index if batch else up_to
                if batch:
                    yield batch
            elif self._is_over:
                return
            else:
                await driver.moved.wait()

    async def read(self, after: int, limit: int = CHUNK_ENTRIES_MAX) -> Sequence[Entry]:
        """Return the first `limit` committed entries above `after`, or fewer, but at least one if there is one.

        Raises:
            StorageError, CorruptionError: The disk has failed.
        """
        self._check()
        return await self._log.read(after, self.applied_index, limit)

    async def rewrite(self, payloads: Mapping[int, bytes]) -> None:
        """Replace the payloads of committed entries, by index; b"" erases.

        When it returns, the old payloads are neither in memory nor in any file. Repeating it is harmless.

        Raises:
            StorageError, CorruptionError: The disk has failed, or there is no such entry.
        """
        self._check()
        assert all(0 < index <= self.applied_index for index in payloads), "only what is committed may be rewritten"
        await self._log.rewrite(payloads)

    async def read_index(self, timeout_s: float) -> int:
        """Return the index up to which a read must see the log to miss nothing that was acknowledged before this call.

        Raises:
            NoLeaderError: There is none to ask.
            NotReadyError: The leader did not answer in time, or heard no majority.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while (index := await self._ask_leader()) is None:
                    pass
                return index
        except TimeoutError:
            raise NotReadyError(f"the leader did not confirm within {timeout_s:g} s that it leads") from None

    async def _ask_leader(self) -> int | None:
        if self._is_over:
            raise NotReadyError("the node has stopped")
        if self.leader_id == NO_NODE:
            raise NoLeaderError("no leader is known")
        waiting = self._driver.reads.wait()
        self._driver.wake()
        try:
            async with asyncio.timeout(max(self._driver.options.election_s, READ_RETRY_S_MIN)):
                return await waiting
        except TimeoutError:
            return None

    # What changes the cluster.

    async def initialize(self, cluster_id: str, members: ConfState, book: Book) -> None:
        """Found a cluster on this node's empty log, and stand for election in it.

        Raises:
            ConfigError: The log is not empty, or belongs to a cluster.
        """
        self._check()
        await self._log.bootstrap(cluster_id, members, book)
        self._driver.load()
        self._driver.tell_outlet()
        self._driver.core().campaign()

    def propose_change(self, change: ConfChange) -> Position:
        """Append a change of the membership; to be called only while none is under way. Raises what `propose` does."""

        def append() -> Position:
            core = self._driver.core()
            core.propose_conf_change(change)
            return Position(core.last_index, core.term)

        return self._propose(append)

    def transfer_leadership(self, to: int) -> None:
        """Begin to hand over to `to`; given up after the time of an election."""
        self._driver.core().transfer_leadership(to)

    async def move_base(self) -> int:
        """Take a snapshot: move the base up to what is applied, and return where it is."""
        self._check()
        await self._driver.move_base()
        return self._log.state.base_index

    # What other nodes say, and what becomes of the connections to them.

    def connect(self, outlet: Outlet) -> None:
        """Send through `outlet` from now on."""
        self._driver.outlet = outlet

    def receive(self, messages: Sequence[Message]) -> None:
        """Take messages of other nodes."""
        if not self._is_over:
            self._driver.receive(messages)

    async def wait_installed(self) -> None:
        """Return when no snapshot waits to be installed: until then nothing may be staged for another.

        Raises:
            StorageError, CorruptionError: The disk has failed.
            NotReadyError: The node has stopped.
        """
        while self._driver.raw.raft.log.unstable.snapshot is not None:
            await self.wait_moved()

    def report_unreachable(self, node_id: int) -> None:
        """Note that messages to `node_id` were lost."""
        self._driver.core().report_unreachable(node_id)

    def report_snapshot(self, node_id: int, *, ok: bool) -> None:
        """Note that the snapshot for `node_id` is there, or is not."""
        self._driver.core().report_snapshot(node_id, ok=ok)

    def lose(self, node_id: int) -> None:
        """Note that the connection to `node_id` broke: its process may be gone."""
        self._driver.lose(node_id)

    # From start to stop.

    async def stop(self) -> None:
        """Take no more proposals, finish what is under way, and end `run`; readers get the rest and end too."""
        self._driver.is_stopping = True
        self._driver.wake()
        await self._over.wait()

    async def run(self) -> None:
        """Drive the node until `stop`. A node that is its cluster's only voter elects itself at once.

        Raises:
            StorageError, CorruptionError: The disk has failed; nothing that was acknowledged is lost.
        """
        self._over.clear()
        try:
            await self._driver.run()
        except* Exception as errors:  # noqa: BLE001  a task boundary: whatever it is, every waiter must hear of it
            self._failure = _first_fatal(errors)
        finally:
            self._is_over = self._driver.is_stopping = True
            self._driver.reads.fail(NotReadyError("the node has stopped"))
            self._over.set()
            self._driver.notify()
        self._check()

    def _propose(self, append: Callable[[], Position]) -> Position:
        driver, raft = self._driver, self._driver.raw.raft
        if self._failure is not None:
            raise NotReadyError(f"the node has to stop: {self._failure}") from self._failure
        if driver.is_stopping:
            raise NotReadyError("the node is stopping")
        self.check_leads()
        if driver.is_hung:
            raise OverloadedError("the disk has not answered for too long")
        try:
            position = append()
        except ProposalDroppedError as error:
            if error.reason is DropReason.TRANSFERRING:
                raise HandingOverError(f"node {raft.transferee} is about to lead") from error
            raise OverloadedError(f"the log takes no more now: {error}") from error
        driver.wake()
        return position

    def _is_ready(self) -> bool:
        raft = self._driver.raw.raft
        if raft.role is Role.LEADER:
            return self._log.term(self.applied_index) == raft.term
        return bool(raft.leader_id)

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
