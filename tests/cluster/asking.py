"""One request at a time to whichever node, with a limit of time: what an operator does, not what a client does."""

import asyncio
from typing import Any

import msgspec

from benchmarks.connection import Answer, Connection, build_request

ASK_S = 2.0


class AnswerError(AssertionError):
    """A node answered what it must not."""


async def ask(port: int, method: str, path: str, body: object = None, *, timeout_s: float = ASK_S) -> Answer | None:
    """Send one request over a connection of its own; None when no answer comes."""
    try:
        async with asyncio.timeout(timeout_s), Connection.to(port) as connection:
            return await connection.ask(build_request(method, path, body))
    except (OSError, TimeoutError):
        return None


async def ask_json(port: int, path: str, *, timeout_s: float = ASK_S) -> dict[str, Any] | None:
    """Return what a GET answers, None unless that is 200 and JSON."""
    answer = await ask(port, "GET", path, timeout_s=timeout_s)
    if answer is None or answer.status != 200:
        return None
    content: dict[str, Any] = msgspec.json.decode(answer.body)
    return content


def header(answer: Answer, name: bytes) -> bytes | None:
    """Return a header of an answer; `name` in lower case."""
    start = answer.head.lower().find(b"\r\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 3
    return answer.head[start : answer.head.index(b"\r\n", start)].strip()


def told(answer: Answer | None) -> str:
    """Return an answer in words, for a message."""
    return "no answer" if answer is None else f"{answer.status}: {answer.body[:500].decode(errors='replace')}"
