"""Forgetting reaches every node of a cluster, also one that was just being sent what is to be forgotten."""

import asyncio
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.asking import ask, told
from tests.cluster.cluster_process import Cluster, Plan
from tests.cluster.waiting import wait_until
from tests.drills.subjects import MESSAGES, Subject, places

pytestmark = [pytest.mark.timeout(180), pytest.mark.thorough]

PLAN = Plan(heartbeat_ms=100, election_ms=500, environ={"SNAPSHOT_LOG_THRESHOLD": "5"})
FORGOTTEN_S_MAX = 60.0
HISTORY_BYTES = 24 * 1024 * 1024
"""Three times what a leader has in memory of its log: who lacks all of it gets a snapshot."""
FACT_BYTES = 240 * 1024


async def do(cluster: Cluster, node_id: int, method: str, path: str, body: object = None) -> None:
    answer = await ask(cluster.ports[node_id], method, path, body, timeout_s=30)
    assert answer is not None
    assert answer.status < 300, told(answer)


async def hear(cluster: Cluster, leader: int, subject: Subject) -> None:
    """Take what a subject has to say, and let the nodes search it once, so that it is everywhere."""
    session = f"/sessions/{subject.session_id}"
    said: list[dict[str, Any]] = [subject.message(number) for number in range(MESSAGES)]
    await do(cluster, leader, "POST", f"{session}/messages", {"messages": said})
    await do(cluster, leader, "PUT", f"{session}/core-memory", {"fact": f"a fact about {subject.marker}"})


async def wait_for(cluster: Cluster, node_id: int, marker: str, expected: set[str] | None) -> None:
    """Wait until a node's files hold `marker` in these places (None: at least in the log and the long-term store)."""

    async def is_so() -> bool:
        found = await asyncio.to_thread(places, cluster.nodes[node_id].data, marker)
        return found >= {"raft", "lancedb"} if expected is None else found == expected

    await wait_until(is_so, f"node {node_id} has {marker} in {expected}", within_s=FORGOTTEN_S_MAX, every_s=0.1)


async def test_a_deleted_session_is_in_no_file_of_any_node(tmp_path: Path) -> None:
    doomed, kept = Subject("doomed", random.Random(5)), Subject("kept", random.Random(6))
    async with Cluster.running(tmp_path, PLAN, random.Random(1)) as cluster:
        leader = await cluster.find_leader()
        await hear(cluster, leader, doomed)
        await hear(cluster, leader, kept)
        for node_id in cluster.ports:
            await wait_for(cluster, node_id, doomed.marker, None)

        await do(cluster, leader, "DELETE", f"/sessions/{doomed.session_id}")
        for node_id in cluster.ports:
            await wait_for(cluster, node_id, doomed.marker, set())

        assert all(places(cluster.nodes[node_id].data, kept.marker) >= {"raft", "lancedb"} for node_id in cluster.ports)
        assert all(doomed.marker not in node.log for node in cluster.nodes.values())


def staged_rows(log: Path, scratch: Path) -> int:
    """Return how many rows of a snapshot that was not installed lie in the log of a node that does not run."""
    shutil.copytree(log, scratch)
    connection = sqlite3.connect(scratch / "engram.db")
    try:
        (count,) = connection.execute("SELECT count(*) FROM staged").fetchone()
    finally:
        connection.close()
    return int(count)


async def wait_staged(cluster: Cluster, node_id: int, marker: str) -> None:
    """Wait until a node that lacks the whole history has got the first of it."""

    async def has_begun() -> bool:
        return "raft" in await asyncio.to_thread(places, cluster.nodes[node_id].data, marker)

    await wait_until(has_begun, "the snapshot is on its way", within_s=FORGOTTEN_S_MAX, every_s=0.001)


async def test_what_was_on_its_way_in_a_snapshot_when_it_was_deleted_is_forgotten_too(tmp_path: Path) -> None:
    doomed = Subject("doomed", random.Random(7))
    async with Cluster.running(tmp_path / "cluster", PLAN, random.Random(2)) as cluster:
        leader = await cluster.find_leader()
        follower = next(node_id for node_id in cluster.ports if node_id != leader)
        await cluster.nodes[follower].stop_now()
        await hear(cluster, leader, doomed)
        for number in range(HISTORY_BYTES // FACT_BYTES):
            fact = f"{number} " + "much is known " * (FACT_BYTES // 14)
            await do(cluster, leader, "PUT", f"/sessions/filler-{number}/core-memory", {"fact": fact})
        await cluster.launch(follower)
        await wait_staged(cluster, follower, doomed.marker)
        await cluster.nodes[follower].kill_now()
        assert staged_rows(cluster.nodes[follower].data / "raft", tmp_path / "scratch") > 0

        await do(cluster, leader, "DELETE", f"/sessions/{doomed.session_id}")
        assert "raft" in places(cluster.nodes[follower].data, doomed.marker)
        await cluster.launch(follower)
        await cluster.wait_caught_up(follower, leader)

        for node_id in cluster.ports:
            await wait_for(cluster, node_id, doomed.marker, set())
        assert await cluster.metric(follower, "engram_snapshot_install_total") == 1
