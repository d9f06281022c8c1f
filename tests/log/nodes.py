"""Transports to test with, on real sockets of the loopback interface, and a node of the core on top of one."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from time import perf_counter

from engram.log.codec import Hello, Welcome
from engram.log.consensus.config import Config
from engram.log.consensus.rawnode import RawNode
from engram.log.consensus.types import (
    ConfState,
    Entry,
    Message,
    MessageRefusedError,
    MessageType,
    ProposalDroppedError,
    Role,
)
from engram.log.handshake import Identity
from engram.log.peer import Options
from engram.log.storage import MemoryStorage
from engram.log.transport import Transport
from tests.cluster.waiting import pause

CLUSTER_ID = "7c9e6679"
HOST = "127.0.0.1"
ROWS_READ_MAX = 1_000


class Mailbox:
    """A listener that keeps what it is told, and can be told to take nothing for a while."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.batches: list[int] = []
        self.broken_at_s: dict[int, float] = {}
        self.unreachable_ids: list[int] = []
        self.greetings: list[Hello] = []
        self.welcomes: list[tuple[int, Welcome]] = []
        self.stores: dict[int, str] = {}
        """What the cluster knows of the disks of others."""
        self.peers: Callable[[], Collection[int]] = tuple
        """Who is admitted, though no stranger is."""
        self.admits_strangers = False
        self.admits = asyncio.Event()
        """Whoever it admits, it does so when this is set."""
        self.admits.set()
        self.rows: list[Entry] = []
        """The log from its first row on."""
        self.staged: list[int] = []
        """How many rows came at a time."""
        self.offers = 0
        self.arrived: list[Message] = []
        self.sent: list[tuple[int, bool]] = []
        self.takes_rows = asyncio.Event()
        self.takes_rows.set()
        self.is_taking_rows = False
        self.is_open = asyncio.Event()
        self.is_open.set()
        self._news = asyncio.Event()

    async def received(self, messages: Sequence[Message]) -> None:
        await self.is_open.wait()
        self.messages += messages
        self.batches.append(len(messages))
        self._news.set()

    def broken(self, node_id: int) -> None:
        self.broken_at_s[node_id] = perf_counter()
        self._news.set()

    def unreachable(self, node_id: int) -> None:
        self.unreachable_ids.append(node_id)
        self._news.set()

    async def greeted(self, hello: Hello) -> bool:
        self.greetings.append(hello)
        await self.admits.wait()
        return self.admits_strangers or hello.sender in self.peers()

    def welcomed(self, node_id: int, welcome: Welcome) -> None:
        self.welcomes.append((node_id, welcome))
        self._news.set()

    def store_of(self, node_id: int) -> str:
        return self.stores.get(node_id, "")

    def known_up_to(self, node_id: int) -> int:
        return 0

    def member_index(self) -> int:
        return 0

    async def snapshot_offered(self, message: Message) -> int:
        self.offers += 1
        return len(self.rows)

    async def snapshot_rows(self, entries: Sequence[Entry]) -> None:
        self.is_taking_rows = True
        await self.takes_rows.wait()
        self.is_taking_rows = False
        self.rows += entries
        self.staged.append(len(entries))
        self._news.set()

    async def snapshot_arrived(self, message: Message) -> None:
        self.arrived.append(message)
        self._news.set()

    async def snapshot_read(self, after: int, up_to: int) -> Sequence[Entry]:
        return self.rows[after : min(up_to, after + ROWS_READ_MAX)]

    def snapshot_sent(self, node_id: int, *, ok: bool) -> None:
        self.sent.append((node_id, ok))
        self._news.set()

    async def until(self, holds: Callable[["Mailbox"], bool]) -> None:
        """Wait for something that this mailbox is told."""
        async with asyncio.timeout(20):
            while not holds(self):
                self._news.clear()
                await self._news.wait()

    async def until_received(self, count: int) -> None:
        await self.until(lambda mailbox: len(mailbox.messages) >= count)


REST_S = 0.001


async def until(holds: Callable[[], bool], within_s: float = 20) -> None:
    """Wait for something that nobody tells of.

    The loop rests in between: one that spins keeps the interpreter from gRPC's threads, so that on a busy machine votes
    come later than the next election.
    """
    async with asyncio.timeout(within_s):
        while not holds():
            await pause(REST_S)


def make_transport(
    node_id: int,
    listener: "Mailbox | Node",
    *,
    cluster_id: str = CLUSTER_ID,
    boot_epoch: int = 1,
    store_id: str | None = None,
    port: int = 0,
    options: Options | None = None,
) -> Transport:
    address = f"{HOST}:{port}"
    identity = Identity(
        cluster_id=cluster_id,
        node_id=node_id,
        boot_epoch=boot_epoch,
        address=address,
        store_id=f"store-{node_id}" if store_id is None else store_id,
        http_address=f"{HOST}:80{node_id}",
    )
    transport = Transport(identity, listen=address, listener=listener, rng=random.Random(node_id), options=options)
    if isinstance(listener, Mailbox):
        listener.peers = transport.status
    return transport


