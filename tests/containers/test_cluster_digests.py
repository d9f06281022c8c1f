"""What `scripts/cluster-verify.sh digests` says of three real nodes, of which one's read models are altered."""

import asyncio
import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.cluster.asking import ask
from tests.cluster.cluster_process import Cluster, Plan
from tests.projections.damage import alter

PROJECT = Path(__file__).parents[2]
VERIFY = PROJECT / "scripts" / "cluster-verify.sh"


def verify(cluster: Cluster, *criteria: str) -> subprocess.CompletedProcess[str]:
    ports = {f"HTTP_PORT_{node_id}": str(port) for node_id, port in cluster.ports.items()}
    environ = {**os.environ, **ports, "COMPOSE": "false"}
    return subprocess.run(["bash", VERIFY, *criteria], env=environ, capture_output=True, text=True, check=False)


async def say(cluster: Cluster, message_id: str) -> None:
    leader = await cluster.find_leader()
    body = {"id": message_id, "role": "user", "content": "tea at noon"}
    answer = await ask(cluster.ports[leader], "POST", "/sessions/s1/messages", body, timeout_s=10)
    assert answer is not None
    assert answer.status == 204, answer.body


@pytest.mark.thorough
@pytest.mark.timeout(400)
async def test_equal_nodes_pass_and_the_read_model_of_one_that_is_not_is_named(tmp_path: Path) -> None:
    async with Cluster.running(tmp_path, Plan(heartbeat_ms=50, election_ms=300), random.Random(1)) as cluster:
        await say(cluster, "m1")
        equal = await asyncio.to_thread(verify, cluster, "digests")
        file = cluster.nodes[3].data / "projections.db"
        await asyncio.to_thread(alter, file, "UPDATE contents SET text = 'tea at one'")
        await say(cluster, "m2")  # digests are taken when something is new
        altered = await asyncio.to_thread(verify, cluster, "digests")

    assert (equal.returncode, altered.returncode) == (0, 1), equal.stdout + altered.stdout
    assert "PASS  digests        7 read models are the same on all three at index " in equal.stdout
    assert "FAIL  digests        messages of node 3 is not that of node 1 at index " in altered.stdout


def test_another_criterion_alone_is_refused() -> None:
    outcome = subprocess.run(["bash", VERIFY, "failover"], capture_output=True, text=True, check=False)

    assert outcome.returncode == 2
    assert "it takes 'digests', or nothing: not 'failover'" in outcome.stderr
