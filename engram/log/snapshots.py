"""Rows of the log for a node that lacks too many of them, and the snapshot message that they make true.

They travel over a connection of their own, so that they hold up no heartbeat, part after part, and neither end ever has
more than a few parts in memory. The rows are committed where they come from; so whatever a receiver has staged stays
good, whoever sent it, and a transfer that broke goes on from there.

A part is staged only when everything up to and with it is what was sent. The log never deletes rows, so a sender that
cannot start where the receiver ends has lost some, and says so.
"""

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from engram.log import codec
from engram.log.codec import Hello, MalformedError, SnapshotAnswer, SnapshotFrame, SnapshotPart, Welcome
from engram.log.consensus.types import Entry, Message, entry_bytes
from engram.log.handshake import RefusedError
from engram.log.peer import Options, Stream, StreamError

PART_BYTES_MAX = 512 * 1024
"""Rows are sent in parts of this size; one row may be larger."""

PART_ROWS_MAX = 512
"""However small they are: it takes some milliseconds to encode them, in which no heartbeat leaves."""


class SnapshotListener(Protocol):
    """Who has the rows, or takes them.

    What takes them is called for one transfer at a time, one call after another, and each call is seen through, unless
    the transport ends, even when the sender is gone.
    """

    async def snapshot_offered(self, message: Message) -> int:
        """Return the index up to which this node has committed rows, staged ones included."""

    async def snapshot_rows(self, entries: Sequence[Entry]) -> None:
        """Stage rows, durably. They follow on what `snapshot_offered` returned, and on one another."""

    async def snapshot_arrived(self, message: Message) -> None:
        """Step the offered message: all rows up to the index of its snapshot are there."""

    async def snapshot_read(self, after: int, up_to: int) -> Sequence[Entry]:
        """Return the first rows of (after, up_to], at least one, and few enough to hold. May be cancelled."""

    def snapshot_sent(self, node_id: int, *, ok: bool) -> None:
        """Note that `node_id` stepped the last snapshot message for it, or that it did not get there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotProgress:
    """How far the transfer to a node is: the one that is under way, or the last."""

    node_id: int
    is_running: bool
    sent_rows: int
    sent_bytes: int
    index: int
    """Rows up to this one have left, or were there before; 0 until that is known."""
    up_to: int
    last_error: str
    """Why it failed; empty while it runs, and if it did not."""


class SenderHome(Protocol):
    """What a sender needs of its node."""

    def address_of(self, node_id: int) -> str | None:
        """Return where a peer is; None if it is no peer."""

    def dial_snapshot(self, address: str) -> AbstractAsyncContextManager[Stream]:
        """Open a stream for rows to `address`, over a connection of its own."""

    def hello(self, node_id: int) -> Hello:
        """Return the greeting of a new stream to `node_id`."""

    def check_welcome(self, node_id: int, welcome: Welcome) -> None:
        """Check that `welcome` comes from `node_id`, and pass on what it says; raises RefusedError."""

    async def read_rows(self, after: int, up_to: int) -> Sequence[Entry]:
        """Return the first rows of (after, up_to]."""

    def report_snapshot(self, node_id: int, *, ok: bool) -> None:
        """Note how a transfer ended."""


class Sender:
    """Sends rows, to one node at a time; another that needs some waits."""

    def __init__(self, home: SenderHome, options: Options) -> None:
        self._home = home
        self._options = options
        self._task: asyncio.Task[None] | None = None
        self._waiting: dict[int, Message] = {}
        self._wake = asyncio.Event()
        self._current: Message | None = None
        self._transfer: asyncio.Task[str] | None = None
        self._reports: dict[int, asyncio.TimerHandle] = {}
        self._progress: dict[int, SnapshotProgress] = {}
        self._next_part_s = 0.0

    def start(self, group: asyncio.TaskGroup) -> None:
        """Send what waits, and what will, in tasks of `group`."""
        self._task = group.create_task(self._run(group))

    def cancel(self) -> None:
        """End now, and report nothing more."""
        for report in self._reports.values():
            report.cancel()
        if self._task is not None:
            self._task.cancel()
        self._interrupt()

    def forget(self, node_id: int) -> None:
        """Send nothing to `node_id` any more, and report nothing of it."""
        self._withdraw(node_id)
        self._progress.pop(node_id, None)
        if self._current is not None and self._current.to == node_id:
            self._interrupt()

    def send(self, message: Message) -> None:
        """Send the rows that `message` needs, then `message`; what was to be sent to this node before is not any more."""
        if self._current is not None and self._current.to == message.to:
            if self._current == message:
                return
            self._interrupt()
        self._withdraw(message.to)
        self._waiting[message.to] = message
        self._wake.set()

    def progress(self) -> Mapping[int, SnapshotProgress]:
        """Return how far the transfers are, by receiver."""
        return dict(self._progress)

    def _withdraw(self, node_id: int) -> None:
        self._waiting.pop(node_id, None)
        report = self._reports.pop(node_id, None)
        if report is not None:
            report.cancel()

    def _interrupt(self) -> None:
        self._current = None
        if self._transfer is not None:
            self._transfer.cancel()

    async def _run(self, group: asyncio.TaskGroup) -> None:
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            message = self._current = self._waiting.pop(next(iter(self._waiting)))
            transfer = self._transfer = group.create_task(self._attempt(message))
            await asyncio.wait([transfer])
            if self._current is message:  # else it was interrupted
                self._end(message.to, transfer.result())
            self._current = self._transfer = None

    def _end(self, node_id: int, error: str) -> None:
        self._advance(node_id, is_running=False, last_error=error)
        pause_s = self._options.snapshot_pause_s if error else 0
        self._reports[node_id] = asyncio.get_running_loop().call_later(pause_s, self._report, node_id, not error)

    def _report(self, node_id: int, ok: bool) -> None:  # noqa: FBT001  only the timer calls it
        del self._reports[node_id]
        self._home.report_snapshot(node_id, ok=ok)

    async def _attempt(self, message: Message) -> str:
        """Send the rows and the message; return what went wrong, which is nothing if it is empty."""
        assert message.snapshot is not None
        self._progress[message.to] = SnapshotProgress(
            node_id=message.to,
            is_running=True,
            sent_rows=0,
            sent_bytes=0,
            index=0,
            up_to=message.snapshot.meta.index,
            last_error="",
        )
        try:
            await self._deliver(message)
        except (StreamError, RefusedError, MalformedError) as error:
            return str(error)
        except TimeoutError:
            return "no progress in time"
        return ""

    async def _deliver(self, message: Message) -> None:
        address = self._home.address_of(message.to)
        if address is None:
            raise StreamError(f"node {message.to} is not a peer")
        async with self._home.dial_snapshot(address) as stream:
            after = await self._offer(stream, message)
            self._advance(message.to, index=after)
            digest = await self._send_rows(stream, message, after)
            await self._write(stream, SnapshotPart(rows=b"", sha256=digest, is_last=True))
            await stream.finish()
            if not (await self._answer(stream, self._options.snapshot_progress_s)).is_installed:
                raise MalformedError("something else than that it is installed was answered")

    async def _offer(self, stream: Stream, message: Message) -> int:
        greeting = SnapshotFrame(hello=self._home.hello(message.to), offer=message)
        async with asyncio.timeout(self._options.greeting_s):
            await stream.write(codec.encode_frame(greeting))
        welcome = (await self._answer(stream, self._options.greeting_s)).welcome
        if welcome is None:
            raise MalformedError("no welcome was answered")
        self._home.check_welcome(message.to, welcome)
        after = (await self._answer(stream, self._options.snapshot_progress_s)).after
        if after is None:
            raise MalformedError("where to go on from was not answered")
        return after

    async def _send_rows(self, stream: Stream, message: Message, after: int) -> bytes:
        """Send the rows after `after`, and return their digest."""
        assert message.snapshot is not None
        up_to = message.snapshot.meta.index
        digest = hashlib.sha256()
        while after < up_to:
            entries = await self._home.read_rows(after, up_to)
            _check_complete(entries, after)
            for part in _parts(entries):
                rows = codec.encode_rows(part)
                digest.update(rows)
                await self._pace(len(rows))
                await self._write(stream, SnapshotPart(rows=rows, sha256=digest.digest(), is_last=False))
                after = part[-1].index
                self._count(message.to, part, len(rows))
        return digest.digest()

    async def _pace(self, size: int) -> None:
        now_s = asyncio.get_running_loop().time()
        due_s = max(now_s, self._next_part_s)
        self._next_part_s = due_s + size / self._options.snapshot_bytes_per_s
        await asyncio.sleep(due_s - now_s)

    async def _write(self, stream: Stream, part: SnapshotPart) -> None:
        async with asyncio.timeout(self._options.snapshot_progress_s):
            await stream.write(codec.encode_frame(SnapshotFrame(part=part)))

    async def _answer(self, stream: Stream, timeout_s: float) -> SnapshotAnswer:
        async with asyncio.timeout(timeout_s):
            return codec.decode_answer(await stream.read())

    def _count(self, node_id: int, part: Sequence[Entry], size: int) -> None:
        known = self._progress.get(node_id)
        if known is not None:
            self._advance(
                node_id,
                index=part[-1].index,
                sent_rows=known.sent_rows + len(part),
                sent_bytes=known.sent_bytes + size,
            )

    def _advance(self, node_id: int, **changes: Any) -> None:
        known = self._progress.get(node_id)
        if known is not None:  # else it was forgotten
            self._progress[node_id] = replace(known, **changes)


def _check_complete(entries: Sequence[Entry], after: int) -> None:
    for index, entry in enumerate(entries, after + 1):
        if entry.index != index:
            raise StreamError(f"row {index} is not in the log of this node any more")
    if not entries:
        raise StreamError(f"row {after + 1} is not in the log of this node any more")


def _parts(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    part: list[Entry] = []
    size = 0
    for entry in entries:
        if len(part) == PART_ROWS_MAX or (part and size + entry_bytes(entry) > PART_BYTES_MAX):
            yield part
            part, size = [], 0
        part.append(entry)
        size += entry_bytes(entry)
    yield part
