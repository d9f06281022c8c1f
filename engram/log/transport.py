"""Messages between nodes: one gRPC stream for each direction, opened by whoever has something to say.

Nothing is retried and nothing is promised but order within one stream: the core sends again what it misses. Everything
that waits for a node goes into one frame, since a frame costs far more than a message. While a node is away, what is
for it waits for the next attempt to reach it and no longer.

All of it lives on one loop, and only `Listener.received` may wait; while it does, the sender is held up, first by the
flow control of HTTP/2 and then by its own full outbox.

Snapshots do not travel here. They will have an rpc and a channel of their own, so that they hold up no heartbeat.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

import grpc
import grpc.aio

from engram.errors import ConfigError
from engram.log import codec
from engram.log.codec import Hello, MalformedError, Welcome
from engram.log.consensus.types import Message, MessageType
from engram.log.handshake import Doorkeeper, Identity, Refusal, RefusedError, check_batch
from engram.log.peer import MESSAGE_BYTES_MAX, Options, Peer, PeerStatus, Stream, StreamError

FRAME_BYTES_MAX = MESSAGE_BYTES_MAX + 64 * 1024

STREAMS_MAX = 256
"""Streams that come in at the same time, those of dead nodes and of strangers included."""

REFUSAL_KEY = "engram-refusal"

_SERVICE, _METHOD = "engram.log.RaftTransport", "Messages"

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


class Listener(Protocol):
    """Who the messages are for. A method that raises stops the transport: `run` raises what it raised."""

    async def received(self, messages: Sequence[Message]) -> None:
        """Take messages of one node, in the order they were sent. Cancelled if the stream breaks meanwhile."""

    def broken(self, node_id: int) -> None:
        """Note that the stream to `node_id` ended, and messages to it may be lost: its process may be gone."""

    def unreachable(self, node_id: int) -> None:
        """Note that messages to `node_id` were dropped."""

    def stranger(self, node_id: int, address: str) -> bool:
        """Return whether `node_id`, which is not a peer, may send. It may have been added while this node was away.

        Adding it here, with its address, lets it be answered.
        """


class Transport:
    """The sending and the receiving side of one node.

    Args:
        identity: Stated on every stream.
        listen: host:port; port 0 takes a free one.
        listener: Gets what arrives.
        rng: For the jitter of the back-off.
        options: Limits.
    """

    def __init__(
        self, identity: Identity, *, listen: str, listener: Listener, rng: random.Random, options: Options | None = None
    ) -> None:
        self.port = 0
        """Where it listens, once it is ready."""
        self.refused: Counter[Refusal] = Counter()
        """Streams that came in and were refused, or ended for what they brought."""
        self.unaddressed = 0
        """Messages for nodes that are no peers."""
        self._identity = identity
        self._listen = listen
        self._listener = listener
        self._rng = rng
        self._options = options or Options()
        self._door = Doorkeeper(identity)
        self._peers: dict[int, Peer] = {}
        self._streams = 0
        self._group: asyncio.TaskGroup | None = None
        self._failure: Exception | None = None
        self._is_ready = asyncio.Event()
        self._is_stopping = asyncio.Event()
        self._is_over = asyncio.Event()

    async def run(self) -> None:
        """Send and receive until told to stop.

        Raises:
            ConfigError: The address cannot be listened at.
            Exception: What the listener raised.
        """
        server = grpc.aio.server(options=_SERVER, maximum_concurrent_rpcs=STREAMS_MAX)
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._serve)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler})])
        try:
            self.port = _bind(server, self._listen)
            await server.start()
            async with asyncio.TaskGroup() as group:
                self._group = group
                for peer in self._peers.values():
                    peer.start(group)
                self._is_ready.set()
                await self._is_stopping.wait()
                await self._drain()
        finally:
            self._group = None
            self._is_stopping.set()
            await server.stop(None)
            self._is_over.set()
        if self._failure is not None:
            raise self._failure

    async def wait_ready(self) -> None:
        """Wait until it listens; `port` is known then."""
        await self._is_ready.wait()

    async def stop(self) -> None:
        """Send what waits, if that is quick, and end; return when `run` is about to."""
        self._is_stopping.set()
        await self._is_over.wait()

    def add_peer(self, node_id: int, address: str) -> None:
        """Send to `node_id` at `address` from now on; what waits for another address of it is dropped."""
        known = self._peers.get(node_id)
        if known is not None:
            if known.address == address:
                return
            known.cancel()
        peer = self._peers[node_id] = Peer(self, self._options, node_id, address)
        if self._group is not None:
            peer.start(self._group)

    def remove_peer(self, node_id: int) -> None:
        """Send nothing to `node_id` any more, and take nothing from it unless the listener lets a stranger in."""
        self._door.forget(node_id)
        peer = self._peers.pop(node_id, None)
        if peer is not None:
            peer.cancel()

    def send(self, messages: Iterable[Message]) -> None:
        """Queue `messages`, each for the peer it is addressed to. Never waits; what cannot be queued is dropped.

        Raises:
            ValueError: One is a snapshot, which needs a channel of its own.
        """
        for message in messages:
            if message.type is MessageType.SNAPSHOT:
                raise ValueError(f"a snapshot for node {message.to} among the messages")
            peer = self._peers.get(message.to)
            if peer is None:
                self.unaddressed += 1
            else:
                peer.send(message)

    def status(self) -> Mapping[int, PeerStatus]:
        """Return how the way to each peer is."""
        return {node_id: self._peers[node_id].status() for node_id in sorted(self._peers)}

    # What a peer needs.

    @asynccontextmanager
    async def dial(self, address: str) -> AsyncIterator[Stream]:
        """Open a stream to `address`; a new connection each time, so that gRPC's own back-off never gets to count."""
        async with grpc.aio.insecure_channel(address, options=_CLIENT) as channel:
            yield _GrpcStream(channel.stream_stream(f"/{_SERVICE}/{_METHOD}")())

    def hello(self, node_id: int) -> Hello:
        """Return the greeting of a new stream to `node_id`."""
        self._streams += 1
        return Hello(
            cluster_id=self._identity.cluster_id,
            sender=self._identity.node_id,
            to=node_id,
            boot_epoch=self._identity.boot_epoch,
            stream=self._streams,
            address=self._identity.address,
        )

    def check_welcome(self, node_id: int, welcome: Welcome) -> None:
        """Check that the answer to a hello comes from whom it was for."""
        self._door.check_welcome(node_id, welcome)

    def backoff_s(self, failures: int) -> float:
        """Return how long to wait after so many failed attempts in a row: half to all of a doubling span."""
        span_s = min(self._options.backoff_max_s, self._options.backoff_min_s * (1 << min(failures, 16)))
        return max(self._options.backoff_min_s, span_s * self._rng.uniform(0.5, 1))

    def report_broken(self, node_id: int) -> None:
        """Tell the listener, but never from within a call of its own."""
        asyncio.get_running_loop().call_soon(self._tell, self._listener.broken, node_id)

    def report_unreachable(self, node_id: int) -> None:
        """Tell the listener, but never from within a call of its own."""
        asyncio.get_running_loop().call_soon(self._tell, self._listener.unreachable, node_id)

    # Ending.

    def _tell(self, report: Callable[[int], None], node_id: int) -> None:
        try:
            report(node_id)
        except Exception as error:  # noqa: BLE001  a task boundary: the loop would only log it
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._is_stopping.set()

    async def _drain(self) -> None:
        tasks = [task for peer in self._peers.values() if (task := peer.close()) is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=self._options.drain_s)
        for peer in self._peers.values():
            peer.cancel()

    # Receiving.

    async def _serve(self, _: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        try:
            await self._receive(context)
        except RefusedError as error:
            refusal, detail = error.refusal, str(error)
        except MalformedError as error:
            refusal, detail = Refusal.MALFORMED, str(error)
        except (grpc.aio.BaseError, asyncio.InvalidStateError):
            return  # the other end is gone: there is nobody to tell
        except Exception as error:
            self._fail(error)  # a task boundary: gRPC would only log it
            raise
        else:
            return
        self.refused[refusal] += 1
        await context.abort(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"node {self._identity.node_id} refuses: {detail}",
            trailing_metadata=((REFUSAL_KEY, refusal),),
        )

    async def _receive(self, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        first = await self._first(context)
        if first is None:
            return
        hello = self._admitted(codec.decode_batch(first))
        identity = self._identity
        welcome = Welcome(cluster_id=identity.cluster_id, node_id=identity.node_id, boot_epoch=identity.boot_epoch)
        await context.write(codec.encode_welcome(welcome))
        while (frame := await _read(context)) is not None:
            self._door.check_current(hello)
            batch = codec.decode_batch(frame)
            check_batch(hello, batch)
            await self._hand_over(batch.messages)

    async def _first(self, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes | None:
        try:
            async with asyncio.timeout(self._options.greeting_s):
                return await _read(context)
        except TimeoutError:
            raise MalformedError(f"no hello within {self._options.greeting_s} s") from None

    async def _hand_over(self, messages: Sequence[Message]) -> None:
        try:
            await self._listener.received(messages)
        except Exception as error:
            self._fail(error)  # whatever its class, it is no fault of the stream
            raise RuntimeError("the listener failed") from error

    def _admitted(self, batch: codec.Batch) -> Hello:
        hello = batch.hello
        if hello is None or batch.messages:
            raise MalformedError("a stream starts with a hello, and nothing else")
        self._door.check_identity(hello)
        if hello.sender not in self._peers and not self._listener.stranger(hello.sender, hello.address):
            raise RefusedError(Refusal.STRANGER, f"node {hello.sender} is not a peer")
        self._door.admit(hello)
        return hello


class _GrpcStream:
    """The client's end of a stream, with gRPC's many ways to fail made one."""

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


async def _read(context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes | None:
    """Return the next frame; None at the end of the stream."""
    frame: object = await context.read()
    return frame if isinstance(frame, bytes) else None


@contextmanager
def _one_error() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise _stream_error(error.code(), error.details(), error.trailing_metadata()) from None
    except grpc.aio.BaseError as error:
        raise StreamError(repr(error)) from error


def _stream_error(code: grpc.StatusCode, details: str | None, metadata: grpc.aio.Metadata | None) -> StreamError:
    reason = metadata.get(REFUSAL_KEY) if metadata is not None else None
    refusal = Refusal(reason) if isinstance(reason, str) and reason in set(Refusal) else None
    return StreamError(f"{code.name}: {details}" if refusal is None else str(details), refusal)


def _bind(server: grpc.aio.Server, address: str) -> int:
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(f"cannot listen at {address}: {error}") from error
