"""The client that the benchmarks and drills share reads an answer as a whole, however it is sent and cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.connection import Answer, Connection, build_request

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"


@asynccontextmanager
async def answering(*parts: bytes) -> AsyncIterator[int]:
    """Answer every request with the same bytes, in these parts; the port is given."""
    opened: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        while await reader.read(4096):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        for writer in opened:
            writer.close()
            await writer.wait_closed()


async def ask_twice(port: int) -> list[Answer]:
    async with Connection.to(port) as connection:
        return [await connection.ask(build_request("GET", "/")) for _ in range(2)]


@pytest.mark.parametrize("sent", [LENGTH, CHUNKED], ids=["by length", "in chunks"])
async def test_a_body_is_read_whole(sent: bytes) -> None:
    async with answering(sent) as port:
        answers = await ask_twice(port)

    assert [(answer.status, answer.body) for answer in answers] == [(200, b"hello world")] * 2


@pytest.mark.parametrize("cut", range(1, len(CHUNKED)))
async def test_chunks_may_be_cut_anywhere(cut: int) -> None:
    async with answering(CHUNKED[:cut], CHUNKED[cut:]) as port:
        answers = await ask_twice(port)

    assert [answer.body for answer in answers] == [b"hello world"] * 2


async def test_an_answer_may_have_no_body() -> None:
    async with answering(EMPTY) as port:
        answers = await ask_twice(port)

    assert [(answer.status, answer.body) for answer in answers] == [(204, b"")] * 2
