"""What a command sends to a running node, and takes from it, as a stream."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import aiohttp
import msgspec

from engram.api.schemas import Problem
from engram.errors import EngramError

CONNECT_S = 5.0
SILENCE_S = 60.0
"""A node that sends nothing for so long, in the middle of an answer, has failed."""


View = TypeVar("View")


class RemoteError(EngramError):
    """What a node refused, and why; or that there is none where one was looked for."""


@asynccontextmanager
async def stream_from(url: str, path: str) -> AsyncIterator[AsyncGenerator[bytes]]:
    """GET a path of the node at `url`, and give its answer as it comes.

    Raises:
        RemoteError: It does not answer, refuses, or breaks off.
    """
    timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=SILENCE_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as client, client.get(url + path) as answer:
            if not answer.ok:
                raise refusal(url, answer.status, await answer.read())
            async with aclosing(_parts(answer, url)) as parts:
                yield parts
    except (aiohttp.ClientError, OSError) as error:
        raise RemoteError(f"no node answers at {url}{path}: {str(error) or type(error).__name__}") from None


def refusal(url: str, status: int, data: bytes) -> RemoteError:
    """Return the error for an answer that is no success."""
    try:
        problem = msgspec.json.decode(data, type=Problem)
    except msgspec.MsgspecError:
        return RemoteError(f"what answers at {url} with status {status} is no engram node")
    return RemoteError(f"{problem.detail} ({problem.code})")


def decoded(url: str, data: bytes, kind: type[View]) -> View:
    """Return what the node at `url` said, as one of the API's types.

    Raises:
        RemoteError: That is none: something else answers there.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError:
        raise RemoteError(f"what answers at {url} is no engram node") from None


async def _parts(answer: aiohttp.ClientResponse, url: str) -> AsyncGenerator[bytes]:
    try:
        async for part in answer.content.iter_any():
            yield part
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RemoteError(f"the answer of {url} broke off: {str(error) or type(error).__name__}") from None
