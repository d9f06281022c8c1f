"""The network loses what it is told to lose, and nothing else."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from tests.cluster.proxy import Network
from tests.cluster.sockets import find_dialler, find_lasting_ports

WAIT_S = 5.0
SILENCE_S = 0.1
"""Long enough for anything on its way within one machine."""

DIALLER, LISTENER = 1, 2


@dataclass
class Listening:
    """What node 2 hears and says; it says what it hears."""

    heard: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            self.heard.append(data)
            writer.write(data)
        writer.close()


@dataclass
class Pair:
    """Two nodes and the network between them: this process dials as node 1."""

    network: Network
    ingress_port: int
    listening: Listening

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.ingress_port)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    ports = find_lasting_ports(random.Random())
    port, ingress_port = next(ports), next(ports)

    def dialler(near: int, to: int) -> int | None:
        return find_dialler([(DIALLER, os.getpid())], from_port=near, to_port=to)

    listening = Listening()
    server = await asyncio.start_server(listening.serve, "127.0.0.1", port)
    async with Network(dialler) as network:
        await network.open(LISTENER, ingress_port=ingress_port, port=port)
        yield Pair(network, ingress_port, listening)
    server.close()


async def read(reader: asyncio.StreamReader, size_bytes: int) -> bytes:
    async with asyncio.timeout(WAIT_S):
        return await reader.readexactly(size_bytes)


async def hears_nothing(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(SILENCE_S):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def test_what_is_said_arrives_both_ways(pair: Pair) -> None:
    reader, writer = await pair.dial()
    said = random.Random(1).randbytes(5_000_000)

    async with asyncio.TaskGroup() as group:
        back = group.create_task(read(reader, len(said)))
        writer.write(said)
        await writer.drain()

    assert back.result() == said
    writer.close()


async def test_a_cut_holds_what_is_said_and_healing_lets_it_flow(pair: Pair) -> None:
    reader, writer = await pair.dial()
    writer.write(b"before")
    await read(reader, 6)

    pair.network.cut(DIALLER, LISTENER)
    writer.write(b"during")

    assert await hears_nothing(reader)
    assert pair.listening.heard == [b"before"]
    pair.network.heal(reset=False)
    assert await read(reader, 6) == b"during"
    writer.close()


async def test_a_cut_one_way_lets_the_other_way_through(pair: Pair) -> None:
    reader, writer = await pair.dial()
    writer.write(b"before")
    await read(reader, 6)

    pair.network.cut(LISTENER, DIALLER)
    writer.write(b"during")

    assert await hears_nothing(reader)
    assert b"".join(pair.listening.heard) == b"beforeduring"
    pair.network.heal(reset=False)
    assert await read(reader, 6) == b"during"
    writer.close()


async def test_healing_can_break_the_connections_that_were_cut(pair: Pair) -> None:
    reader, writer = await pair.dial()
    writer.write(b"before")
    await read(reader, 6)
    pair.network.cut(DIALLER, LISTENER)

    pair.network.heal(reset=True)

    async with asyncio.timeout(WAIT_S):
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
    writer.close()


async def test_a_connection_made_during_a_cut_is_answered_after_it(pair: Pair) -> None:
    pair.network.cut(LISTENER, DIALLER)
    reader, writer = await pair.dial()
    writer.write(b"hello")

    assert await hears_nothing(reader)
    assert pair.listening.heard == []
    pair.network.heal(reset=False)
    assert await read(reader, 5) == b"hello"
    writer.close()


async def test_the_end_of_a_connection_passes_but_not_through_a_cut(pair: Pair) -> None:
    reader, writer = await pair.dial()
    other_reader, other_writer = await pair.dial()
    for each in (writer, other_writer):
        each.write(b"hello")
    await read(reader, 5)
    await read(other_reader, 5)

    writer.close()
    assert await reader.read() == b""
    pair.network.cut(DIALLER, LISTENER)
    other_writer.write_eof()

    assert await hears_nothing(other_reader)
    pair.network.heal(reset=False)
    async with asyncio.timeout(WAIT_S):
        assert await other_reader.read() == b""
    other_writer.close()


async def test_whoever_is_no_node_is_hung_up_on() -> None:
    ports = find_lasting_ports(random.Random())
    port, ingress_port = next(ports), next(ports)
    async with Network(lambda near, to: find_dialler([], from_port=near, to_port=to)) as network:
        await network.open(LISTENER, ingress_port=ingress_port, port=port)
        reader, writer = await asyncio.open_connection("127.0.0.1", ingress_port)

        async with asyncio.timeout(WAIT_S):
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
        writer.close()


async def test_a_node_that_does_not_listen_refuses(pair: Pair) -> None:
    ports = find_lasting_ports(random.Random())
    port, ingress_port = next(ports), next(ports)
    await pair.network.open(3, ingress_port=ingress_port, port=port)

    reader, writer = await asyncio.open_connection("127.0.0.1", ingress_port)

    async with asyncio.timeout(WAIT_S):
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
    writer.close()
