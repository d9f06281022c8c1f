"""Drills on processes and on the network. Each function is one round; what it leaves behind works again."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import perf_counter

from tests.cluster.asking import AnswerError
from tests.cluster.proxy import Direction
from tests.cluster.scene import CALM_S, Fault, Scene
from tests.cluster.waiting import wait_until

CUT_S = (1.0, 2.0)
STOPPED_S = (0.5, 1.5)
BLOWS = (3, 8)
DEPOSED_S_MAX = 20.0
"""After so long the predecessor's leader, cut off from all others, still called itself leader."""


async def kill_leader(scene: Scene) -> None:
    """Kill the leader, as a power cut would, and start it again."""
    leader = await scene.leader_amid_writes()
    node = scene.cluster.nodes[leader]
    fault = scene.begin(leader)
    node.signal(signal.SIGKILL)
    first_write_ms = await scene.first_write(fault)
    await node.wait_ended()
    await scene.write_on()
    await scene.bring_back(leader)
    scene.end(fault, first_write_ms)


async def stop_leader(scene: Scene) -> None:
    """Stop the leader's process for a while: no connection breaks, nothing answers, and then it thinks it leads."""
    leader = await scene.leader_amid_writes()
    node = scene.cluster.nodes[leader]
    fault = scene.begin(leader)
    node.signal(signal.SIGSTOP)
    try:
        first_write_ms = await scene.first_write(fault)
        await scene.write_on(*STOPPED_S)
    finally:
        node.signal(signal.SIGCONT)
    await scene.write_on()
    await scene.cluster.wait_caught_up(leader, await scene.cluster.find_leader())
    scene.end(fault, first_write_ms)


async def kill_all(scene: Scene) -> None:
    """Kill all nodes at the same moment, and start them again."""
    await scene.leader_amid_writes()
    nodes = [scene.cluster.nodes[node_id] for node_id in scene.cluster.ports]
    fault = scene.begin()
    for node in nodes:
        node.signal(signal.SIGKILL)
    for node in nodes:
        await node.wait_ended()
    killed_s = perf_counter()
    await scene.bring_back(*scene.cluster.ports)
    first_write_ms = 1000 * (await scene.workload.wait_written(killed_s, but_by=(), within_s=60.0) - fault.at_s)
    await scene.write_on()
    scene.end(fault, first_write_ms)


async def restart_one_by_one(scene: Scene) -> None:
    """Restart every node, each when the one before serves again: an upgrade. No client is told."""
    for node_id in sorted(scene.cluster.ports):
        leader = await scene.leader_amid_writes()
        fault = Fault(at_s=perf_counter(), victims=(node_id,))
        code = await scene.cluster.nodes[node_id].stop_now()
        if code != 0:
            raise AnswerError(f"node {node_id} ended with exit code {code} after SIGTERM")
        stopped_s = perf_counter()
        first_write_ms = await scene.first_write(fault)
        await scene.write_on()
        kind = "the leader" if node_id == leader else "a follower"
        workload, took_s = scene.workload, stopped_s - fault.at_s
        scene.note(f"slowest write while {kind} stops, ms", 1000 * workload.slowest_s(fault.at_s, stopped_s))
        scene.note("slowest write in as long before, ms", 1000 * workload.slowest_s(fault.at_s - took_s, fault.at_s))
        scene.note(f"{kind} has stopped after ms", 1000 * (stopped_s - fault.at_s))
        await scene.bring_back(node_id)
        scene.end(fault, first_write_ms)


async def isolate_leader(scene: Scene) -> None:
    """Cut the leader off from all others, both ways. It must not go on thinking that it leads."""
    leader = await scene.leader_amid_writes()
    await _cut(scene, leader, _both_ways(scene, leader), is_deposed=True)


async def isolate_follower(scene: Scene) -> None:
    """Cut a follower off from all others, both ways. Nobody should notice, then or when it comes back."""
    follower = await scene.follower_amid_writes()
    term = await _term(scene)
    await _cut(scene, follower, _both_ways(scene, follower), is_deposed=False)
    scene.note("terms that a follower cost", await _term(scene) - term)


