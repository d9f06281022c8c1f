"""A cluster of real processes on this machine, each with a folder of its own, and the network between them."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.connection import Answer
from tests.cluster.asking import AnswerError, ask, ask_json, told
from tests.cluster.proxy import Network
from tests.cluster.sockets import find_dialler, find_lasting_ports
from tests.cluster.waiting import wait_until
from tests.server_process import ServerProcess

START_S_MAX = 60.0
SETTLE_S_MAX = 90.0
CHANGE_S_MAX = 60.0
STOP_S_MAX = 30.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a cluster is made of."""

    size: int = 3
    heartbeat_ms: int = 15
    election_ms: int = 100
    has_network: bool = False
    """Nodes talk through a network that can be cut; else directly, which costs less."""
    disk_bytes: int | None = None
    """Each node's data is in a file system of its own, of this size; needs root."""
    environ: Mapping[str, str] = field(default_factory=dict)


class Node(ServerProcess):
    """One node's process. Nothing here waits on the event loop."""

    def __init__(self, node_id: int, folder: Path, *, port: int, raft_port: int, announced_port: int) -> None:
        super().__init__(folder, port)
        self.node_id = node_id
        self.raft_port = raft_port
        self.announced_port = announced_port
        """Where others dial it: its ingress, or the port itself."""
        self.data = folder / "data"
        self.is_launched = False

    def launch(self, environ: Mapping[str, str]) -> None:
        """Start it with these settings, without waiting for anything."""
        self._environ = dict(environ)
        self._process = self._spawn()
        self.is_launched = True

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return None if self._process is None else self._process.poll()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    async def kill_now(self) -> None:
        """Kill it; returns once it is gone."""
        self.signal(signal.SIGKILL)
        await self.wait_ended()

    async def stop_now(self) -> int:
        """Ask it to end and return its exit code."""
        self.signal(signal.SIGTERM)
        return await self.wait_ended()

    async def wait_ended(self, within_s: float = STOP_S_MAX) -> int:
        """Return its exit code once it has ended.

        Raises:
            NeverError: It does not end.
        """
        await wait_until(self._has_ended, f"node {self.node_id} ends", within_s=within_s, every_s=0.005)
        assert self.exit_code is not None
        return self.exit_code

    async def _has_ended(self) -> bool:
        return self.exit_code is not None