@asynccontextmanager
async def running(*transports: Transport) -> AsyncIterator[None]:
    """Run `transports`; stop those that are still running at the end."""
    async with asyncio.TaskGroup() as group:
        for transport in transports:
            group.create_task(transport.run())
            await transport.wait_ready()
        yield
        for transport in transports:
            await transport.stop()


def address_of(transport: Transport) -> str:
    return f"{HOST}:{transport.port}"


def introduce(first: Transport, first_id: int, second: Transport, second_id: int) -> None:
    """Make two running transports peers."""
    first.add_peer(second_id, address_of(second))
    second.add_peer(first_id, address_of(first))


def make_hello(
    *,
    cluster_id: str = CLUSTER_ID,
    sender: int = 1,
    boot_epoch: int = 1,
    stream: int = 1,
    store_id: str = "store-1",
    to_store_id: str = "",
    applied_index: int = 0,
) -> Hello:
    """Return how node `sender` greets node 2."""
    return Hello(
        cluster_id=cluster_id,
        sender=sender,
        to=2,
        boot_epoch=boot_epoch,
        stream=stream,
        address=f"{HOST}:1",
        store_id=store_id,
        to_store_id=to_store_id,
        http_address=f"{HOST}:8001",
        applied_index=applied_index,
    )


def vote(to: int, index: int, *, sender: int = 1) -> Message:
    """Return a small message that is told from others by `index`, and is never merged with them."""
    return Message(type=MessageType.VOTE, to=to, sender=sender, term=1, index=index)


def append(to: int, index: int, size: int, *, sender: int = 1) -> Message:
    entry = Entry(1, index + 1, data=bytes(size))
    return Message(type=MessageType.APPEND, to=to, sender=sender, term=1, log_term=1, index=index, entries=(entry,))


class Node:
    """A node of the core with a disk in memory. It is driven by what arrives, by proposals, and by a timer."""

    TICK_S = 0.02
    NO_SNAPSHOTS = "a disk in memory keeps no history to send"

    def __init__(self, node_id: int, voters: tuple[int, ...]) -> None:
        self.id = node_id
        self.applied: list[bytes] = []
        self.refused: list[Exception] = []
        self.storage = MemoryStorage(conf_state=ConfState(voters=voters))
        self.raw = RawNode(
            Config(
                id=node_id,
                storage=self.storage,
                rng=random.Random(node_id),
                max_bytes_per_message=1024 * 1024,
                max_inflight_bytes=4 * 1024 * 1024,
            )
        )
        self.transport = make_transport(node_id, self)
        self.is_stopped = False

    @property
    def leads(self) -> bool:
        return self.raw.raft.role is Role.LEADER

    def start_ticking(self) -> None:
        if not self.is_stopped:
            self.raw.tick()
            self.settle()
            asyncio.get_running_loop().call_later(self.TICK_S, self.start_ticking)

    def propose(self, data: bytes) -> None:
        self.raw.propose(data)
        self.settle()

    async def received(self, messages: Sequence[Message]) -> None:
        for message in messages:
            try:
                self.raw.step(message)
            except (MessageRefusedError, ProposalDroppedError) as error:
                self.refused.append(error)
        self.settle()

    def broken(self, node_id: int) -> None:
        self.unreachable(node_id)

    def unreachable(self, node_id: int) -> None:
        self.raw.report_unreachable(node_id)
        self.settle()

    async def greeted(self, hello: Hello) -> bool:
        return hello.sender in self.transport.status()

    def welcomed(self, node_id: int, welcome: Welcome) -> None:
        """Learn nothing: the nodes know one another."""

    def store_of(self, node_id: int) -> str:
        return ""

    def known_up_to(self, node_id: int) -> int:
        return 0

    def member_index(self) -> int:
        return 0

    async def snapshot_offered(self, message: Message) -> int:
        raise NotImplementedError(self.NO_SNAPSHOTS)

    async def snapshot_rows(self, entries: Sequence[Entry]) -> None:
        raise NotImplementedError(self.NO_SNAPSHOTS)

    async def snapshot_arrived(self, message: Message) -> None:
        raise NotImplementedError(self.NO_SNAPSHOTS)

    async def snapshot_read(self, after: int, up_to: int) -> Sequence[Entry]:
        raise NotImplementedError(self.NO_SNAPSHOTS)

    def snapshot_sent(self, node_id: int, *, ok: bool) -> None:
        raise NotImplementedError(self.NO_SNAPSHOTS)

    def settle(self) -> None:
        while self.raw.has_ready():
            ready = self.raw.ready()
            if ready.hard_state is not None:
                self.storage.set_hard_state(ready.hard_state)
            self.storage.append(ready.entries)
            self.transport.send(ready.messages)
            self.applied += [entry.data for entry in ready.committed_entries if entry.data]
            self.raw.advance()
