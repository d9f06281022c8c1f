"""A server on a free port, in front of a node on a log in memory, and a client for it."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from engram.api.app import build
from engram.api.server import HttpServer
from tests.api.fake_cluster import FakeCluster
from tests.api.node import Node, running_node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with running_node(tmp_path) as node:
        yield node


@pytest.fixture
def cluster(node: Node) -> FakeCluster:
    """Make the node one of a cluster; ask for it before `server` or `http`."""
    node.cluster = FakeCluster()
    return node.cluster


@pytest.fixture
async def server(node: Node) -> AsyncIterator[HttpServer]:
    server = HttpServer(build(node.services()), host="127.0.0.1", port=0, stop_s=1)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def http(server: HttpServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url) as client:
        yield client
