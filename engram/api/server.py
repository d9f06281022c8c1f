"""Serving the application over HTTP/1.1, and stopping without losing what is in flight."""

import asyncio
import logging
from asyncio import AbstractEventLoop

from aiohttp import http_exceptions, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from engram.api.app import Application
from engram.api.errors import MalformedError
from engram.api.open_streams import ENDLESS

_log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75.0
"""An idle connection, or one that does not finish the head of its request, is closed after this."""

LINGER_S = 2.0
"""How long the rest of a refused body is read, so that its sender gets to see the answer."""

HEAD_LINE_BYTES_MAX = 8190
"""The request line, and each header: room for two ids in percent-encoding."""


class Connection(web.RequestHandler):
    """One client; says in our own words what cannot be parsed."""

    __slots__ = ("_application", "_latest")

    def __init__(self, application: Application, server: web.Server, loop: AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=KEEP_ALIVE_S,
            lingering_time=LINGER_S,
            access_log=None,  # type: ignore[arg-type]  # the documented way to switch it off
            auto_decompress=False,
            max_line_size=HEAD_LINE_BYTES_MAX,
            max_field_size=HEAD_LINE_BYTES_MAX,
        )
        self._application = application
        self._latest: web.BaseRequest | None = None

    def make_request(
        self, message: RawRequestMessage, payload: StreamReader, writer: AbstractStreamWriter, task: asyncio.Task[None]
    ) -> web.BaseRequest:
        """Return the request that is served next on this connection."""
        self._latest = web.BaseRequest(message, payload, self, writer, task, self._loop)
        return self._latest

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio takes a bool, aiohttp says None
        """Keep the connection for the answer when the client has only closed its own side.

        A body that will never be complete is an error of its request, not a connection lost.
        """
        idle = self._waiter is not None and not self._waiter.done()
        if idle or self._request_count == 0:
            return False
        if self._latest is not None and ENDLESS in self._latest:
            return False  # who takes a stream that never ends closes neither side before it goes
        self.close()  # after the answer
        answered = self._latest is not None and self._latest.writer.output_size > 0
        waiting = [payload for _, payload in self._messages]
        for payload in [*([self._latest.content] if self._latest is not None else []), *waiting]:
            if not payload.is_eof():
                if not answered:
                    payload.set_exception(web.RequestPayloadError("closed before its end"))
                payload.feed_eof()
        return True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002 - the error says it better
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - ours says more
    ) -> web.StreamResponse:
        """Answer what aiohttp could not make a request of."""
        _log.debug("unreadable request", extra={"reason": type(exc).__name__})
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun")
        return self._application.refuse_unread(_explain(exc))


class Server(web.Server):
    """Makes a `Connection` for each client."""

    def __init__(self, application: Application) -> None:
        super().__init__(application, request_factory=_make_request)
        self._application = application

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self._application, self, asyncio.get_running_loop())


def _make_request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    assert isinstance(protocol, Connection)
    return protocol.make_request(message, payload, writer, task)


class HttpServer:
    """The application on one address."""

    def __init__(self, application: Application, *, host: str, port: int, stop_s: float = 10.0) -> None:
        """Prepare to serve on `host`, a name or an address of either family, brackets allowed; port 0: any free one.

        `stop_s` is how long requests in flight may take once the server is stopping.
        """
        self._application = application
        self._host = host.removeprefix("[").removesuffix("]")
        self._port = port
        self._stop_s = stop_s
        self._runner: web.ServerRunner | None = None
        self._site: web.TCPSite | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port if self._site is None else self._site.port

    @property
    def url(self) -> str:
        """Where it is reached."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The address cannot be bound.
        """
        runner = web.ServerRunner(Server(self._application), shutdown_timeout=self._stop_s)
        await runner.setup()
        self._runner = runner
        site = web.TCPSite(runner, self._host, self._port, backlog=1024)
        await site.start()
        self._site = site

    async def stop(self) -> None:
        """Stop accepting, let what is in flight finish within the deadline, then close every connection."""
        self._application.end_streams()
        if self._runner is not None:
            await self._runner.cleanup()


def _explain(exc: BaseException | None) -> MalformedError:
    match exc:
        case http_exceptions.LineTooLong():
            return MalformedError(
                f"the request line or a header has more than {HEAD_LINE_BYTES_MAX} bytes", code="headers_too_large"
            )
        case http_exceptions.InvalidHeader():
            return MalformedError("a header is not well-formed", code="malformed_request")
        case http_exceptions.InvalidURLError():
            return MalformedError("the request target is not a URL", code="malformed_request")
        case http_exceptions.BadHttpMethod():
            return MalformedError("the method is unknown, or this is not HTTP", code="malformed_request")
        case _:
            return MalformedError("this is not an HTTP/1.1 request", code="malformed_request")
