"""Answers that are sent while they are made: a part at a time, as fast as the client takes them."""

import asyncio
import logging
from contextlib import aclosing

from aiohttp import hdrs, web

from engram.api.middleware import INDEX, REQUEST_ID, SERVER
from engram.api.replies import Stream
from engram.errors import EngramError

STALLED_S = 60.0
"""A client that takes nothing for so long is gone, or holds up what others could use."""

_log = logging.getLogger(__name__)


async def send(stream: Stream, request: web.BaseRequest, *, request_id: str, read_index: int) -> web.StreamResponse:
    """Send `stream` and return the response, of which nothing is left to be sent.

    What goes wrong before the first part is raised as it is, and answered as usual. Later the connection is cut, so that
    the client does not take what it has for all.

    Raises:
        ConnectionError: The client is gone, or something went wrong after the answer had begun.
    """
    headers = {
        **stream.headers,
        hdrs.CONTENT_TYPE: stream.content_type,
        INDEX: str(read_index),
        REQUEST_ID: request_id,
        hdrs.SERVER: SERVER,
    }
    response = web.StreamResponse(status=200, reason="OK", headers=headers)
    async with aclosing(stream.parts) as parts:
        first = await anext(parts, b"")
        await response.prepare(request)
        if request.method == hdrs.METH_HEAD:
            return response
        try:
            await _write(response, first)
            async for part in parts:
                await _write(response, part)
        except (EngramError, TimeoutError) as error:
            _log.warning("an answer broke off", extra={"request_id": request_id, "reason": str(error) or "stalled"})
            raise ConnectionError("the answer broke off") from error
    await response.write_eof()
    return response


async def _write(response: web.StreamResponse, part: bytes) -> None:
    if part:
        async with asyncio.timeout(STALLED_S):
            await response.write(part)
