"""What is done to the nodes while clients ask. Each function takes two to five seconds; afterwards all work again."""

import random
import signal
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from time import perf_counter_ns

from tests.cluster.asking import AnswerError, ask
from tests.cluster.cluster_process import Cluster
from tests.cluster.proxy import Direction
from tests.cluster.waiting import pause

DOWN_S = (0.6, 1.2)
"""How long what was done lasts."""
BETWEEN_S = (0.2, 0.5)


@dataclass
class Stage:
    """A cluster and what was done to it."""

    cluster: Cluster
    rng: random.Random
    events: list[tuple[int, str]] = field(default_factory=list)

    def note(self, what: str) -> None:
        """Write down that this happens now."""
        self.events.append((perf_counter_ns(), what))

    async def wait(self, between_s: tuple[float, float] = DOWN_S) -> None:
        """Let the clients go on for a while."""
        await pause(self.rng.uniform(*between_s))

    async def leader(self) -> int:
        """Return the leader; all nodes must work."""
        return await self.cluster.find_leader()

    def others(self, node_id: int) -> list[int]:
        """Return the other nodes, in random order."""
        others = [other for other in self.cluster.ports if other != node_id]
        self.rng.shuffle(others)
        return others

    async def bring_back(self, node_ids: Collection[int]) -> None:
        """Start nodes that do not run, and wait until they have caught up."""
        for node_id in node_ids:
            await self.cluster.launch(node_id)
        self.note(f"started {sorted(node_ids)}")
        leader = await self.leader()
        for node_id in node_ids:
            await self.cluster.wait_caught_up(node_id, leader)
        self.note(f"{sorted(node_ids)} back")


async def kill_leader(stage: Stage) -> None:
    """Kill the leader, and start it again."""
    await _kill(stage, [await stage.leader()])


async def kill_majority(stage: Stage) -> None:
    """Kill the leader and another at once: nothing can be written until one is back."""
    leader = await stage.leader()
    await _kill(stage, [leader, stage.others(leader)[0]])


async def kill_all(stage: Stage) -> None:
    """Kill all nodes at once."""
    await _kill(stage, sorted(stage.cluster.ports))


async def stop_leader(stage: Stage) -> None:
    """Stop the leader's process, twice: what it was sent meanwhile it reads when it goes on, thinking that it leads."""
    for _ in range(2):
        await _stop(stage, await stage.leader())
        await stage.wait(BETWEEN_S)


async def stop_majority(stage: Stage) -> None:
    """Stop two of the processes, and let them go on one after the other."""
    leader = await stage.leader()
    stopped = [leader, stage.others(leader)[0]]
    for node_id in stopped:
        stage.cluster.nodes[node_id].signal(signal.SIGSTOP)
    stage.note(f"stopped {stopped}")
    stage.rng.shuffle(stopped)
    for node_id in stopped:
        await stage.wait()
        stage.cluster.nodes[node_id].signal(signal.SIGCONT)
        stage.note(f"continued {node_id}")


async def isolate_leader(stage: Stage) -> None:
    """Cut the leader off from the others, both ways; twice."""
    for _ in range(2):
        leader = await stage.leader()
        await _cut(stage, [*_out(stage, leader), *_in(stage, leader)])


async def isolate_follower(stage: Stage) -> None:
    """Cut a follower off, both ways: what it reads meanwhile must not be old."""
    for _ in range(2):
        follower = stage.others(await stage.leader())[0]
        await _cut(stage, [*_out(stage, follower), *_in(stage, follower)])


async def silence_leader(stage: Stage) -> None:
    """Let the leader hear the others, and none of them hear it; twice."""
    for _ in range(2):
        await _cut(stage, _out(stage, await stage.leader()))


async def deafen_leader(stage: Stage) -> None:
    """Let the others hear the leader, which hears none of them; twice."""
    for _ in range(2):
        await _cut(stage, _in(stage, await stage.leader()))


async def bridge(stage: Stage) -> None:
    """Cut the leader off from one follower only: the other hears both."""
    for _ in range(2):
        leader = await stage.leader()
        far = stage.others(leader)[0]
        await _cut(stage, [(leader, far), (far, leader)])


async def hand_over(stage: Stage) -> None:
    """Hand leadership over again and again."""
    for _ in range(6):
        leader = await stage.leader()
        answer = await ask(stage.cluster.nodes[leader].port, "POST", "/cluster/transfer-leadership")
        stage.note(f"handed over by {leader}: {None if answer is None else answer.status}")
        await stage.wait(BETWEEN_S)


async def restart_one_by_one(stage: Stage) -> None:
    """Restart every node gently, each when the one before serves again: an upgrade."""
    for node_id in sorted(stage.cluster.ports):
        stage.note(f"stops {node_id}")
        code = await stage.cluster.nodes[node_id].stop_now()
        if code != 0:
            raise AnswerError(f"node {node_id} ended with exit code {code} after SIGTERM")
        await stage.bring_back([node_id])


async def mix(stage: Stage) -> None:
    """Cut, stop and kill, one upon the other."""
    leader = await stage.leader()
    others = stage.others(leader)
    for direction in [*_out(stage, leader), (others[0], leader)]:
        stage.cluster.network.cut(*direction)
    stage.note(f"node {leader} is heard by none and hears {others[1]}")
    await stage.wait()
    await _stop(stage, others[0])
    stage.cluster.nodes[others[1]].signal(signal.SIGKILL)
    stage.note(f"killed {others[1]}")
    stage.cluster.network.heal(reset=stage.rng.random() < 0.5)
    stage.note("healed")
    await stage.cluster.nodes[others[1]].wait_ended()
    await stage.wait()
    await stage.bring_back([others[1]])


NEMESES: Mapping[str, Callable[[Stage], Awaitable[None]]] = {
    "kill-leader": kill_leader,
    "stop-leader": stop_leader,
    "partition-leader": isolate_leader,
    "one-way-out": silence_leader,
    "one-way-in": deafen_leader,
    "partition-follower": isolate_follower,
    "mix": mix,
    "hand-over": hand_over,
    "bridge": bridge,
    "stop-majority": stop_majority,
    "kill-majority": kill_majority,
    "rolling-restart": restart_one_by_one,
    "kill-all": kill_all,
}


async def _kill(stage: Stage, victims: Collection[int]) -> None:
    for node_id in victims:
        stage.cluster.nodes[node_id].signal(signal.SIGKILL)
    stage.note(f"killed {sorted(victims)}")
    for node_id in victims:
        await stage.cluster.nodes[node_id].wait_ended()
    await stage.wait()
    await stage.bring_back(victims)


async def _stop(stage: Stage, node_id: int) -> None:
    node = stage.cluster.nodes[node_id]
    node.signal(signal.SIGSTOP)
    stage.note(f"stopped {node_id}")
    try:
        await stage.wait()
    finally:
        node.signal(signal.SIGCONT)
        stage.note(f"continued {node_id}")


async def _cut(stage: Stage, directions: Collection[Direction]) -> None:
    for sender, receiver in directions:
        stage.cluster.network.cut(sender, receiver)
    stage.note(f"cut {sorted(directions)}")
    await stage.wait()
    stage.cluster.network.heal(reset=stage.rng.random() < 0.5)
    stage.note("healed")
    await stage.wait(BETWEEN_S)


def _out(stage: Stage, node_id: int) -> list[Direction]:
    return [(node_id, other) for other in stage.others(node_id)]


def _in(stage: Stage, node_id: int) -> list[Direction]:
    return [(other, node_id) for other in stage.others(node_id)]
