import asyncio
import socket

import pytest
from aiohttp import ClientConnectionError, ClientSession

from engram.api.app import build
from engram.api.server import HttpServer
from tests.api.node import Node
from tests.api.wire import read_answer, request


def served(node: Node, host: str, *, stop_s: float = 1) -> HttpServer:
    return HttpServer(build(node.services()), host=host, port=0, stop_s=stop_s)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]"])
async def test_it_listens_on_names_and_on_addresses_of_both_families(node: Node, host: str) -> None:
    if ":" in host and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    server = served(node, host)
    await server.start()
    try:
        async with ClientSession() as client:
            assert (await client.get(f"{server.url}/health")).status == 200
    finally:
        await server.stop()


async def test_a_taken_port_is_an_error_of_the_start(node: Node) -> None:
    first = served(node, "127.0.0.1")
    await first.start()
    second = HttpServer(build(node.services()), host="127.0.0.1", port=first.port)

    with pytest.raises(OSError, match="address already in use"):
        await second.start()

    await second.stop()
    await first.stop()


async def test_stopping_finishes_what_is_in_flight_and_accepts_nothing_more(node: Node) -> None:
    server = served(node, "127.0.0.1", stop_s=5)
    await server.start()
    node.may_erase.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request("DELETE", "/sessions/s1"))
    await node.waited_on.wait()

    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(server.stop())
        await asyncio.sleep(0)
        async with ClientSession() as client:
            with pytest.raises(ClientConnectionError):
                await client.get(f"{server.url}/health")
        assert not stopping.done()
        node.may_erase.set()

    assert (await read_answer(reader)).status == 204
    assert await reader.read() == b""
    writer.close()


async def test_stopping_does_not_wait_for_idle_connections(node: Node) -> None:
    server = served(node, "127.0.0.1", stop_s=60)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request("GET", "/health"))
    assert (await read_answer(reader)).status == 200

    async with asyncio.timeout(5):
        await server.stop()

    assert await reader.read() == b""
    writer.close()


async def test_a_server_that_never_started_stops(node: Node) -> None:
    await served(node, "127.0.0.1").stop()
