"""Whole nodes in a cluster, each in a process of its own: what only shows when all parts of several are there."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks.connection import Answer
from tests.cluster.asking import ask, ask_json, header
from tests.cluster.cluster_process import Cluster, Plan
from tests.cluster.waiting import wait_until
from tests.fake_openai import FakeOpenAI, hangs
from tests.test_node import samples

PLAIN = Plan(heartbeat_ms=50, election_ms=300)
pytestmark = [pytest.mark.timeout(120), pytest.mark.thorough]


@pytest.fixture
async def openai() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


async def write(cluster: Cluster, leader_id: int, message_id: str, content: str) -> Answer:
    body = {"id": message_id, "role": "user", "content": content}
    answer = await ask(cluster.ports[leader_id], "POST", "/sessions/s1/messages", body, timeout_s=10)
    assert answer is not None
    assert answer.status == 204, answer.body
    return answer


async def metrics(cluster: Cluster, node_id: int) -> dict[str, float]:
    answer = await ask(cluster.ports[node_id], "GET", "/metrics")
    assert answer is not None
    return samples(answer.body.decode())


async def test_a_new_leaders_worker_goes_on_where_the_old_ones_was(tmp_path: Path, openai: FakeOpenAI) -> None:
    settings = {"OPENAI_BASE_URL": openai.url, "EMBEDDING_MODEL": "test-model", "EMBEDDING_DIMENSION": "8"}
    plan = Plan(heartbeat_ms=50, election_ms=300, environ=settings)
    openai.always = hangs
    async with Cluster.running(tmp_path, plan, random.Random(1)) as cluster:
        old = await cluster.find_leader()
        for number in range(5):
            await write(cluster, old, f"m{number}", f"message {number}")
        await openai.reached.wait()
        await cluster.nodes[old].kill_now()
        openai.always = None
        survivors = sorted(cluster.ports.keys() - {old})
        await cluster.find_leader(survivors)

        for node_id in survivors:

            async def is_done(port: int = cluster.ports[node_id]) -> bool:
                session = await ask_json(port, "/sessions/s1")
                return session is not None and session["pending"]["embedding"] == 0

            await wait_until(is_done, f"node {node_id} has all vectors", within_s=30)
        openai.released.set()

        asked = [text for text in openai.texts if text.startswith("message")]
        assert set(asked) == {f"message {number}" for number in range(5)}
        found = await ask(
            cluster.ports[survivors[0]], "POST", "/sessions/s1/search", {"query": "message 3", "top_k": 1}
        )
        assert found is not None
        assert json.loads(found.body)["results"][0]["id"] == "m3"


async def test_what_a_follower_counts_and_what_it_sees(tmp_path: Path) -> None:
    async with Cluster.running(tmp_path, PLAIN, random.Random(2)) as cluster:
        leader = await cluster.find_leader()
        follower = next(node_id for node_id in cluster.ports if node_id != leader)
        index = header(await write(cluster, leader, "m1", "tea"), b"engram-index")
        assert index is not None

        seen = await ask(cluster.ports[follower], "GET", f"/sessions/s1/messages/m1?min_index={index.decode()}")
        linearizable = await ask(cluster.ports[follower], "GET", "/sessions/s1?consistency=linearizable")
        sent = await ask(cluster.ports[follower], "POST", "/sessions/s%201/messages?", {"role": "user", "content": "x"})
        counted = await metrics(cluster, follower)

        assert seen is not None
        assert seen.status == 200
        assert linearizable is not None
        assert linearizable.status == 200
        assert sent is not None
        assert sent.status == 307
        assert header(sent, b"location") == b"http://127.0.0.1:%d/sessions/s%%201/messages?" % cluster.ports[leader]
        assert counted["engram_raft_is_leader"] == 0
        assert counted["engram_snapshot_install_total"] == 1
        assert counted["engram_raft_leader_changes_total"] == 1
        assert (await metrics(cluster, leader))["engram_raft_is_leader"] == 1


async def test_what_is_deleted_is_gone_from_every_nodes_disk(tmp_path: Path) -> None:
    marker = "quincunx"
    async with Cluster.running(tmp_path, PLAIN, random.Random(3)) as cluster:
        leader = await cluster.find_leader()
        await write(cluster, leader, "m1", f"the word is {marker}")
        await cluster.wait_settled(cluster.ports)
        assert len(await asyncio.to_thread(holding, tmp_path, marker)) >= 3

        answer = await ask(cluster.ports[leader], "DELETE", "/sessions/s1", timeout_s=10)

        async def is_gone() -> bool:
            return not await asyncio.to_thread(holding, tmp_path, marker)

        assert answer is not None
        assert answer.status == 204
        await wait_until(is_gone, "no file holds what was deleted", within_s=30)


async def test_a_leader_that_stops_hands_over(tmp_path: Path) -> None:
    plan = Plan(heartbeat_ms=500, election_ms=60_000)  # nobody would notice in time that it is gone
    async with Cluster.running(tmp_path, plan, random.Random(4)) as cluster:
        leader = await cluster.find_leader()

        assert await cluster.nodes[leader].stop_now() == 0

        survivors = sorted(cluster.ports.keys() - {leader})
        await write(cluster, await cluster.find_leader(survivors), "m1", "tea")


def holding(folder: Path, marker: str) -> list[Path]:
    """Return the files that hold `marker`."""
    return [path for path in folder.rglob("*") if path.is_file() and marker.encode() in path.read_bytes()]
