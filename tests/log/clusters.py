"""Clusters to test with: real logs on disk, real gRPC on the loopback interface, all nodes on one loop."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from engram.clock import SystemClock
from engram.log.cluster import Cluster
from engram.log.consensus.types import ConfState
from engram.log.exchange import Exchange
from engram.log.options import Options
from engram.log.position import Position
from engram.log.replica import Replica
from engram.log.sqlite import WINDOW_BYTES_MAX, SqliteLog
from tests.log.nodes import until
from tests.log.replicas import Transactions
from tests.server_process import find_free_port

OPTIONS = Options(tick_s=0.01, heartbeat_ticks=2, election_ticks=20)


class Node:
    """A node that can be started again on the same folder, as the same node or with another disk."""

    def __init__(self, node_id: int, folder: Path, *, options: Options, window_bytes_max: int) -> None:
        self.id = node_id
        self.address = f"127.0.0.1:{find_free_port()}"
        self.peers: dict[int, str] = {}
        self.is_standalone = False
        self._path = folder / f"{node_id}.db"
        self._options = options
        self._window_bytes_max = window_bytes_max
        self._running: AsyncExitStack | None = None

    @property
    def http_address(self) -> str:
        return f"127.0.0.1:{3000 + self.id}"

    @property
    def is_running(self) -> bool:
        return self._running is not None

    async def start(self) -> None:
        stack = AsyncExitStack()
        self.log = await SqliteLog.open(
            self._path,
            node_id=self.id,
            store_id=str(uuid.uuid4()),
            members=None if self.is_standalone else ConfState(),
            window_bytes_max=self._window_bytes_max,
        )
        stack.push_async_callback(self.log.close)
        self.replica = Replica(
            self.log, clock=SystemClock(), rng=random.Random(self.id), observer=Transactions(), options=self._options
        )
        self.exchange = Exchange(
            self.replica,
            self.log,
            address=self.address,
            http_address=self.http_address,
            listen=self.address,
            rng=random.Random(self.id),
        )
        self.cluster = Cluster(self.replica, self.log, self.exchange, peers=self.peers, read_s=5)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        self._tasks = [group.create_task(self.exchange.transport.run())]
        await self.exchange.transport.wait_ready()
        self._tasks += [group.create_task(self.replica.run()), group.create_task(self.cluster.run())]
        self._running = stack

    async def stop(self) -> None:
        """Stop as after SIGTERM, but without handing leadership over."""
        if self._running is not None:
            stack, self._running = self._running, None
            await self.replica.stop()
            await self.exchange.transport.stop()
            self._tasks[-1].cancel()
            await stack.aclose()

    async def crash(self) -> None:
        """End without a word: nothing that waits is written or sent."""
        if self._running is not None:
            stack, self._running = self._running, None
            for task in self._tasks:
                task.cancel()
            await stack.aclose()

    def wipe(self) -> None:
        """Lose the disk."""
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    async def commit(self, *payloads: bytes) -> Position:
        """Propose `payloads`, wait until all of them are committed here, and return where the last is."""
        positions = [self.replica.propose(payload) for payload in payloads]
        await until(lambda: self.replica.applied_index >= positions[-1].log_index)
        return positions[-1]

    async def payloads(self) -> list[bytes]:
        """Return what the application wrote, as far as it is committed here."""
        found: list[bytes] = []
        after = 0
        while batch := await self.replica.read(after) if after < self.replica.applied_index else ():
            found += [entry.data for entry in batch if entry.data and entry.kind == 0]
            after = batch[-1].index
        return found


class Nodes:
    """All nodes of a test."""

    def __init__(self, folder: Path, options: Options, window_bytes_max: int) -> None:
        self._folder = folder
        self._options = options
        self._window_bytes_max = window_bytes_max
        self._nodes: dict[int, Node] = {}

    def __getitem__(self, node_id: int) -> Node:
        return self._nodes[node_id]

    @property
    def running(self) -> list[Node]:
        return [node for node in self._nodes.values() if node.is_running]

    @property
    def leader(self) -> Node:
        """The node that leads in the highest term."""
        leaders = [node for node in self.running if node.replica.is_leader]
        return max(leaders, key=lambda node: node.replica.status().term)

    def make(self, node_id: int) -> Node:
        node = self._nodes[node_id] = Node(
            node_id, self._folder, options=self._options, window_bytes_max=self._window_bytes_max
        )
        return node

    async def start(self, *node_ids: int) -> None:
        """Start nodes that are to form a cluster."""
        nodes = [self.make(node_id) for node_id in node_ids]
        for node in nodes:
            node.peers = {other.id: other.address for other in nodes if other is not node}
            await node.start()

    async def until_led(self) -> Node:
        """Wait until all nodes follow one leader, and return it."""
        await until(lambda: len({node.replica.leader_id for node in self.running} - {0}) == 1 and self._all_led())
        return self.leader

    async def until_equal(self, nodes: Sequence[Node] = ()) -> None:
        """Wait until all running nodes, or `nodes`, have applied all that the leader has."""
        last = self.leader.replica.status().last_index
        await until(lambda: all(node.replica.applied_index >= last for node in nodes or self.running))

    def _all_led(self) -> bool:
        return all(node.replica.leader_id for node in self.running) and any(n.replica.is_leader for n in self.running)


@asynccontextmanager
async def nodes(
    folder: Path, *, options: Options = OPTIONS, window_bytes_max: int = WINDOW_BYTES_MAX
) -> AsyncIterator[Nodes]:
    """Give a test its nodes, and crash those that still run at its end."""
    made = Nodes(folder, options, window_bytes_max)
    try:
        yield made
    except TimeoutError as error:  # what the nodes thought is gone with them
        for node in made.running:
            error.add_note(f"node {node.id}: {node.cluster.status()}")
        raise
    finally:
        for node in made.running:
            await node.crash()


@asynccontextmanager
async def formed(
    folder: Path, *node_ids: int, options: Options = OPTIONS, window_bytes_max: int = WINDOW_BYTES_MAX
) -> AsyncIterator[Nodes]:
    """Give a test a cluster of three, or of `node_ids`."""
    async with nodes(folder, options=options, window_bytes_max=window_bytes_max) as made:
        await made.start(*(node_ids or (1, 2, 3)))
        await made[min(node_ids or (1,))].cluster.initialize()
        await made.until_led()
        await made.until_equal()
        yield made
