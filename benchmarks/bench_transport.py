"""How fast do messages travel between two nodes?

    python -m benchmarks.bench_transport            all of it, some seconds; writes results/transport.json
    python -m benchmarks.bench_transport --quick    each part once, small; writes nothing

Two processes on one machine, a node each, over the loopback interface, with uvloop. No core and no disk: what is
measured is the way from `send` in one to `received` in the other, and for a round trip the way back.
"""

import argparse
import asyncio
import contextlib
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.timing import Result, Timing, describe_machine, summarize
from engram.log.codec import Hello, Welcome
from engram.log.consensus.types import Entry, Message, MessageType
from engram.log.handshake import Identity
from engram.log.peer import BATCH_BYTES_MAX
from engram.log.transport import Transport
from tests.server_process import find_free_port

RESULTS = Path(__file__).parent / "results"
HOST = "127.0.0.1"
BURST = 16
"""Messages that are sent at once when messages follow one another without waiting."""

QUEUED_MESSAGES_MAX, QUEUED_BYTES_MAX = 512, 4 * 1024 * 1024
"""Half of what an outbox takes."""


class _Alone:
    """What a node of two that need no introduction, and no snapshots, has to say."""

    async def greeted(self, hello: Hello) -> bool:  # noqa: ARG002  there is only one
        return True

    def welcomed(self, node_id: int, welcome: Welcome) -> None:
        """Learn nothing."""

    def store_of(self, node_id: int) -> str:  # noqa: ARG002  none is known
        return ""

    def known_up_to(self, node_id: int) -> int:  # noqa: ARG002  as above
        return 0

    def member_index(self) -> int:
        return 0

    async def snapshot_offered(self, message: Message) -> int:
        raise NotImplementedError(message)

    async def snapshot_rows(self, entries: Sequence[Entry]) -> None:
        raise NotImplementedError(entries)

    async def snapshot_arrived(self, message: Message) -> None:
        raise NotImplementedError(message)

    async def snapshot_read(self, after: int, up_to: int) -> Sequence[Entry]:
        raise NotImplementedError(after, up_to)

    def snapshot_sent(self, node_id: int, *, ok: bool) -> None:
        raise NotImplementedError(node_id, ok)


