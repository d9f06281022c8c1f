"""Clients that write all the time, as clients should: one message after the other, and the same one until it is taken.

Each writer has a session of its own and goes on with another node, and the same message ids, whenever a node refuses,
is gone, or does not answer in time. So every message it ever sent is acknowledged in the end, and stands in the
session once and in the order of sending, whatever happened to the nodes.
"""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import quote, urlsplit

from benchmarks.connection import Answer, Connection, build_request, session_path
from tests.cluster.asking import header, told
from tests.cluster.waiting import pause, wait_until

BATCH_MESSAGES = 5
FINISH_S_MAX = 60.0
"""How long the writers may need, once all is healed, for what they have begun."""


class BrokenPromiseError(AssertionError):
    """A node answered what no client may ever see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How clients behave."""

    writers: int = 8
    pause_s: float = 0.010
    """Between two writes of a writer: with none, the machine's cores are what is measured."""
    retry_s: float = 0.005
    timeout_s: float = 0.5
    """A node that has not answered by then is taken for dead. Sending again costs nothing, as ids make it one write."""
    batch_share: float = 0.1
    text_bytes: int = 100
    read_every_s: float = 0.025


class Acknowledgement(NamedTuple):
    """A write that was promised to be durable."""

    ids: tuple[str, ...]
    node_id: int
    """Who promised it."""
    begun_s: float
    """When it was first sent, by the clock of `perf_counter`."""
    at_s: float
    log_index: int
    attempts: int

    @property
    def latency_s(self) -> float:
        """How long the client waited, all attempts together."""
        return self.at_s - self.begun_s


