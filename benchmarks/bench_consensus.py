"""How fast is the core alone, without disks and without a network?

    python -m benchmarks.bench_consensus              some seconds; writes results/consensus.json
    python -m benchmarks.bench_consensus --quick      each part once, small; writes nothing
    python -m benchmarks.bench_consensus --seconds 5  longer

Three nodes in one process, on one core: proposals of 256 bytes go into the leader, and whatever a node gives out is
written to memory, delivered and applied at once. So a message a second here is one that a node's core takes in, with
its share of what came before: the Ready it is in, and the bookkeeping of the log in memory.
"""

import argparse
import random
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.timing import Result, Timing, describe_machine, summarize
from engram.log.consensus.raft import Config, Role
from engram.log.consensus.rawnode import RawNode
from engram.log.consensus.types import LOCAL_APPEND_THREAD, ConfState, HardState, Message, is_local_thread
from engram.log.storage import MemoryStorage

RESULTS = Path(__file__).parent / "results"
SECONDS, QUICK_SECONDS = 3.0, 0.1
"""For each part."""
VOTERS = (1, 2, 3)
PAYLOAD = bytes(256)
ENTRIES_KEPT = 10_000
"""The log is cut when it is longer, as a node does: what is measured must not depend on how long it ran."""


class MemoryCluster:
    """Three cores, their logs in memory, and the messages between them. Node 1 leads."""

    def __init__(self) -> None:
        self.storages = {node_id: MemoryStorage(conf_state=ConfState(voters=VOTERS)) for node_id in VOTERS}
        self.nodes = {node_id: RawNode(_config(node_id, storage)) for node_id, storage in self.storages.items()}
        self.stepped = 0
        """Messages that a core took in: those of others, and the answers of its own disk and application."""
        self.applied = 0
        """Entries that the leader has applied."""
        self._waiting: deque[Message] = deque()
        self.nodes[1].campaign()
        self.settle()
        if self.nodes[1].raft.role is not Role.LEADER:
            sys.exit("node 1 was not elected")

    def settle(self) -> None:
        """Write, deliver and apply until nothing is left to do."""
        while True:
            for node_id, node in self.nodes.items():
                while node.has_ready():
                    self._process(node_id, node.ready().messages)
            if not self._waiting:
                return
            self._deliver()

    def propose(self, count: int, *, together: bool) -> None:
        """Let the leader append `count` proposals, by one call or one by one, and all nodes do what follows."""
        calls, more = (1, (PAYLOAD,) * (count - 1)) if together else (count, ())
        for _ in range(calls):
            self.nodes[1].propose(PAYLOAD, *more)
        self.settle()
        self.stepped += calls
        self._cut_logs()

    def _deliver(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        self.stepped += len(waiting)
        for message in waiting:
            self.nodes[message.to].step(message)

    def _process(self, node_id: int, messages: Sequence[Message]) -> None:
        for message in messages:
            if not is_local_thread(message.to):
                self._waiting.append(message)
                continue
            if message.to == LOCAL_APPEND_THREAD:
                self._write(self.storages[node_id], message)
            elif node_id == 1:
                self.applied += len(message.entries)
            self._waiting.extend(message.responses)

    def _write(self, storage: MemoryStorage, message: Message) -> None:
        if message.term:
            storage.set_hard_state(HardState(message.term, message.vote, message.commit))
        storage.append(message.entries)

    def _cut_logs(self) -> None:
        for node_id, storage in self.storages.items():
            applied = self.nodes[node_id].raft.log.applied
            if applied - storage.first_index() > ENTRIES_KEPT:
                storage.create_snapshot(applied, b"")
                storage.compact(applied - ENTRIES_KEPT // 10)


def main(arguments: Sequence[str]) -> int:
    """Measure, show a table, and keep the results of a full run."""
    parser = argparse.ArgumentParser(prog="bench_consensus", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="each part once, small, and keep nothing")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for each part; {SECONDS:g} unless given")
    options = parser.parse_args(arguments)
    seconds = QUICK_SECONDS if options.quick else options.seconds
    cases = ((1, False), (16, False), (16, True), (128, False), (128, True))
    results = [result for burst, together in cases for result in _measure(burst, seconds, together=together)]
    Console().print(_table(results))
    if not options.quick:
        report = {"machine": describe_machine(), "results": results}
        (RESULTS / "consensus.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return 0


def _config(node_id: int, storage: MemoryStorage) -> Config:
    return Config(
        id=node_id,
        storage=storage,
        rng=random.Random(node_id),
        async_storage_writes=True,
        max_bytes_per_message=512 * 1024,
        max_inflight_bytes=4 * 1024 * 1024,
    )


def _measure(burst: int, seconds: float, *, together: bool) -> list[Result]:
    """Propose `burst` at a time until the time is up; each time all of them are committed and applied."""
    cluster = MemoryCluster()
    cluster.propose(burst, together=together)
    stepped, applied, latencies_s = cluster.stepped, cluster.applied, list[float]()
    started_s = perf_counter()
    while (asked_s := perf_counter()) < started_s + seconds:
        cluster.propose(burst, together=together)
        latencies_s.append(perf_counter() - asked_s)
    timing = Timing(latencies_s, perf_counter() - started_s)
    case = f"256 B, {burst} at a time{', in one call' if together else ''}"
    proposals = summarize("proposals", case, timing, items=burst)
    if cluster.applied - applied != burst * len(latencies_s):
        sys.exit(f"{burst * len(latencies_s)} were proposed, {cluster.applied - applied} applied")
    messages = cluster.stepped - stepped
    return [
        proposals,
        Result(question="messages", case=case, requests=messages, per_s=round(messages / timing.run_s, 1)),
    ]


def _table(results: Sequence[Result]) -> Table:
    table = Table("question", "case", "per second", "p50 ms", "p95 ms", "p99 ms")
    for result in results:
        numbers = (result.per_s, result.p50_ms, result.p95_ms, result.p99_ms)
        table.add_row(result.question, result.case, *("" if number is None else f"{number:,.3f}" for number in numbers))
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
