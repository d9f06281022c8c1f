"""HTTP by hand, for what no client library would send."""

import asyncio
from typing import Any, NamedTuple

import msgspec

from engram.api.server import HttpServer


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


async def exchange(server: HttpServer, data: bytes, *, half_close: bool = False) -> Answer:
    """Send `data` and return the first answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(data)
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(5):
            return await read_answer(reader)
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Return the next answer, interim ones skipped."""
    head = await reader.readuntil(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
    status = int(status_line.split()[1])
    if status < 200:
        return await read_answer(reader)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(status, headers, await reader.readexactly(int(headers.get("content-length", 0))))


def request(method: str, target: str, body: bytes = b"", *, headers: str = "") -> bytes:
    """Return the bytes of a request with a JSON body."""
    about = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    return f"{method} {target} HTTP/1.1\r\nHost: engram\r\n{about}{headers}\r\n".encode() + body