class Caller(_Alone):
    """The node that measures: lets answers be waited for."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()

    async def received(self, messages: Sequence[Message]) -> None:  # noqa: ARG002  that there are some is enough
        self.answered.set()

    def broken(self, node_id: int) -> None:
        sys.exit(f"the stream to node {node_id} broke")

    def unreachable(self, node_id: int) -> None:
        sys.exit(f"messages to node {node_id} were dropped")


class Echo(_Alone):
    """The other node: answers each VOTE, and only those."""

    def __init__(self) -> None:
        self.transport = make_transport(2, self)

    async def received(self, messages: Sequence[Message]) -> None:
        self.transport.send(
            [
                Message(type=MessageType.VOTE_RESPONSE, to=1, sender=2, context=message.context)
                for message in messages
                if message.type is MessageType.VOTE
            ]
        )

    def broken(self, node_id: int) -> None:
        """Leave it to the parent, who ends this process."""

    def unreachable(self, node_id: int) -> None:
        """Leave it to the parent, who ends this process."""

    async def greeted(self, hello: Hello) -> bool:
        self.transport.add_peer(hello.sender, hello.address)
        return True


def main(arguments: Sequence[str]) -> int:
    """Measure, show a table, and keep the results of a full run."""
    parser = argparse.ArgumentParser(prog="bench_transport", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="each part once, small, and keep nothing")
    parser.add_argument("--echo", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.echo:
        uvloop.run(_echo())
        return 0
    with _echo_process() as port:
        results = uvloop.run(_measure(port, 0.02 if options.quick else 1))
    Console().print(_table(results))
    if not options.quick:
        report = {"machine": describe_machine(), "results": results}
        (RESULTS / "transport.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return 0


def make_transport(node_id: int, listener: Caller | Echo, port: int = 0) -> Transport:
    """Return a node of the measured cluster."""
    address = f"{HOST}:{port}"
    identity = Identity(
        cluster_id="benchmark", node_id=node_id, boot_epoch=1, address=address, store_id=str(node_id), http_address=""
    )
    return Transport(identity, listen=address, listener=listener, rng=random.Random(node_id))


async def _echo() -> None:
    transport = Echo().transport
    async with asyncio.TaskGroup() as group:
        group.create_task(transport.run())
        await transport.wait_ready()
        print(transport.port, flush=True)


@contextlib.contextmanager
def _echo_process() -> Iterator[int]:
    command = [sys.executable, "-m", "benchmarks.bench_transport", "--echo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


async def _measure(port: int, scale: float) -> list[Result]:
    caller = Caller()
    transport = make_transport(1, caller, find_free_port())
    async with asyncio.TaskGroup() as group:
        group.create_task(transport.run())
        await transport.wait_ready()
        transport.add_peer(2, f"{HOST}:{port}")
        await _round_trips(transport, caller, 50)
        trips = await _round_trips(transport, caller, int(5_000 * scale))
        results = [summarize("round trip", "256 B", trips)]
        for size, count in ((256, 200_000), (16 * 1024, 20_000), (1024 * 1024, 500)):
            results.append(await _pipelined(transport, caller, size, max(int(count * scale), BURST)))
        await transport.stop()
    return results


async def _round_trips(transport: Transport, caller: Caller, count: int) -> Timing:
    latencies_s = []
    started_s = perf_counter()
    for index in range(count):
        sent_s = perf_counter()
        await _round_trip(transport, caller, index)
        latencies_s.append(perf_counter() - sent_s)
    return Timing(latencies_s, perf_counter() - started_s)


async def _round_trip(transport: Transport, caller: Caller, index: int) -> None:
    caller.answered.clear()
    transport.send([Message(type=MessageType.VOTE, to=2, sender=1, index=index, context=bytes(256))])
    await caller.answered.wait()


async def _pipelined(transport: Transport, caller: Caller, size: int, count: int) -> Result:
    """Send as fast as they leave, and wait until the last has arrived."""
    entry = Entry(1, 1, data=bytes(size))
    burst = [Message(type=MessageType.APPEND, to=2, sender=1, term=1, index=1, entries=(entry,))]
    burst *= max(1, min(BURST, BATCH_BYTES_MAX // size))
    before = transport.status()[2]
    started_s = perf_counter()
    for _ in range(count // len(burst)):
        while _waits_much(transport):  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0)
        transport.send(burst)
        await asyncio.sleep(0)
    await _round_trip(transport, caller, count)
    run_s = perf_counter() - started_s
    after = transport.status()[2]
    sent = after.sent_messages - before.sent_messages
    frames = after.sent_frames - before.sent_frames
    return Result(
        question="one after another",
        case=f"{size} B, {sent / frames:.1f} a frame",
        requests=sent,
        per_s=round(sent / run_s, 1),
        value=round(sent * size / run_s / 1e6, 1),
        unit="MB/s",
    )


def _waits_much(transport: Transport) -> bool:
    status = transport.status()[2]
    return status.queued_messages > QUEUED_MESSAGES_MAX or status.queued_bytes > QUEUED_BYTES_MAX


def _table(results: Sequence[Result]) -> Table:
    table = Table("question", "case", "per second", "p50 ms", "p95 ms", "p99 ms", "value")
    for result in results:
        numbers = (result.per_s, result.p50_ms, result.p95_ms, result.p99_ms)
        shown = ["" if number is None else f"{number:,.3f}" for number in numbers]
        value = "" if result.value is None else f"{result.value:g} {result.unit}"
        table.add_row(result.question, result.case, *shown, value)
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
