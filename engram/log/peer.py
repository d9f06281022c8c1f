"""The way to one other node: its outbox, its stream, and the attempts to open the next one when that ends."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from engram.log import codec
from engram.log.codec import Hello, MalformedError, Welcome
from engram.log.consensus.types import Message
from engram.log.handshake import Refusal, RefusedError
from engram.log.outbox import Outbox

BATCH_BYTES_MAX = 1024 * 1024
"""What waits is sent in frames of this size, so that a frame holds up those behind it for a few milliseconds."""

MESSAGE_BYTES_MAX = 8 * 1024 * 1024
"""One message, which is a frame of its own if it is large: an entry of 4 MiB and as much again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much may wait, and how patient a node is with its peers."""

    outbox_messages_max: int = 1_024
    outbox_bytes_max: int = 8 * 1024 * 1024
    """For each peer. Beyond it appends are dropped; the core's limit on what is in flight should be lower."""
    backoff_min_s: float = 0.010
    backoff_max_s: float = 0.200
    greeting_s: float = 1.0
    """How long it may take to connect and to be welcomed, or to say hello."""
    steady_s: float = 1.0
    """A stream that lasted this long ends the back-off."""
    repeat_s: float = 0.020
    """How long an acknowledgement that says nothing new waits for company: it leaves with whatever follows it, which on a
    cluster that writes comes sooner. A frame by itself would wake up both ends for nothing."""
    drain_s: float = 0.3
    """What waits when the transport is told to stop has this long to leave."""
    snapshot_bytes_per_s: float = 50e6
    """How fast rows leave for a node that lacks them, so that those who do not still get their messages."""
    snapshot_progress_s: float = 10.0
    """A transfer of rows that stands still for so long, at either end, has failed."""
    snapshot_pause_s: float = 0.5
    """A transfer that failed is reported after this, since the report may start the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """The way to one node. The numbers count from when it was added, or got a new address."""

    address: str
    is_connected: bool
    """The stream to it is open, and was welcomed."""
    queued_messages: int
    queued_bytes: int
    sent_messages: int
    sent_frames: int
    dropped: int
    """Messages that were never sent."""
    streams: int
    """How often it was connected."""
    refusal: Refusal | None
    """Why it, or this node, refused the last attempt; None once connected."""
    last_error: str
    """Why the last stream ended, or the last attempt failed; empty if none did."""


class StreamError(Exception):
    """A stream broke, or could not be opened, or was refused by the other end."""

    def __init__(self, detail: str, refusal: Refusal | None = None) -> None:
        super().__init__(detail)
        self.refusal = refusal


class Stream(Protocol):
    """An open stream, or one that is being opened. Every method raises StreamError once it is broken."""

    @property
    def is_over(self) -> bool:
        """Whether it ended, for whatever reason."""

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` as soon as it ends, even while nobody reads or writes."""

    async def read(self) -> bytes:
        """Return the next frame of the other end."""

    async def write(self, frame: bytes) -> None:
        """Hand over `frame`; waits while the other end does not keep up."""

    async def finish(self) -> None:
        """Say that nothing follows."""

    async def check(self) -> None:
        """Return if it ended as it should; for a stream that is over."""


