"""gRPC, at both ends: connections that are dialled, and the server that is. Only bytes pass, and one kind of error."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias

import grpc
import grpc.aio

from engram.errors import ConfigError
from engram.log.handshake import Refusal
from engram.log.peer import MESSAGE_BYTES_MAX, Stream, StreamError

FRAME_BYTES_MAX = MESSAGE_BYTES_MAX + 64 * 1024

STREAMS_MAX = 256
"""Streams that come in at the same time, those of dead nodes and of strangers included."""

REFUSAL_KEY = "engram-refusal"

_SERVICE = "engram.log.RaftTransport"

_BOTH_ENDS = (
    ("grpc.max_receive_message_length", FRAME_BYTES_MAX),
    ("grpc.max_send_message_length", FRAME_BYTES_MAX),
    # Raft's heartbeats notice a dead node sooner; these end the stream of one, and keep firewalls awake.
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)

_SERVER = (
    *_BOTH_ENDS,
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),  # the default, 5 minutes, would end our own streams
    ("grpc.so_reuseport", 0),  # two nodes on one port is a mistake to hear of
)

_CLIENT = (
    *_BOTH_ENDS,
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),  # http_proxy in the environment is not about peers
    ("grpc.use_local_subchannel_pool", 1),  # else a new channel inherits the back-off of the old one
    ("grpc.min_reconnect_backoff_ms", 1_000),  # despite its name, how long one attempt to connect may take
)

_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


@asynccontextmanager
async def dial(address: str, method: str) -> AsyncIterator[Stream]:
    """Open a stream to `address`; a new connection each time, so that gRPC's own back-off never gets to count."""
    async with grpc.aio.insecure_channel(address, options=_CLIENT) as channel:
        yield _Dialled(channel.stream_stream(f"/{_SERVICE}/{method}")())


async def ask(address: str, method: str, request: bytes, timeout_s: float) -> bytes:
    """Return the one answer to `request`, over a connection of its own.

    Raises:
        StreamError: There was none within `timeout_s`.
    """
    async with grpc.aio.insecure_channel(address, options=_CLIENT) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{_SERVICE}/{method}")
        with _one_error():
            answer = await call(request, timeout=timeout_s)
    return answer


class Incoming:
    """The server's end of a stream. Every method raises StreamError once it is broken."""

    def __init__(self, context: _Context) -> None:
        self._context = context

    async def read(self) -> bytes | None:
        """Return the next frame; None at the end of the stream."""
        with _gone(), _one_error():
            frame: object = await self._context.read()
        return frame if isinstance(frame, bytes) else None

    async def write(self, frame: bytes) -> None:
        """Answer with `frame`."""
        with _gone(), _one_error():
            await self._context.write(frame)

    async def refuse(self, refusal: Refusal, detail: str) -> None:
        """End the stream and say why; raises what gRPC wants to see raised."""
        await self._context.abort(
            grpc.StatusCode.FAILED_PRECONDITION, detail, trailing_metadata=((REFUSAL_KEY, refusal),)
        )


Serve: TypeAlias = Callable[[Incoming], Awaitable[None]]


class Server:
    """What listens at an address.

    Args:
        streams: What takes a stream, by the name of its method.
        answers: What answers a request, likewise.
    """

    def __init__(self, streams: Mapping[str, Serve], answers: Mapping[str, Callable[[bytes], bytes]]) -> None:
        self._server = grpc.aio.server(options=_SERVER, maximum_concurrent_rpcs=STREAMS_MAX)
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
        for method, serve in streams.items():
            handlers[method] = _stream_handler(serve)
        for method, answer in answers.items():
            handlers[method] = _answer_handler(answer)
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, handlers)])

    async def start(self, address: str) -> int:
        """Listen at `address`, and return the port.

        Raises:
            ConfigError: That is not possible.
        """
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ConfigError(f"cannot listen at {address}: {error}") from error
        await self._server.start()
        return port

    async def stop(self) -> None:
        """Cancel every stream, and listen no more."""
        await self._server.stop(None)


def _stream_handler(serve: Serve) -> "grpc.RpcMethodHandler[bytes, bytes]":
    async def handle(_: AsyncIterator[bytes], context: _Context) -> None:
        await serve(Incoming(context))

    return grpc.stream_stream_rpc_method_handler(handle)


def _answer_handler(answer: Callable[[bytes], bytes]) -> "grpc.RpcMethodHandler[bytes, bytes]":
    async def handle(request: bytes, _: _Context) -> bytes:
        return answer(request)

    return grpc.unary_unary_rpc_method_handler(handle)


class _Dialled:
    """The client's end of a stream."""

    def __init__(self, call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> None:
        self._call = call

    @property
    def is_over(self) -> bool:
        return self._call.done()

    def on_end(self, callback: Callable[[], None]) -> None:
        self._call.add_done_callback(lambda _: callback())

    async def read(self) -> bytes:
        with _one_error():
            frame: object = await self._call.read()
        if not isinstance(frame, bytes):
            raise StreamError("the other end closed the stream")
        return frame

    async def write(self, frame: bytes) -> None:
        try:
            with _one_error():
                await self._call.write(frame)
        except asyncio.InvalidStateError:  # it ended before this was written; why is known
            await self.check()
            raise StreamError("the other end closed the stream") from None

    async def finish(self) -> None:
        with _one_error():
            await self._call.done_writing()

    async def check(self) -> None:
        code = await self._call.code()
        if code is not grpc.StatusCode.OK:
            raise _stream_error(code, await self._call.details(), await self._call.trailing_metadata())


@contextmanager
def _one_error() -> Iterator[None]:
    """Gather gRPC's many ways to fail."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise _stream_error(error.code(), error.details(), error.trailing_metadata()) from None
    except grpc.aio.BaseError as error:
        raise StreamError(repr(error)) from error


@contextmanager
def _gone() -> Iterator[None]:
    try:
        yield
    except asyncio.InvalidStateError:
        raise StreamError("the other end is gone") from None


def _stream_error(code: grpc.StatusCode, details: str | None, metadata: grpc.aio.Metadata | None) -> StreamError:
    reason = metadata.get(REFUSAL_KEY) if metadata is not None else None
    refusal = Refusal(reason) if isinstance(reason, str) and reason in set(Refusal) else None
    return StreamError(f"{code.name}: {details}" if refusal is None else str(details), refusal)
