"""Drills on disks, absences and the membership. Each function is one round; what it leaves behind works again."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter

from tests.cluster.asking import AnswerError
from tests.cluster.scene import Fault, Scene
from tests.cluster.waiting import NeverError, wait_until

ABSENCE_ENTRIES = 100_000
"""At scale 1."""
ABSENCE_S_MAX = 1_800.0
UNHEARD_S = 1.5
"""How long two nodes are left alone, one of which must not count: many elections long."""

BLOCK_BYTES = 64 * 1024


async def fill_disk(scene: Scene) -> None:
    """Let the leader's disk run full: it has to make way, and works again once there is room."""
    leader = await scene.leader_amid_writes()
    node = scene.cluster.nodes[leader]
    fault = scene.begin(leader)
    with _filler(node.data):
        first_write_ms = await scene.first_write(fault)
        await scene.write_on(1.0)
    if node.exit_code is None:
        await node.kill_now()
    else:
        scene.note("exit code with a full disk", node.exit_code)
    await scene.bring_back(leader)
    scene.end(fault, first_write_ms)


async def wipe_disk(scene: Scene) -> None:
    """Lose a follower's disk. It comes back without knowing what it promised, so it must not count until it is let in."""
    cluster = scene.cluster
    leader = await scene.leader_amid_writes()
    wiped, other = scene.rng.sample([node_id for node_id in cluster.ports if node_id != leader], 2)
    fault = scene.begin(wiped)
    await cluster.nodes[wiped].kill_now()
    await cluster.wipe(wiped)
    await cluster.launch(wiped)
    first_write_ms = await scene.first_write(fault)
    await scene.write_on(2.0)
    await _expect_no_majority(scene, wiped, stopped=other)
    await cluster.change("/cluster/change-membership", {"members": sorted({leader, other})})
    await _let_in(scene, wiped)
    scene.end(fault, first_write_ms)


async def stay_away(scene: Scene) -> None:
    """Keep a follower away for so many entries that it can only be brought back by a snapshot."""
    cluster = scene.cluster
    follower = await scene.follower_amid_writes()
    fault = scene.begin(follower)
    await cluster.nodes[follower].stop_now()
    first_write_ms = await scene.first_write(fault)
    wanted = await _last_applied(scene) + round(ABSENCE_ENTRIES * scene.scale)

    async def is_far() -> bool:
        return await _last_applied(scene) >= wanted

    before = await _last_applied(scene)
    await wait_until(is_far, f"entry {wanted} is written", within_s=ABSENCE_S_MAX, every_s=0.5)
    scene.note("entries missed", await _last_applied(scene) - before)
    await scene.bring_back(follower)
    if not await cluster.metric(follower, "engram_snapshot_install_total"):
        raise AnswerError(f"node {follower} was brought back without a snapshot: it was not away for long enough")
    leader = await cluster.find_leader()
    scene.note("memory of the leader, MB", cluster.nodes[leader].rss_bytes() / 1e6)
    scene.note("memory of the one that came back, MB", cluster.nodes[follower].rss_bytes() / 1e6)
    scene.end(fault, first_write_ms)


async def exchange_members(scene: Scene) -> None:
    """Add a node and remove another, by turns a follower and the leader itself, while clients write."""
    cluster = scene.cluster
    leader = await scene.leader_amid_writes()
    newcomer = next((node_id for node_id in cluster.nodes if node_id not in cluster.ports), len(cluster.nodes) + 1)
    if newcomer not in cluster.nodes:
        await cluster.add_node(newcomer)
    removes_leader = len(scene.rounds) % 2 == 1
    leaver = leader if removes_leader else scene.rng.choice([one for one in cluster.ports if one != leader])
    change = scene.begin()
    await cluster.launch(newcomer)
    await _let_in(scene, newcomer)
    scene.note("a node is added after s", perf_counter() - change.at_s)
    removal = scene.begin(leaver)
    await cluster.change("/cluster/change-membership", {"members": sorted(set(cluster.ports) - {leaver})})
    scene.note("a node is removed after s", perf_counter() - removal.at_s)
    first_write_ms = await scene.first_write(removal)
    del cluster.ports[leaver]
    await scene.write_on(1.0)
    code = await cluster.nodes[leaver].stop_now()
    if code != 0:
        raise AnswerError(f"node {leaver}, removed, ended with exit code {code} after SIGTERM")
    await cluster.wipe(leaver)
    scene.end(Fault(at_s=change.at_s, victims=removal.victims), first_write_ms)


async def _let_in(scene: Scene, node_id: int) -> None:
    """Make a voter of a node that runs on an empty disk."""
    cluster = scene.cluster
    node = cluster.nodes[node_id]
    await cluster.wait_answering(node_id)
    addresses = {"addr": f"127.0.0.1:{node.announced_port}", "http_addr": f"127.0.0.1:{node.port}"}
    await cluster.change("/cluster/add-learner", {"node_id": node_id, **addresses})
    await cluster.change("/cluster/change-membership", {"members": sorted({*cluster.ports, node_id})})
    await cluster.wait_caught_up(node_id, await cluster.find_leader())
    cluster.ports[node_id] = node.port


async def _expect_no_majority(scene: Scene, wiped: int, *, stopped: int) -> None:
    """Stop another node: the leader and the one that lost its disk must not accept a write between them.

    Raises:
        AnswerError: They do.
    """
    await scene.cluster.wait_answering(wiped)
    node = scene.cluster.nodes[stopped]
    node.signal(signal.SIGSTOP)
    try:
        await scene.write_on()  # what is on its way may be accepted still
        alone_s = perf_counter()
        try:
            await scene.workload.wait_written(alone_s, but_by=(), within_s=UNHEARD_S)
        except NeverError:
            pass
        else:
            raise AnswerError(f"node {wiped} lost its disk, and its vote counts all the same")
    finally:
        node.signal(signal.SIGCONT)
    await scene.workload.wait_written(perf_counter(), but_by=(), within_s=60.0)


async def _last_applied(scene: Scene) -> int:
    leader = await scene.cluster.find_leader()
    status = await scene.cluster.status(leader)
    applied: int = 0 if status is None else status["last_applied_index"]
    return applied


@contextmanager
def _filler(folder: Path) -> Iterator[None]:
    """Leave no room in the file system of `folder`."""
    path = folder / "filler"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        with suppress(OSError):  # there is no room
            while True:
                os.write(descriptor, bytes(BLOCK_BYTES))
        yield
    finally:
        os.close(descriptor)
        path.unlink()
