"""The stream of events over real nodes that are killed: from whichever node it is taken up, nothing is missed or doubled."""

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from tests.cluster.asking import ask, header
from tests.cluster.cluster_process import Cluster, Plan
from tests.cluster.waiting import pause

WRITES = 40
"""Of each phase."""


async def write(cluster: Cluster, numbers: range) -> None:
    """Write messages one after the other, each until it is acknowledged, at whichever node leads."""
    ports = itertools.cycle(list(cluster.ports.values()))
    port = next(ports)
    for number in numbers:
        message = {"role": "user", "content": f"text {number}", "id": f"m{number}"}
        while True:
            answer = await ask(port, "POST", "/sessions/s/messages", message)
            if answer is not None and answer.status == 204:
                break
            location = None if answer is None else header(answer, b"location")
            port = int(location.split(b":")[2].split(b"/")[0]) if location else next(ports)
            await pause(0.02)


class Reader:
    """Takes the stream, and takes it up again at another node when it breaks off."""

    def __init__(self, cluster: Cluster, node_id: int) -> None:
        self.node_id = node_id
        self.ids: list[str] = []
        self.messages: list[str] = []
        self._cluster = cluster

    async def read_until(self, message_id: str) -> None:
        """Read on until an event is about that message."""
        while message_id not in self.messages:
            with suppress(aiohttp.ClientError, TimeoutError):
                async for event_id, data in self._events():
                    self.ids.append(event_id)
                    if data["type"] == "MessageAppended":
                        self.messages.append(data["message_id"])
                    if message_id in self.messages:
                        return
            others = [node_id for node_id in self._cluster.ports if node_id != self.node_id]
            self.node_id = others[len(self.ids) % len(others)]
            await pause(0.05)

    async def _events(self) -> AsyncIterator[tuple[str, dict[str, str]]]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self.ids[-1]} if self.ids else {})
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=20)
        url = f"http://127.0.0.1:{self._cluster.ports[self.node_id]}/events?after=0"
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url, headers=headers) as answer:
            event_id = ""
            async for raw in answer.content:
                name, _, value = raw.decode().rstrip("\n").partition(": ")
                if name == "id":
                    event_id = value
                elif name == "data":
                    yield event_id, json.loads(value)


@pytest.mark.thorough
@pytest.mark.timeout(150)
async def test_a_stream_misses_nothing_and_doubles_nothing_over_two_failovers(tmp_path: Path) -> None:
    plan = Plan(heartbeat_ms=50, election_ms=300)
    async with Cluster.running(tmp_path, plan, random.Random(5)) as cluster:
        leader_id = await cluster.find_leader()
        reader = Reader(cluster, next(node_id for node_id in cluster.ports if node_id != leader_id))
        async with asyncio.TaskGroup() as group:
            group.create_task(reader.read_until(f"m{3 * WRITES - 1}"))
            await write(cluster, range(WRITES))
            await cluster.nodes[leader_id].kill_now()
            await write(cluster, range(WRITES, 2 * WRITES))
            await cluster.launch(leader_id)
            await cluster.wait_caught_up(leader_id, await cluster.find_leader())
            await cluster.nodes[reader.node_id].kill_now()
            await write(cluster, range(2 * WRITES, 3 * WRITES))

    assert reader.messages == [f"m{number}" for number in range(3 * WRITES)]
    places = [tuple(map(int, event_id.replace("/", ".").split("."))) for event_id in reader.ids]
    assert len(set(places)) == len(places)
    assert [place[0] for place in places] == sorted(place[0] for place in places)