class Home(Protocol):
    """What a peer needs of the node that it is a peer of."""

    def dial(self, address: str) -> AbstractAsyncContextManager[Stream]:
        """Open a stream to `address`, over a connection of its own."""

    def hello(self, node_id: int) -> Hello:
        """Return the greeting of a new stream to `node_id`."""

    def check_welcome(self, node_id: int, welcome: Welcome) -> None:
        """Check that `welcome` comes from `node_id`, and pass on what it says; raises RefusedError."""

    def backoff_s(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""

    def report_broken(self, node_id: int) -> None:
        """Note that an open stream ended."""

    def report_unreachable(self, node_id: int) -> None:
        """Note that messages were dropped."""


class Peer:
    """One other node at one address. A peer that moves is another peer."""

    def __init__(self, home: Home, options: Options, node_id: int, address: str) -> None:
        self.address = address
        self._home = home
        self._options = options
        self._node_id = node_id
        self._outbox = Outbox(
            messages_max=options.outbox_messages_max,
            bytes_max=options.outbox_bytes_max,
            message_bytes_max=MESSAGE_BYTES_MAX,
        )
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._waking: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._is_connected = False
        self._is_full = False
        self._sent_messages = 0
        self._sent_frames = 0
        self._streams = 0
        self._refusal: Refusal | None = None
        self._last_error = ""

    def start(self, group: asyncio.TaskGroup) -> None:
        """Dial, and keep dialling, as a task of `group`."""
        self._task = group.create_task(self._run())

    def close(self) -> asyncio.Task[None] | None:
        """End once what waits is sent; return the task that does it, if there is one."""
        self._is_closing = True
        self._wake.set()
        return self._task

    def cancel(self) -> None:
        """End now."""
        self._is_closing = True
        if self._task is not None:
            self._task.cancel()

    def send(self, message: Message) -> None:
        """Queue `message`, or drop it and report that."""
        is_repeated = self._outbox.repeats(message)
        if self._outbox.add(message):
            if is_repeated:
                self._wake_later()
            else:
                self._wake.set()
        elif not self._is_full:  # once, until something leaves
            self._is_full = True
            self._home.report_unreachable(self._node_id)

    def status(self) -> PeerStatus:
        """Return how the way to it is."""
        return PeerStatus(
            address=self.address,
            is_connected=self._is_connected,
            queued_messages=len(self._outbox),
            queued_bytes=self._outbox.bytes,
            sent_messages=self._sent_messages,
            sent_frames=self._sent_frames,
            dropped=self._outbox.dropped,
            streams=self._streams,
            refusal=self._refusal,
            last_error=self._last_error,
        )

    def _wake_later(self) -> None:
        if self._waking is None:
            self._waking = asyncio.get_running_loop().call_later(self._options.repeat_s, self._wake_now)

    def _wake_now(self) -> None:
        self._waking = None
        self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            started_s = loop.time()
            await self._attempt()
            self._is_full = False
            if self._outbox.drop_all():
                self._home.report_unreachable(self._node_id)
            if self._is_closing:
                return
            failures = 0 if loop.time() - started_s >= self._options.steady_s and not self._refusal else failures
            await asyncio.sleep(self._home.backoff_s(failures))
            failures += 1

    async def _attempt(self) -> None:
        """Open a stream and send until it ends; whatever ended it is in the status then."""
        try:
            async with self._home.dial(self.address) as stream:
                stream.on_end(self._wake.set)
                await self._greet(stream)
                await self._deliver(stream)
        except (StreamError, RefusedError) as error:
            self._note(str(error), error.refusal)
        except MalformedError as error:
            self._note(str(error), Refusal.MALFORMED)
        except TimeoutError:
            self._note(f"not welcomed within {self._options.greeting_s} s", None)
        finally:
            if self._is_connected:
                self._is_connected = False
                if not self._is_closing:
                    self._home.report_broken(self._node_id)

    async def _greet(self, stream: Stream) -> None:
        async with asyncio.timeout(self._options.greeting_s):
            await stream.write(codec.encode_batch((), self._home.hello(self._node_id)))
            welcome = codec.decode_welcome(await stream.read())
        self._home.check_welcome(self._node_id, welcome)
        self._is_connected = True
        self._streams += 1
        self._refusal = None

    async def _deliver(self, stream: Stream) -> None:
        while not stream.is_over:
            messages = self._outbox.take(BATCH_BYTES_MAX)
            if messages:
                self._is_full = False
                await stream.write(codec.encode_batch(messages))
                self._sent_messages += len(messages)
                self._sent_frames += 1
            elif self._is_closing:
                await stream.finish()
                await self._wait_end(stream)
                return
            else:
                self._wake.clear()
                await self._wake.wait()
        await stream.check()
        raise StreamError("the other end closed the stream")

    async def _wait_end(self, stream: Stream) -> None:
        """Wait until the other end has read everything: closing the connection before would take back what it has not."""
        while not stream.is_over:
            self._wake.clear()
            await self._wake.wait()

    def _note(self, error: str, refusal: Refusal | None) -> None:
        self._last_error = error
        self._refusal = refusal