class Cluster:
    """Nodes 1 to `size`, started and stopped one by one."""

    def __init__(self, folder: Path, plan: Plan, ports: Iterator[int], network: Network | None) -> None:
        self.plan = plan
        self.nodes: dict[int, Node] = {}
        self.ports: dict[int, int] = {}
        """HTTP ports of the members, whom clients ask; they see every change of it."""
        self._folder = folder
        self._free_ports = ports
        self._network = network
        self._mounts: list[Path] = []

    @classmethod
    @asynccontextmanager
    async def running(cls, folder: Path, plan: Plan, rng: random.Random) -> AsyncIterator["Cluster"]:
        """Start a cluster and initialize it; at the end everything is killed."""
        async with AsyncExitStack() as opened:
            network: Network | None = None
            cluster: Cluster | None = None
            if plan.has_network:
                network = await opened.enter_async_context(Network(lambda near, to: _dialler(cluster, near, to)))
            cluster = cls(folder, plan, find_lasting_ports(rng), network)
            opened.callback(cluster.close)
            for node_id in range(1, plan.size + 1):
                cluster.ports[node_id] = (await cluster.add_node(node_id)).port
            for node_id in cluster.nodes:
                await cluster.launch(node_id)
            await cluster.initialize()
            yield cluster

    @property
    def network(self) -> Network:
        """What lies between the nodes; only where the plan asks for it."""
        assert self._network is not None, "the plan has no network"
        return self._network

    async def add_node(self, node_id: int) -> Node:
        """Make a node that is not started yet."""
        port, raft_port = next(self._free_ports), next(self._free_ports)
        announced_port = next(self._free_ports) if self._network else raft_port
        folder = self._folder / f"node-{node_id}"
        node = Node(node_id, folder, port=port, raft_port=raft_port, announced_port=announced_port)
        if self._network is not None:
            await self._network.open(node_id, ingress_port=announced_port, port=raft_port)
        self.nodes[node_id] = node
        if self.plan.disk_bytes is not None:
            self._mount(node.data, self.plan.disk_bytes)
        return node

    async def launch(self, node_id: int) -> None:
        """Start a node's process, without waiting for it."""
        await asyncio.to_thread(self.nodes[node_id].launch, self.environ(node_id))

    async def initialize(self) -> None:
        """Make a cluster of the nodes that run, and wait until all of them serve."""
        for node_id in self.nodes:
            await self.wait_answering(node_id)
        answer = await ask(self.nodes[1].port, "POST", "/cluster/init", timeout_s=CHANGE_S_MAX)
        if answer is None or answer.status != 200:
            raise AnswerError(f"cluster/init on node 1: {told(answer)}")
        await self.wait_ready(self.nodes)

    async def status(self, node_id: int) -> dict[str, Any] | None:
        """Return what a node says of its cluster, None when it does not answer."""
        return await ask_json(self.nodes[node_id].port, "/cluster")

    async def metric(self, node_id: int, name: str) -> float:
        """Return a metric without labels, as a node gives it; 0 when it gives none."""
        answer = await ask(self.nodes[node_id].port, "GET", "/metrics")
        lines = [] if answer is None else answer.body.decode().splitlines()
        return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0.0)

    async def describe(self) -> str:
        """Return what each member says of itself, in one line: what to look at when something does not happen."""
        return "; ".join(
            [f"node {node_id}: {_described(await self.status(node_id))}" for node_id in sorted(self.ports)]
        )

    async def find_leader(self, among: Collection[int] | None = None) -> int:
        """Return the leader, once there is one that the others among these nodes, or all members, follow."""
        found = 0

        async def is_followed() -> bool:
            nonlocal found
            asked = [await self.status(node_id) for node_id in (self.ports if among is None else among)]
            seen = [status for status in asked if status is not None and status["role"] != "Learner"]
            leaders = [status["node_id"] for status in seen if status["role"] == "Leader"]
            found = leaders[0] if len(leaders) == 1 else 0
            return found != 0 and all(status["leader_id"] == found for status in seen)

        await wait_until(is_followed, "one leader that all follow", within_s=SETTLE_S_MAX)
        return found

    async def wait_answering(self, node_id: int) -> None:
        """Wait until a node serves, whether it is of use yet or not."""

        async def answers() -> bool:
            self._check_alive(node_id)
            return await ask(self.nodes[node_id].port, "GET", "/health") is not None

        await wait_until(answers, f"node {node_id} answers", within_s=START_S_MAX)

    async def wait_ready(self, node_ids: Collection[int]) -> None:
        """Wait until these nodes say that they are ready."""
        for node_id in node_ids:
            await wait_until(partial(self._is_ready, node_id), f"node {node_id} is ready", within_s=START_S_MAX)

    async def wait_caught_up(self, node_id: int, leader_id: int) -> None:
        """Wait until a node has applied what the leader has applied now, and serves."""
        leader = await self.status(leader_id)
        wanted = 0 if leader is None else leader["last_applied_index"]

        async def is_there() -> bool:
            self._check_alive(node_id)
            status = await self.status(node_id)
            return status is not None and status["last_applied_index"] >= wanted

        await wait_until(is_there, f"node {node_id} has applied entry {wanted}", within_s=SETTLE_S_MAX)
        await self.wait_ready([node_id])

    async def wait_settled(self, node_ids: Collection[int]) -> int:
        """Wait until these nodes have applied the same, while nobody writes; return the index."""
        indexes: list[int] = []

        async def are_equal() -> bool:
            before = list(indexes)
            asked = [await self.status(node_id) for node_id in node_ids]
            indexes[:] = [-1 if status is None else status["last_applied_index"] for status in asked]
            return indexes == before and len(set(indexes)) == 1 and -1 not in indexes

        await self.find_leader(node_ids)
        try:
            await wait_until(are_equal, "all nodes have applied the same", within_s=SETTLE_S_MAX, every_s=0.1)
        except AssertionError as error:
            raise type(error)(f"{error}: {dict(zip(node_ids, indexes, strict=True))}") from None
        return indexes[0]

    async def change(self, path: str, body: object) -> Answer:
        """Send a request of the operator's to the leader, following it once where it moves.

        Raises:
            AnswerError: It was not done.
        """
        answer: Answer | None = None
        deadline_s = asyncio.get_running_loop().time() + CHANGE_S_MAX
        while asyncio.get_running_loop().time() < deadline_s:
            leader_id = await self.find_leader()
            answer = await ask(self.nodes[leader_id].port, "POST", path, body, timeout_s=CHANGE_S_MAX)
            if answer is not None and answer.status == 200:
                return answer
            if answer is not None and answer.status not in {307, 409, 503, 504}:
                break
        raise AnswerError(f"{path} with {body} on the leader: {told(answer)}")

    async def stop_all(self) -> dict[int, int]:
        """Ask all nodes that run to end; return their exit codes."""
        running = [node for node in self.nodes.values() if node.is_launched and node.exit_code is None]
        async with asyncio.TaskGroup() as group:
            stops = {node.node_id: group.create_task(node.stop_now()) for node in running}
        return {node_id: stop.result() for node_id, stop in stops.items()}

    async def wipe(self, node_id: int) -> None:
        """Delete what a node that does not run has on its disk."""
        await asyncio.to_thread(shutil.rmtree, self.nodes[node_id].data)

    async def mend(self) -> None:
        """Undo what was done to the members: cuts, stops and kills."""
        if self._network is not None:
            self._network.heal(reset=True)
        for node_id in self.ports:
            if self.nodes[node_id].exit_code is None:
                self.nodes[node_id].signal(signal.SIGCONT)
            else:
                await self.launch(node_id)

    def close(self) -> None:
        """End everything, gently to nobody."""
        for node in self.nodes.values():
            node.kill()
        for folder in self._mounts:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)

    def environ(self, node_id: int) -> dict[str, str]:
        """Return the settings of a node."""
        node = self.nodes[node_id]
        peers = {other.node_id: f"127.0.0.1:{other.announced_port}" for other in self.nodes.values()}
        http_peers = {other.node_id: f"127.0.0.1:{other.port}" for other in self.nodes.values()}
        return {
            "NODE_ID": str(node_id),
            "RAFT_ADDR": f"127.0.0.1:{node.raft_port}",
            "RAFT_ADVERTISE_ADDR": peers[node_id],
            "CLUSTER_PEERS": _listed(peers),
            "CLUSTER_HTTP_PEERS": _listed(http_peers),
            "ENGRAM_HEARTBEAT_MS": str(self.plan.heartbeat_ms),
            "ENGRAM_ELECTION_MS": str(self.plan.election_ms),
            "LOG_FORMAT": "json",
            **self.plan.environ,
        }

    async def _is_ready(self, node_id: int) -> bool:
        self._check_alive(node_id)
        answer = await ask(self.nodes[node_id].port, "GET", "/ready")
        return answer is not None and answer.status == 200

    def _check_alive(self, node_id: int) -> None:
        node = self.nodes[node_id]
        if node.exit_code is not None:
            raise AnswerError(f"node {node_id} ended with exit code {node.exit_code}:\n{node.log[-4000:]}")

    def _mount(self, folder: Path, size_bytes: int) -> None:
        folder.mkdir(parents=True)
        options = f"size={size_bytes},mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True)
        self._mounts.append(folder)


def _dialler(cluster: Cluster | None, near: int, to: int) -> int | None:
    if cluster is None:
        return None
    launched = [(node.node_id, node.pid) for node in list(cluster.nodes.values()) if node.is_launched]
    return find_dialler(launched, from_port=near, to_port=to)


def _described(status: Mapping[str, Any] | None) -> str:
    if status is None:
        return "no answer"
    return (
        f"{status['role']}, term {status['term']}, leader {status['leader_id']}, applied {status['last_applied_index']}"
    )


def _listed(addresses: Mapping[int, str]) -> str:
    return ",".join(f"{node_id}:{address}" for node_id, address in addresses.items())