async def silence_leader(scene: Scene) -> None:
    """Let the leader hear all others, and none of them hear it."""
    leader = await scene.leader_amid_writes()
    await _cut(scene, leader, [(leader, other) for other in _others(scene, leader)], is_deposed=True)


async def deafen_leader(scene: Scene) -> None:
    """Let all others hear the leader, which hears none of them: its heartbeats must not keep it in office."""
    leader = await scene.leader_amid_writes()
    await _cut(scene, leader, [(other, leader) for other in _others(scene, leader)], is_deposed=True)


async def do_anything(scene: Scene) -> None:
    """Do several of the above at once, to any nodes, a majority included, and then mend it all."""
    cluster = scene.cluster
    await scene.write_on(*CALM_S)
    for _ in range(scene.rng.randint(*BLOWS)):
        await scene.rng.choice(_BLOWS)(scene, *scene.rng.sample(sorted(cluster.ports), 2))
        await scene.write_on(0.05, 1.0)
    mended = scene.begin()
    await cluster.mend()
    leader = await cluster.find_leader()
    for node_id in cluster.ports:
        await cluster.wait_caught_up(node_id, leader)
    first_write_ms = await scene.first_write(mended)
    await scene.write_on()
    scene.end(mended, first_write_ms)


async def _kill(scene: Scene, node_id: int, _: int) -> None:
    node = scene.cluster.nodes[node_id]
    if node.exit_code is None:
        await node.kill_now()
    else:
        await scene.cluster.launch(node_id)


async def _stop(scene: Scene, node_id: int, _: int) -> None:
    if scene.cluster.nodes[node_id].exit_code is None:
        scene.cluster.nodes[node_id].signal(signal.SIGSTOP)


async def _continue(scene: Scene, node_id: int, _: int) -> None:
    if scene.cluster.nodes[node_id].exit_code is None:
        scene.cluster.nodes[node_id].signal(signal.SIGCONT)


async def _silence(scene: Scene, sender: int, receiver: int) -> None:
    scene.cluster.network.cut(sender, receiver)


async def _separate(scene: Scene, one: int, other: int) -> None:
    scene.cluster.network.cut(one, other)
    scene.cluster.network.cut(other, one)


async def _heal(scene: Scene, _: int, __: int) -> None:
    scene.cluster.network.heal(reset=scene.rng.random() < 0.5)


_BLOWS: Sequence[Callable[[Scene, int, int], Awaitable[None]]] = (
    _kill,
    _kill,
    _stop,
    _continue,
    _silence,
    _separate,
    _heal,
)


async def _cut(scene: Scene, victim: int, directions: Iterable[Direction], *, is_deposed: bool) -> None:
    network = scene.cluster.network
    fault = scene.begin(victim)
    for sender, receiver in directions:
        network.cut(sender, receiver)
    first_write_ms = await scene.first_write(fault)
    if is_deposed:
        await wait_until(lambda: _is_no_leader(scene, victim), "the leader steps down", within_s=DEPOSED_S_MAX)
        scene.note("the old leader steps down after ms", 1000 * (perf_counter() - fault.at_s))
    await scene.write_on(*CUT_S)
    healed_s = perf_counter()
    network.heal(reset=scene.rng.random() < 0.5)
    await scene.write_on()
    leader = await scene.cluster.find_leader()
    await scene.cluster.wait_caught_up(victim, leader)
    scene.note("caught up after the cut after s", perf_counter() - healed_s)
    scene.end(fault, first_write_ms)


async def _is_no_leader(scene: Scene, node_id: int) -> bool:
    status = await scene.cluster.status(node_id)
    return status is not None and status["role"] != "Leader"


async def _term(scene: Scene) -> int:
    async with asyncio.timeout(60.0):
        while (status := await scene.cluster.status(await scene.cluster.find_leader())) is None:
            await scene.write_on()
    term: int = status["term"]
    return term


def _others(scene: Scene, node_id: int) -> list[int]:
    return [other for other in scene.cluster.ports if other != node_id]


def _both_ways(scene: Scene, node_id: int) -> list[Direction]:
    others = _others(scene, node_id)
    return [(node_id, other) for other in others] + [(other, node_id) for other in others]