def text_of(session_id: str, message_id: str, size_bytes: int) -> str:
    """Return what a message says, so that it can be told apart from any other."""
    text = f"message {message_id} of {session_id} says that "
    return text + "it was acknowledged " * (max(0, size_bytes - len(text)) // 20)


class Caller:
    """A client's way to the nodes: one connection, to the node that it thinks leads."""

    def __init__(self, ports: Mapping[int, int], rng: random.Random, habits: Habits) -> None:
        self.node_id = rng.choice(sorted(ports))
        """Whom it asks next."""
        self.shunned: Collection[int] = ()
        """Nodes that it has been told not to ask."""
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []
        """Answers that say that a node is broken. Another may not be, so a client goes on; but no fault excuses them."""
        self._ports = ports
        self._habits = habits
        self._connection: Connection | None = None
        self._connected_to = 0

    async def attempt(self, request: bytes, accepted: Collection[int]) -> Answer | None:
        """Ask once, following one redirect; None when it has to be tried again, with another node.

        Raises:
            BrokenPromiseError: The answer is none of those that a client must expect.
        """
        answer: Answer | None = None
        for _ in range(2):
            answer = await self._ask(request)
            if answer is None or answer.status in {503, 504}:
                break
            self.outcomes[str(answer.status)] += 1
            if answer.status in accepted:
                return answer
            if answer.status >= 500:
                self.failures.append(f"node {self.node_id} answered {told(answer)}")
                break
            if answer.status != 307:
                raise BrokenPromiseError(f"node {self.node_id} answered {told(answer)}")
            if not self._follow(answer):
                break
        else:
            self.outcomes["redirected twice"] += 1
        if answer is not None and answer.status in {503, 504}:
            self.outcomes[str(answer.status)] += 1
        self.go_on()
        return None

    def go_on(self) -> None:
        """Turn to the next node."""
        candidates = [node_id for node_id in sorted(self._ports) if node_id not in self.shunned] or sorted(self._ports)
        self.node_id = next((node_id for node_id in candidates if node_id > self.node_id), candidates[0])

    def hang_up(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _ask(self, request: bytes) -> Answer | None:
        """Return the answer of the node, None if it has none in time."""
        try:
            async with asyncio.timeout(self._habits.timeout_s):
                if self._connection is None or self._connected_to != self.node_id:
                    self.hang_up()
                    self._connection = await Connection.open(self._ports[self.node_id])
                    self._connected_to = self.node_id
                return await self._connection.ask(request)
        except TimeoutError:
            self.outcomes["no answer"] += 1
        except OSError as error:
            self.outcomes["not connected" if isinstance(error, ConnectionRefusedError) else "hung up"] += 1
        except KeyError:
            self.outcomes["removed"] += 1
        self.hang_up()
        return None

    def _follow(self, answer: Answer) -> bool:
        """Turn to the node that a redirect names; return whether that is one to ask."""
        location = header(answer, b"location")
        assert location is not None, f"node {self.node_id} redirects to nowhere"
        port = urlsplit(location.decode()).port
        named = next((node_id for node_id, known in self._ports.items() if known == port), None)
        if named is None or named in self.shunned:
            self.outcomes["redirected to a dead node"] += 1
            return False
        self.node_id = named
        return True


class Writer:
    """One session's only writer."""

    def __init__(self, session_id: str, caller: Caller, rng: random.Random, habits: Habits) -> None:
        self.session_id = session_id
        self.caller = caller
        self.acknowledged: list[Acknowledgement] = []
        self.sent: dict[str, str] = {}
        """Text of every message, by id, in the order of sending."""
        self._rng = rng
        self._habits = habits
        self._asking: asyncio.Task[None] | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Write until told to stop, and finish what was begun."""
        try:
            while not stopping.is_set():
                await self._write(self._next_ids())
                if self._habits.pause_s:
                    await pause(self._habits.pause_s * self._rng.uniform(0.5, 1.5))
        finally:
            self.caller.hang_up()

    def _next_ids(self) -> tuple[str, ...]:
        count = BATCH_MESSAGES if self._rng.random() < self._habits.batch_share else 1
        ids = tuple(f"m{len(self.sent) + number}" for number in range(count))
        for message_id in ids:
            self.sent[message_id] = text_of(self.session_id, message_id, self._habits.text_bytes)
        return ids

    async def _write(self, ids: tuple[str, ...]) -> None:
        drafts = [{"id": message_id, "role": "user", "content": self.sent[message_id]} for message_id in ids]
        body = drafts[0] if len(drafts) == 1 else {"messages": drafts}
        request = build_request("POST", session_path(self.session_id, "/messages"), body)
        begun_s = perf_counter()
        attempts = 1
        while (answer := await self.caller.attempt(request, {200, 204})) is None:
            await pause(self._habits.retry_s)
            attempts += 1
        node_id, at_s = self.caller.node_id, perf_counter()
        self.acknowledged.append(Acknowledgement(ids, node_id, begun_s, at_s, index_of(answer), attempts))


class Reader:
    """Asks random nodes for what was just acknowledged: an answer without it is a lie."""

    def __init__(self, caller: Caller, rng: random.Random, habits: Habits, writers: Sequence[Writer]) -> None:
        self.caller = caller
        self.stale: list[str] = []
        self.answered: Counter[str] = Counter()
        """Reads that got an answer, by kind."""
        self.unanswered: Counter[str] = Counter()
        self._rng = rng
        self._habits = habits
        self._writers = writers

    async def run(self, stopping: asyncio.Event, ports: Mapping[int, int]) -> None:
        """Read until told to stop."""
        try:
            while not stopping.is_set():
                await pause(self._habits.read_every_s)
                written = [writer for writer in self._writers if writer.acknowledged]
                if written:
                    self.caller.node_id = self._rng.choice(sorted(ports))
                    await self._read(self._rng.choice(written))
        finally:
            self.caller.hang_up()

    async def _read(self, writer: Writer) -> None:
        latest = writer.acknowledged[-1]
        kind = self._rng.choice(("min_index", "linearizable"))
        asked = f"min_index={latest.log_index}" if kind == "min_index" else "consistency=linearizable"
        path = session_path(writer.session_id, f"/messages/{quote(latest.ids[-1])}?{asked}")
        node_id = self.caller.node_id
        answer = await self.caller.attempt(build_request("GET", path), {200, 404})
        if answer is None:
            self.unanswered[kind] += 1
            return
        self.answered[kind] += 1
        if answer.status == 404 or index_of(answer) < latest.log_index:
            self.stale.append(
                f"{writer.session_id}/{latest.ids[-1]}, acknowledged by node {latest.node_id} at index {latest.log_index}, "
                f"read from node {node_id} with {asked}: index {index_of(answer)}, {told(answer)[:200]}"
            )


class Workload:
    """Writers and readers that run while something happens to the nodes."""

    def __init__(self, ports: Mapping[int, int], rng: random.Random, habits: Habits) -> None:
        self._ports = ports
        self._habits = habits
        self.writers = [
            Writer(f"s-{number}", Caller(ports, rng, habits), rng, habits) for number in range(habits.writers)
        ]
        self._informed = Writer("s-informed", Caller(ports, rng, habits), rng, habits)
        """The one who is told at once when a node fails, as a client is whose connection breaks. It measures when
        writing is possible again, where the others measure how soon they notice."""
        self.writers.append(self._informed)
        self.readers = [Reader(Caller(ports, rng, habits), rng, habits, self.writers) for _ in range(2)]
        self._stopping = asyncio.Event()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        for writer in self.writers:
            self._group.create_task(writer.run(self._stopping))
        for reader in self.readers:
            self._group.create_task(reader.run(self._stopping, self._ports))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._stopping.set()
        if error is not None:
            await self._group.__aexit__(kind, error, at)
            return
        try:
            async with asyncio.timeout(FINISH_S_MAX):
                await self._group.__aexit__(None, None, None)
        except TimeoutError:
            raise BrokenPromiseError(f"what was begun is not accepted within {FINISH_S_MAX:g} s") from None

    @property
    def messages(self) -> int:
        """How many messages are acknowledged."""
        return sum(len(done.ids) for done in self.acknowledgements())

    def acknowledgements(self) -> Iterator[Acknowledgement]:
        """Yield all of them, in no order."""
        for writer in self.writers:
            yield from writer.acknowledged

    def outcomes(self) -> Counter[str]:
        """Return what the writers were answered, and how often."""
        return sum((writer.caller.outcomes for writer in self.writers), Counter())

    def failures(self) -> list[str]:
        """Return what was answered, to writers and readers, that no fault of a node excuses."""
        callers = [writer.caller for writer in self.writers] + [reader.caller for reader in self.readers]
        return [failure for caller in callers for failure in caller.failures]

    def shun(self, node_ids: Collection[int]) -> None:
        """Tell the informed client which nodes have failed; nobody else."""
        caller = self._informed.caller
        caller.shunned = frozenset(node_ids)
        if caller.node_id in caller.shunned:
            caller.go_on()
            caller.hang_up()  # what it waits for there ends with an error, and it goes on

    async def wait_written(self, since_s: float, *, but_by: Collection[int], within_s: float) -> float:
        """Return when the first write after `since_s` was acknowledged by none of the nodes `but_by`.

        Raises:
            NeverError: None was within `within_s`.
        """

        async def is_written() -> bool:
            return self._first(since_s, but_by) is not None

        await wait_until(is_written, "a write is accepted", within_s=within_s, every_s=0.005)
        first_s = self._first(since_s, but_by)
        assert first_s is not None
        return first_s

    def _first(self, since_s: float, but_by: Collection[int]) -> float | None:
        found = [
            done.at_s
            for writer in self.writers
            for done in _since(writer.acknowledged, since_s)
            if done.node_id not in but_by
        ]
        return min(found, default=None)

    def longest_gap_s(self, from_s: float, to_s: float) -> float:
        """Return the longest time without any acknowledgement that ended, or lasted, between these moments."""
        times_s = [done.at_s for writer in self.writers for done in _since(writer.acknowledged, from_s)]
        before_s = [at_s for writer in self.writers if (at_s := _last_before(writer, from_s)) is not None]
        marks_s = [max(before_s, default=from_s), *sorted(at_s for at_s in times_s if at_s <= to_s), to_s]
        return max(later - earlier for earlier, later in itertools.pairwise(marks_s))

    def slowest_s(self, from_s: float, to_s: float) -> float:
        """Return the longest wait of a client whose write was under way between these moments."""
        waits_s = [
            done.latency_s
            for writer in self.writers
            for done in _since(writer.acknowledged, from_s)
            if done.begun_s <= to_s
        ]
        return max(waits_s, default=0.0)


def index_of(answer: Answer) -> int:
    """Return an answer's Engram-Index, 0 without one."""
    return int(header(answer, b"engram-index") or 0)


def _since(acknowledged: Sequence[Acknowledgement], from_s: float) -> Iterator[Acknowledgement]:
    """Yield those after `from_s`, newest first: a writer's are in order, and most are older."""
    for done in reversed(acknowledged):
        if done.at_s < from_s:
            return
        yield done


def _last_before(writer: Writer, moment_s: float) -> float | None:
    return next((done.at_s for done in reversed(writer.acknowledged) if done.at_s < moment_s), None)
