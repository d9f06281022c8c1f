"""Three engram nodes on one machine, as the benchmarks ask them: with the settings of a node that has none."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.cluster_load import Nodes, Turn, message_id
from benchmarks.connection import Answer, build_request, session_path
from engram import settings
from tests.cluster.asking import ask, header
from tests.cluster.cluster_process import Cluster, Plan
from tests.cluster.waiting import wait_until

START_S_MAX = 60.0
NOT_FOUND = 404

PLAN = Plan(heartbeat_ms=settings.HEARTBEAT_MS.default, election_ms=settings.ELECTION_MS.default)


class Engram:
    """What is asked of engram."""

    name = "engram"

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator[Nodes]:
        """Run three nodes; entered once each has opened everything that it opens.

        Raises:
            AnswerError: A node ended, or refused to be part of a cluster.
            NeverError: They were not ready in time.
        """
        async with Cluster.running(folder, PLAN, random.Random()) as cluster:
            ports = {node.node_id: node.port for node in cluster.nodes.values()}
            for port in ports.values():
                await _wait_settled(port)

            async def find_leader() -> int:
                return ports[await cluster.find_leader()]

            yield Nodes({node.port: node.pid for node in cluster.nodes.values()}, find_leader)

    def write(self, session_id: str, number: int, turn: Turn) -> bytes:  # noqa: ARG002
        """Return the request that stores one message."""
        return build_request("POST", session_path(session_id, "/messages"), turn)

    def write_batch(self, session_id: str, first: int, turns: Sequence[Turn]) -> bytes:  # noqa: ARG002
        """Return the request that stores all of `turns` or none."""
        return build_request("POST", session_path(session_id, "/messages"), {"messages": turns})

    def read(self, session_id: str, number: int, *, linearizable: bool) -> bytes:
        """Return the request that reads one message, from what the node has unless `linearizable`."""
        return _read(session_id, number, "consistency=linearizable" if linearizable else "consistency=local")

    def read_after(self, session_id: str, number: int, acknowledged: Answer) -> bytes:
        """Return the request that reads one message by whoever got `acknowledged` for writing it."""
        index = header(acknowledged, b"engram-index")
        assert index is not None, "every answer has it"
        return _read(session_id, number, f"min_index={index.decode()}")

    def is_missing(self, answer: Answer) -> bool:
        """Return whether `answer`, to a read, says that there is no such message."""
        return answer.status == NOT_FOUND


async def _wait_settled(port: int) -> None:
    """Wait until the long-term store, which a node opens after it is ready, is open too."""

    async def is_open() -> bool:
        answer = await ask(port, "GET", "/ready")
        return answer is not None and b'"ready":false' not in answer.body

    await wait_until(is_open, f"all that the node at {port} stands on is ready", within_s=START_S_MAX, every_s=0.1)


def _read(session_id: str, number: int, query: str) -> bytes:
    return build_request("GET", session_path(session_id, f"/messages/{message_id(number)}?{query}"))
