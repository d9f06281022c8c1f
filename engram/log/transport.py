"""Messages between nodes: one gRPC stream for each direction, opened by whoever has something to say.

Nothing is retried and nothing is promised but order within one stream: the core sends again what it misses. Everything
that waits for a node goes into one frame, since a frame costs far more than a message. While a node is away, what is
for it waits for the next attempt to reach it and no longer.

All of it lives on one loop, and only `Listener.received` may wait; while it does, the sender is held up, first by the
flow control of HTTP/2 and then by its own full outbox.

Snapshots do not travel here, but on a connection of their own: see engram/log/snapshots.py.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from engram.log import codec
from engram.log.channels import Incoming, Server, ask, dial
from engram.log.codec import Hello, Introduction, MalformedError, Welcome
from engram.log.consensus.types import Entry, Message, MessageType
from engram.log.handshake import Doorkeeper, Identity, Refusal, RefusedError, check_batch
from engram.log.incoming import Receiver
from engram.log.peer import Options, Peer, PeerStatus, Stream, StreamError
from engram.log.snapshots import Sender, SnapshotListener, SnapshotProgress

T = TypeVar("T")


class Listener(SnapshotListener, Protocol):
    """Who the messages are for. A method that raises stops the transport: `run` raises what it raised."""

    async def received(self, messages: Sequence[Message]) -> None:
        """Take messages of one node, in the order they were sent. Cancelled if the stream breaks meanwhile."""

    def broken(self, node_id: int) -> None:
        """Note that the stream to `node_id` ended, and messages to it may be lost: its process may be gone."""

    def unreachable(self, node_id: int) -> None:
        """Note that messages to `node_id` were dropped."""

    async def greeted(self, hello: Hello) -> bool:
        """Return whether the sender of `hello`, which was checked, may send; one is asked for at a time.

        If this node is in no cluster, it is in that of `hello` once this returned True, so that must be durable by
        then. Never cancelled but by the end of the transport. Adding the sender as a peer here lets it be answered.
        """

    def welcomed(self, node_id: int, welcome: Welcome) -> None:
        """Note what `node_id`, which was dialled, says of itself."""

    def store_of(self, node_id: int) -> str:
        """Return the store id that the cluster knows of `node_id`; empty if it knows none."""

    def known_up_to(self, node_id: int) -> int:
        """Return the log index as of which `store_of` tells the disk of `node_id`."""

    def member_index(self) -> int:
        """Return up to where this node has applied the log, if by that it is a member with its disk; else 0."""


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
        self._listen = listen
        self._listener = listener
        self._rng = rng
        self._options = options or Options()
        self._door = Doorkeeper(identity, listener.store_of, listener.known_up_to)
        self._greeting = asyncio.Lock()
        self._sender = Sender(self, self._options)
        self._receiver = Receiver(self, listener, self._options)
        self._peers: dict[int, Peer] = {}
        self._streams = 0
        self._group: asyncio.TaskGroup | None = None
        self._works: set[asyncio.Task[Any]] = set()
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
        server = Server(
            {"Messages": partial(self._serve, self._receive), "Snapshot": partial(self._serve, self._receiver.serve)},
            {"Introduce": self._introduced},
        )
        try:
            self.port = await server.start(self._listen)
            async with asyncio.TaskGroup() as group:
                self._group = group
                for peer in self._peers.values():
                    peer.start(group)
                self._sender.start(group)
                self._is_ready.set()
                await self._is_stopping.wait()
                await self._drain()
                await server.stop()
                for work in self._works:
                    work.cancel()
        finally:
            self._group = None
            self._is_stopping.set()
            self._sender.cancel()
            await server.stop()
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

    def join(self, cluster_id: str) -> None:
        """State from now on that this node is in cluster `cluster_id`.

        Raises:
            ValueError: It is in another.
        """
        self._door.join(cluster_id)

    async def introduce(self, address: str, timeout_s: float) -> Introduction:
        """Return who is at `address`, whatever cluster it is in; it learns nothing of this node.

        Raises:
            StreamError: There was no answer within `timeout_s`, or none that makes sense.
        """
        answer = await ask(address, "Introduce", b"", timeout_s)
        try:
            return codec.decode_introduction(answer)
        except MalformedError as error:
            raise StreamError(str(error)) from error

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
        """Send nothing to `node_id` any more, and take nothing from it unless the listener lets it in again."""
        self._door.forget(node_id)
        self._sender.forget(node_id)
        self._receiver.forget(node_id)
        peer = self._peers.pop(node_id, None)
        if peer is not None:
            peer.cancel()

    def send(self, messages: Iterable[Message]) -> None:
        """Queue `messages`, each for the peer it is addressed to. Never waits; what cannot be queued is dropped.

        A snapshot replaces the one before for the same node; how it ended the listener is told by `snapshot_sent`.
        """
        for message in messages:
            peer = self._peers.get(message.to)
            if message.type is MessageType.SNAPSHOT:
                self._sender.send(message)
            elif peer is None:
                self.unaddressed += 1
            else:
                peer.send(message)

    def status(self) -> Mapping[int, PeerStatus]:
        """Return how the way to each peer is."""
        return {node_id: self._peers[node_id].status() for node_id in sorted(self._peers)}

    def snapshots(self) -> Mapping[int, SnapshotProgress]:
        """Return how far the transfer of rows is, by the node that gets them; one that none was for is missing."""
        return self._sender.progress()

    # What a peer needs, and who sends or takes a snapshot.

    def dial(self, address: str) -> AbstractAsyncContextManager[Stream]:
        """Open a stream for messages to `address`, over a connection of its own."""
        return dial(address, "Messages")

    def dial_snapshot(self, address: str) -> AbstractAsyncContextManager[Stream]:
        """Open a stream for rows to `address`, over a connection of its own."""
        return dial(address, "Snapshot")

    def address_of(self, node_id: int) -> str | None:
        """Return where a peer is; None if it is no peer."""
        peer = self._peers.get(node_id)
        return None if peer is None else peer.address

    def hello(self, node_id: int) -> Hello:
        """Return the greeting of a new stream to `node_id`."""
        self._streams += 1
        identity = self._door.identity
        return Hello(
            cluster_id=identity.cluster_id,
            sender=identity.node_id,
            to=node_id,
            boot_epoch=identity.boot_epoch,
            stream=self._streams,
            address=identity.address,
            store_id=identity.store_id,
            to_store_id=self._listener.store_of(node_id),
            http_address=identity.http_address,
            applied_index=self._listener.member_index(),
        )

    def check_welcome(self, node_id: int, welcome: Welcome) -> None:
        """Check that the answer to a hello comes from whom it was for, and pass on what it says."""
        self._door.check_welcome(node_id, welcome)
        self._tell(partial(self._listener.welcomed, node_id, welcome))

    async def let_in(self, hello: Hello) -> Welcome:
        """Return the answer to `hello`; raises RefusedError if its sender may not send."""
        return await self.complete(self._let_in(hello))

    async def read_rows(self, after: int, up_to: int) -> Sequence[Entry]:
        """Return the first rows of (after, up_to]; raises StreamError if the listener fails."""
        return await self.listened(self._listener.snapshot_read(after, up_to))

    def backoff_s(self, failures: int) -> float:
        """Return how long to wait after so many failed attempts in a row: half to all of a doubling span."""
        span_s = min(self._options.backoff_max_s, self._options.backoff_min_s * (1 << min(failures, 16)))
        return max(self._options.backoff_min_s, span_s * self._rng.uniform(0.5, 1))

    def report_broken(self, node_id: int) -> None:
        """Tell the listener, but never from within a call of its own."""
        self._tell_soon(partial(self._listener.broken, node_id))

    def report_unreachable(self, node_id: int) -> None:
        """Tell the listener, but never from within a call of its own."""
        self._tell_soon(partial(self._listener.unreachable, node_id))

    def report_snapshot(self, node_id: int, *, ok: bool) -> None:
        """Tell the listener; only timers call this."""
        self._tell(partial(self._listener.snapshot_sent, node_id, ok=ok))

    async def listened(self, answer: Awaitable[T]) -> T:
        """Return the listener's answer; raises StreamError if it fails, which stops this transport."""
        try:
            return await answer
        except Exception as error:
            self._fail(error)  # whatever its class, it is no fault of the stream
            raise StreamError("the listener failed") from error

    async def complete(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` to its end, even if the caller is cancelled because the other end is gone."""
        if self._group is None:
            work.close()
            raise StreamError("this node is stopping")
        task = self._group.create_task(_outcome(work))
        self._works.add(task)
        task.add_done_callback(self._works.discard)
        task.add_done_callback(lambda _: work.close())  # or, cancelled before it began, it would never be awaited
        await asyncio.wait([task])
        outcome = task.result()
        if isinstance(outcome, _Failed):
            raise outcome.error
        return outcome

    # Ending.

    def _tell_soon(self, report: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(self._tell, report)

    def _tell(self, report: Callable[[], None]) -> None:
        try:
            report()
        except Exception as error:  # noqa: BLE001  a task boundary: the loop would only log it
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._is_stopping.set()

    async def _drain(self) -> None:
        self._sender.cancel()
        tasks = [task for peer in self._peers.values() if (task := peer.close()) is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=self._options.drain_s)
        for peer in self._peers.values():
            peer.cancel()

    # Receiving.

    def _introduced(self, _: bytes) -> bytes:
        identity = self._door.identity
        return codec.encode_introduction(
            Introduction(
                node_id=identity.node_id,
                store_id=identity.store_id,
                cluster_id=identity.cluster_id,
                address=identity.address,
                http_address=identity.http_address,
            )
        )

    async def _serve(self, take: Callable[[Incoming], Awaitable[None]], stream: Incoming) -> None:
        try:
            await take(stream)
        except RefusedError as error:
            refusal, detail = error.refusal, str(error)
        except MalformedError as error:
            refusal, detail = Refusal.MALFORMED, str(error)
        except StreamError:
            return  # the other end is gone, or this one about to be: there is nobody to tell
        except Exception as error:
            self._fail(error)  # a task boundary: gRPC would only log it
            raise
        else:
            return
        self.refused[refusal] += 1
        await stream.refuse(refusal, f"node {self._door.identity.node_id} refuses: {detail}")

    async def _receive(self, stream: Incoming) -> None:
        first = await self._first(stream)
        if first is None:
            return
        batch = codec.decode_batch(first)
        hello = batch.hello
        if hello is None or batch.messages:
            raise MalformedError("a stream starts with a hello, and nothing else")
        welcome = await self.let_in(hello)
        self._door.admit(hello)
        await stream.write(codec.encode_welcome(welcome))
        while (frame := await stream.read()) is not None:
            self._door.check_current(hello)
            batch = codec.decode_batch(frame)
            check_batch(hello, batch)
            await self.listened(self._listener.received(batch.messages))

    async def _first(self, stream: Incoming) -> bytes | None:
        try:
            async with asyncio.timeout(self._options.greeting_s):
                return await stream.read()
        except TimeoutError:
            raise MalformedError(f"no hello within {self._options.greeting_s} s") from None

    async def _let_in(self, hello: Hello) -> Welcome:
        async with self._greeting:  # one at a time: only one cluster can be the first
            self._door.check(hello)
            if not await self.listened(self._listener.greeted(hello)):
                raise RefusedError(Refusal.STRANGER, f"node {hello.sender} is not a peer")
            self._door.check(hello)  # this node may have founded a cluster meanwhile
            self._door.join(hello.cluster_id)
            self._door.note(hello)
        identity = self._door.identity
        return Welcome(
            cluster_id=identity.cluster_id,
            node_id=identity.node_id,
            boot_epoch=identity.boot_epoch,
            store_id=identity.store_id,
            http_address=identity.http_address,
        )


class _Failed(NamedTuple):
    error: Exception


async def _outcome(work: Awaitable[T]) -> T | _Failed:
    """Return what `work` raises: a task that raised it would end its group."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001  whoever waits gets it
        return _Failed(error)
