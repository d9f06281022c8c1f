"""An HTTP/1.1 client that costs little, because it shares the machine with the server that it measures.

One connection, kept alive, one request at a time; requests are bytes made beforehand. It reads the status, the
headers and a body by Content-Length, which is all that engram sends, or in chunks, which etcd sends.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple, Self, cast
from urllib.parse import quote

import msgspec

HEAD_END = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length:"
CHUNKED = b"\r\ntransfer-encoding: chunked\r\n"


class Answer(NamedTuple):
    """A response: `body` as it came."""

    status: int
    head: bytes
    body: bytes


def build_request(method: str, path: str, body: object = None) -> bytes:
    """Return the bytes of a request; `body` is sent as JSON."""
    data = b"" if body is None else msgspec.json.encode(body)
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}"]
    if body is not None:
        lines.append("Content-Type: application/json")
    return "\r\n".join([*lines, "", ""]).encode() + data


def session_path(session_id: str, rest: str = "") -> str:
    """Return the path of a session, or of something below it."""
    return f"/sessions/{quote(session_id, safe='')}{rest}"


class Connection(asyncio.Protocol):
    """A connection to one server."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._received = bytearray()

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int) -> AsyncIterator[Self]:
        """Connect to 127.0.0.1 and hang up at the end.

        Raises:
            OSError: Nobody listens there.
        """
        connection = await cls.open(port)
        try:
            yield connection
        finally:
            connection.close()

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connect to 127.0.0.1.

        Raises:
            OSError: Nobody listens there.
        """
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    async def ask(self, request: bytes) -> Answer:
        """Send `request` and return its answer.

        Raises:
            ConnectionError: The server went away; whether it acted on the request is unknown.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one, but does not say so

    def data_received(self, data: bytes) -> None:
        self._received += data
        answer = _parse(self._received)
        if answer is not None and self._answer is not None and not self._answer.done():
            self._received.clear()
            self._answer.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        reason = f": {exc}" if exc else ""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError(f"the server hung up{reason}"))


def _parse(received: bytearray) -> Answer | None:
    """Return the answer when all of it is there."""
    end = received.find(HEAD_END)
    if end < 0:
        return None
    head = bytes(received[: end + 2])
    body = _body(received, head.lower(), end + len(HEAD_END))
    return None if body is None else Answer(int(head[9:12]), head, body)


def _body(received: bytearray, head: bytes, start: int) -> bytes | None:
    at = head.find(LENGTH)
    if at < 0 and CHUNKED in head:
        return _chunks(received, start)
    length = int(head[at + len(LENGTH) : head.index(b"\r\n", at + 2)]) if at >= 0 else 0
    return None if len(received) < start + length else bytes(received[start : start + length])


def _chunks(received: bytearray, start: int) -> bytes | None:
    """Return the body that stands there in chunks, each behind its size in hexadecimal; the last has none."""
    body = bytearray()
    while (end := received.find(b"\r\n", start)) >= 0:
        size = int(received[start:end], 16)
        start = end + 2 + size + 2
        if len(received) < start:
            return None
        if size == 0:
            return bytes(body)
        body += received[end + 2 : end + 2 + size]
    return None
