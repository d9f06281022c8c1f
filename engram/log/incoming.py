"""Rows that come in from a node that has more of them: of one transfer at a time, staged part after part.

See engram/log/snapshots.py for the other end, and for what the two promise one another.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from engram.log import codec
from engram.log.codec import Hello, MalformedError, SnapshotAnswer, SnapshotFrame, SnapshotPart, Welcome
from engram.log.consensus.types import Entry, Message, MessageType
from engram.log.handshake import Refusal, RefusedError, is_older
from engram.log.peer import Options, StreamError
from engram.log.snapshots import SnapshotListener

T = TypeVar("T")


class IncomingStream(Protocol):
    """An open stream that came in. Every method raises StreamError once it is broken."""

    async def read(self) -> bytes | None:
        """Return the next frame; None at the end of the stream."""

    async def write(self, frame: bytes) -> None:
        """Answer with `frame`."""


class ReceiverHome(Protocol):
    """What a receiver needs of its node."""

    async def let_in(self, hello: Hello) -> Welcome:
        """Check `hello`, and return what to answer; raises RefusedError."""

    async def complete(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` to its end, even if the caller is cancelled."""

    async def listened(self, answer: Awaitable[T]) -> T:
        """Return the listener's answer; raises StreamError if it fails, which ends the node."""


class _Incoming(NamedTuple):
    hello: Hello
    offer: Message


class Receiver:
    """Takes rows, of one transfer at a time: a newer one ends the older."""

    def __init__(self, home: ReceiverHome, listener: SnapshotListener, options: Options) -> None:
        self._home = home
        self._listener = listener
        self._options = options
        self._newest: dict[int, Hello] = {}
        self._current: _Incoming | None = None
        self._turn = asyncio.Lock()

    def forget(self, node_id: int) -> None:
        """Take nothing more of what `node_id` is sending."""
        self._newest.pop(node_id, None)
        if self._current is not None and self._current.hello.sender == node_id:
            self._current = None

    async def serve(self, stream: IncomingStream) -> None:
        """Take the rows and the message that `stream` brings.

        Raises:
            RefusedError: They are not for this node, or there is a newer transfer.
            MalformedError: They are not what was sent, or do not follow on one another.
            StreamError: The stream broke.
        """
        incoming = _opening(await self._frame(stream, self._options.greeting_s))
        welcome = await self._home.let_in(incoming.hello)
        self._admit(incoming)
        try:
            await stream.write(codec.encode_answer(SnapshotAnswer(welcome=welcome)))
            after = await self._ask(incoming, lambda: self._listener.snapshot_offered(incoming.offer))
            await stream.write(codec.encode_answer(SnapshotAnswer(after=after)))
            await self._take_rows(stream, incoming, after)
            await self._ask(incoming, lambda: self._listener.snapshot_arrived(incoming.offer))
            await stream.write(codec.encode_answer(SnapshotAnswer(is_installed=True)))
        finally:
            if self._current is incoming:
                self._current = None

    def _admit(self, incoming: _Incoming) -> None:
        """Make `incoming` the transfer that goes on."""
        hello, current = incoming.hello, self._current
        known = self._newest.get(hello.sender)
        if known is not None and is_older(hello, known):
            raise RefusedError(
                Refusal.STALE, f"node {hello.sender}: transfer {hello.stream} comes after {known.stream}"
            )
        if current is not None and incoming.offer.term < current.offer.term:
            raise RefusedError(Refusal.STALE, f"node {current.hello.sender} is sending a snapshot in a later term")
        self._newest[hello.sender] = hello
        self._current = incoming

    async def _take_rows(self, stream: IncomingStream, incoming: _Incoming, after: int) -> None:
        assert incoming.offer.snapshot is not None
        up_to = incoming.offer.snapshot.meta.index
        digest = hashlib.sha256()
        is_last = False
        while not is_last:
            part = (await self._frame(stream, self._options.snapshot_progress_s)).part
            if part is None:
                raise MalformedError("a frame after the first of a transfer has no part")
            digest.update(part.rows)
            if digest.digest() != part.sha256:
                raise MalformedError(f"the rows after {after} are not those that were sent")
            entries = _following(part, after, up_to)
            if entries:
                await self._stage(incoming, entries)
                after = entries[-1].index
            is_last = part.is_last
        if after < up_to:
            raise MalformedError(f"the rows end at {after}, those of the snapshot at {up_to}")

    async def _stage(self, incoming: _Incoming, entries: Sequence[Entry]) -> None:
        await self._ask(incoming, lambda: self._listener.snapshot_rows(entries))

    async def _ask(self, incoming: _Incoming, question: Callable[[], Awaitable[T]]) -> T:
        """Ask the listener, who is never asked by two transfers at a time, nor left in the middle of an answer."""
        return await self._home.complete(self._answered(incoming, question))

    async def _answered(self, incoming: _Incoming, question: Callable[[], Awaitable[T]]) -> T:
        async with self._turn:
            if self._current is not incoming:
                raise RefusedError(
                    Refusal.STALE, f"the transfer of node {incoming.hello.sender} was replaced, or the node removed"
                )
            return await self._home.listened(question())

    async def _frame(self, stream: IncomingStream, timeout_s: float) -> SnapshotFrame:
        try:
            async with asyncio.timeout(timeout_s):
                frame = await stream.read()
        except TimeoutError:
            raise MalformedError(f"no part of a snapshot within {timeout_s} s") from None
        if frame is None:
            raise StreamError("the other end closed the stream")
        return codec.decode_frame(frame)


def _opening(frame: SnapshotFrame) -> _Incoming:
    hello, offer = frame.hello, frame.offer
    if hello is None or offer is None or frame.part is not None:
        raise MalformedError("a transfer starts with a hello and an offer")
    if offer.type is not MessageType.SNAPSHOT or offer.snapshot is None:
        raise MalformedError(f"node {hello.sender} offers {offer.type.name} in place of a snapshot")
    if (offer.sender, offer.to) != (hello.sender, hello.to):
        raise MalformedError(f"node {hello.sender} offers a snapshot of node {offer.sender} to node {offer.to}")
    return _Incoming(hello, offer)


def _following(part: SnapshotPart, after: int, up_to: int) -> Sequence[Entry]:
    """Return the rows of `part`, which must follow on `after`, and end at or before `up_to`."""
    entries = codec.decode_rows(part.rows)
    for index, entry in enumerate(entries, after + 1):
        if entry.index != index:
            raise MalformedError(f"row {entry.index} came in place of row {index}")
    if entries and entries[-1].index > up_to:
        raise MalformedError(f"row {entries[-1].index} is beyond the snapshot, which ends at {up_to}")
    return entries
