"""Between a replica and the transport: who is where, what arrives, and what becomes of connections.

A node knows the addresses of the others from the book that travels with the membership, and better from what they say
themselves when they greet: a node may have moved while this one was away.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from engram.errors import ConfigError
from engram.log.codec import Hello, Welcome
from engram.log.consensus.types import Entry, Message
from engram.log.handshake import Identity
from engram.log.members import Member
from engram.log.replica import Replica
from engram.log.sqlite import SqliteLog
from engram.log.transport import Transport

FAREWELL_S = 1.0
"""How long a node that was removed is still sent what waits for it: the news of its removal is among that."""


class _NewerDisk(NamedTuple):
    """The disk of a member, as it said itself, and the log index as of which that is so."""

    store_id: str
    log_index: int


class Exchange:
    """The listener of a transport, and the outlet of a replica.

    Args:
        replica: Whose messages these are.
        log: Its log, which snapshots are read from and written to.
        address: host:port where other nodes reach this one.
        http_address: host:port where clients do.
        listen: host:port that the transport binds.
        rng: For the jitter of the transport's back-off.
    """

    def __init__(
        self, replica: Replica, log: SqliteLog, *, address: str, http_address: str, listen: str, rng: random.Random
    ) -> None:
        state = log.state
        self.own = Member(address=address, http_address=http_address, store_id=state.store_id)
        """Where this node is, and its disk."""
        self._replica = replica
        self._log = log
        self._announced: dict[int, Member] = {}
        self._newer_disks: dict[int, _NewerDisk] = {}
        self._leaving: dict[int, asyncio.TimerHandle] = {}
        identity = Identity(
            cluster_id=state.cluster_id,
            node_id=state.node_id,
            boot_epoch=state.boot_epoch,
            **msgspec.structs.asdict(self.own),
        )
        self.transport = Transport(identity, listen=listen, listener=self, rng=rng)
        replica.connect(self)

    @property
    def announced(self) -> Mapping[int, Member]:
        """What other nodes have said about themselves since this one started."""
        return self._announced

    def member(self, node_id: int) -> Member | None:
        """Return where a node is: what it said itself, else what the book says."""
        if node_id == self._replica.node_id:
            return self.own
        return self._announced.get(node_id) or self._replica.roster.book.get(node_id)

    # The outlet of the replica.

    def send(self, messages: Sequence[Message]) -> None:
        """Queue messages for other nodes."""
        self.transport.send(messages)

    def members_changed(self) -> None:
        """Connect to those who are members now, and in a moment no more to those who were."""
        roster = self._replica.roster
        for node_id in sorted(roster.ids - {self._replica.node_id}):
            if (timer := self._leaving.pop(node_id, None)) is not None:
                timer.cancel()
            self._forget_other_disk(node_id)
            if (member := self.member(node_id)) is not None:
                self.transport.add_peer(node_id, member.address)
        if roster.ids:  # else whoever greeted this node is about to make it a member
            for node_id in self.transport.status().keys() - roster.ids - self._leaving.keys():
                self._leaving[node_id] = asyncio.get_running_loop().call_later(FAREWELL_S, self._forget, node_id)

    def _forget_other_disk(self, node_id: int) -> None:
        """Forget what a node said when it had another disk: it was removed, and added again with a new one."""
        said, store_id = self._announced.get(node_id), self.store_of(node_id)
        if said is not None and store_id and said.store_id != store_id:
            del self._announced[node_id]
            self.transport.remove_peer(node_id)

    def _forget(self, node_id: int) -> None:
        self._leaving.pop(node_id, None)
        if node_id not in self._replica.roster.ids:
            self._announced.pop(node_id, None)
            self.transport.remove_peer(node_id)

    # The listener of the transport.

    async def received(self, messages: Sequence[Message]) -> None:
        """Hand messages to the replica."""
        self._replica.receive(messages)

    def broken(self, node_id: int) -> None:
        """Note that the stream to a node ended: if it led, it may be dead."""
        self._replica.report_unreachable(node_id)
        self._replica.lose(node_id)

    def unreachable(self, node_id: int) -> None:
        """Note that messages to a node were dropped."""
        self._replica.report_unreachable(node_id)

    async def greeted(self, hello: Hello) -> bool:
        """Let a node in that knows this cluster and this node's disk; join its cluster if this node is in none."""
        if not self._log.state.cluster_id:
            try:
                await self._log.adopt_cluster(hello.cluster_id)
            except ConfigError:  # another was faster
                return False
        self._announced[hello.sender] = Member(
            address=hello.address, http_address=hello.http_address, store_id=hello.store_id
        )
        if self.store_of(hello.sender) not in {"", hello.store_id}:  # checked: it has applied more than this node
            self._newer_disks[hello.sender] = _NewerDisk(hello.store_id, hello.applied_index)
            self.transport.remove_peer(hello.sender)  # what it still has in mind is for the other disk
        # Also one that is no member here: it may be one by an entry that this node lacks, and need its vote.
        self.transport.add_peer(hello.sender, hello.address)
        return True

    def welcomed(self, node_id: int, welcome: Welcome) -> None:
        """Note what a node says of itself that took a stream."""
        member = self.member(node_id)
        if member is not None:
            self._announced[node_id] = Member(
                address=member.address,
                http_address=welcome.http_address or member.http_address,
                store_id=welcome.store_id or member.store_id,
            )

    def store_of(self, node_id: int) -> str:
        """Return the disk that a node must come with; empty if any will do."""
        newer = self._newer_disk(node_id)
        if newer is not None:
            return newer.store_id
        known = self._replica.roster.book.get(node_id)
        return known.store_id if known is not None else ""

    def known_up_to(self, node_id: int) -> int:
        """Return the log index as of which that is known."""
        newer = self._newer_disk(node_id)
        return self._replica.applied_index if newer is None else newer.log_index

    def member_index(self) -> int:
        """Return up to where the log is applied here, if by that this node is a member with its disk; else 0."""
        known = self._replica.roster.book.get(self._replica.node_id)
        is_member = known is not None and known.store_id == self.own.store_id
        return self._replica.applied_index if is_member else 0

    def _newer_disk(self, node_id: int) -> "_NewerDisk | None":
        """Return the disk that a node was added with by an entry which is not applied here yet."""
        newer = self._newer_disks.get(node_id)
        return newer if newer is not None and newer.log_index > self._replica.applied_index else None

    async def snapshot_offered(self, message: Message) -> int:  # noqa: ARG002 - rows are good whoever sends them
        """Return the index up to which this node has committed rows already."""
        await self._replica.wait_installed()
        return self._log.staged_index

    async def snapshot_rows(self, entries: Sequence[Entry]) -> None:
        """Keep rows until all of them are there."""
        await self._log.stage(entries)

    async def snapshot_arrived(self, message: Message) -> None:
        """Let the replica take the snapshot, whose rows are there, and wait until it is the log."""
        self._replica.receive([message])
        await self._replica.wait_installed()

    async def snapshot_read(self, after: int, up_to: int) -> Sequence[Entry]:
        """Return the next rows that another node lacks."""
        return await self._log.read(after, up_to)

    def snapshot_sent(self, node_id: int, *, ok: bool) -> None:
        """Let the replica go on with a node that has its snapshot now, or has not."""
        self._replica.report_snapshot(node_id, ok=ok)
