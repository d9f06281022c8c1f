"""Clients that write and read all the time, each in a session of its own, and know what they must read.

A write is sent again, under the same ids, until it is acknowledged. After many of them the client reads at once what it
has written, by another way each time. The node may be gone for a while; but while it is there, it has to answer, in
time, and with what was written.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import msgspec

from benchmarks.connection import Answer, Connection, build_request, session_path
from benchmarks.conversations import Conversations
from engram.errors import first_of
from tests.cluster.asking import header, told
from tests.cluster.waiting import pause
from tests.projection_drill.expectations import (
    Expected,
    Said,
    wrong_context,
    wrong_facts,
    wrong_hits,
    wrong_page,
)
from tests.projection_drill.uptime import Uptime

BATCH_MESSAGES = 5
FACTS_MAX = 8
ANSWER_S_MAX = 15.0
"""Far beyond what any answer may take: a node that is silent for so long is broken, and its client goes on."""

RETRY_S = 0.02
FINISH_S_MAX = 60.0
"""How long the clients may need for what they have begun."""

MISTAKES_MAX = 50
"""A client that has been told so much that is wrong has told enough itself."""


class BrokenPromiseError(AssertionError):
    """The node answered what no client may ever see, so that it cannot go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How clients behave."""

    clients: int = 8
    lasting: int = 2
    """How many never delete their session, so that it grows."""
    pause_s: float = 0.01
    """Between two requests of one client, on average."""
    write_share: float = 0.7
    read_share: float = 0.6
    """How often a client writes, and how often it reads, when its time has come: some reads follow a write at once, and
    some come when nothing was written for long."""
    short_term_count: int = 10
    """The node's setting: short, so that the window moves all the time."""


class Asked(NamedTuple):
    """One request that got an answer."""

    kind: str
    """write, delete or read: deleting waits for the disk to be clean."""
    at_s: float
    took_s: float
    status: int


class _Write(NamedTuple):
    kind: str
    request: bytes
    note: Callable[[], None]
    """What its acknowledgement means for what is expected."""


class Client:
    """One session's only writer, and its reader."""

    def __init__(self, number: int, port: int, seed: str, habits: Habits, uptime: Uptime) -> None:
        self.expected = Expected(f"s-{number}")
        self.asked: list[Asked] = []
        self.outcomes: Counter[str] = Counter()
        self.mistakes: list[str] = []
        """Answers that must not be, in words."""
        self.acknowledged = 0
        """Messages."""
        self.is_quiet = False
        """It only reads: what was written last must be there as well when nothing is written after it."""
        self._port = port
        self._habits = habits
        self._uptime = uptime
        self._random = random.Random(f"{seed} client {number}")
        self._said = Conversations(self._random.randrange(2**32))
        self._forgets = number >= habits.lasting
        self._count = 0
        self._connection: Connection | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Write and read until told to stop; what was begun is finished."""
        try:
            while not stopping.is_set() and len(self.mistakes) < MISTAKES_MAX:
                if not self.is_quiet and self._random.random() < self._habits.write_share:
                    await self._write(self._next_write())
                if self._random.random() < self._habits.read_share:
                    await self._read_back()
                await pause(self._habits.pause_s * self._random.uniform(0, 2))
        finally:
            self._hang_up()

    def word(self, message_id: str) -> str:
        """Return the word that only this message has."""
        return f"zq{self.expected.session_id}{message_id}k".replace("-", "x")

    def _path(self, rest: str = "") -> str:
        return session_path(self.expected.session_id, rest)

    def _next_write(self) -> _Write:
        if not self.expected.is_there:
            return self._create()
        kinds = ("append", "batch", "pin", "unpin", "delete", "forget")
        (kind,) = self._random.choices(kinds, (60, 8, 12, 8, 6, 0.5 if self._forgets else 0))
        if kind == "forget":
            return _Write("delete", build_request("DELETE", self._path()), self.expected.forget)
        if kind == "delete" and self.expected.messages:
            return self._delete()
        if kind in {"pin", "unpin"}:
            return self._change_facts(pins=kind == "pin")
        return self._append(BATCH_MESSAGES if kind == "batch" else 1)

    def _change_facts(self, *, pins: bool) -> _Write:
        """Pin a fact or unpin one; where there is none, or there are enough, the other."""
        count = len(self.expected.facts)
        return self._pin() if count == 0 or (pins and count < FACTS_MAX) else self._unpin()

    def _next_id(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"

    def _create(self) -> _Write:
        session_id = self.expected.session_id
        body = {"session_id": session_id, "agent_id": f"agent-{self._random.randrange(2)}", "user_id": "ann"}

        def note() -> None:
            self.expected.is_there = True

        return _Write("write", build_request("POST", "/sessions", body), note)

    def _append(self, count: int) -> _Write:
        said: dict[str, Said] = {}
        for number in range(len(self.expected.messages), len(self.expected.messages) + count):
            message_id = self._next_id("m")
            text = f"{self._said.text()} {self.word(message_id)}"
            said[message_id] = Said("assistant" if number % 2 else "user", text)
        drafts = [{"id": key, "role": message.role, "content": message.text} for key, message in said.items()]
        body = drafts[0] if count == 1 else {"messages": drafts}

        def note() -> None:
            self.expected.messages |= said
            self.acknowledged += len(said)

        return _Write("write", build_request("POST", self._path("/messages"), body), note)

    def _pin(self) -> _Write:
        fact_id = self._next_id("f")
        fact = f"{self._said.query()} {fact_id}"

        def note() -> None:
            self.expected.facts[fact_id] = fact

        return _Write("write", build_request("PUT", self._path("/core-memory"), {"id": fact_id, "fact": fact}), note)

    def _unpin(self) -> _Write:
        fact_id = self._random.choice(list(self.expected.facts))

        def note() -> None:
            del self.expected.facts[fact_id]

        return _Write("delete", build_request("DELETE", self._path(f"/core-memory/{fact_id}")), note)

    def _delete(self) -> _Write:
        recent = list(self.expected.messages)[-2 * self._habits.short_term_count :]
        message_id = self._random.choice(recent)

        def note() -> None:
            del self.expected.messages[message_id]

        return _Write("delete", build_request("DELETE", self._path(f"/messages/{message_id}")), note)

    async def _write(self, write: _Write) -> None:
        """Have it acknowledged.

        Raises:
            BrokenPromiseError: It was refused.
        """
        while (answer := await self._ask(write.kind, write.request)) is None:
            await pause(RETRY_S)
        if answer.status not in {200, 204}:
            raise BrokenPromiseError(f"{self.expected.session_id}: {write.request[:120]!r} was answered {told(answer)}")
        write.note()
        self.expected.log_index = int(header(answer, b"engram-index") or 0)

    async def _read_back(self) -> None:
        """Read what was written, in one of the ways in which it can be read, and note what is wrong with it."""
        way = self._random.choice(("context", "context", "facts", "page", "search"))
        request, judge = self._reading(way)
        answer = await self._ask("read", request)
        if answer is None:
            return
        wrong = judge(answer)
        if wrong:
            self._note_mistake(f"{way} at entry {header(answer, b'engram-index')!r}: {wrong}")

    def _reading(self, way: str) -> tuple[bytes, Callable[[Answer], str | None]]:
        """Return what to ask, and how to judge the answer."""
        expected, count = self.expected, self._habits.short_term_count
        if way == "search" and expected.messages:
            wanted = self._random.choice(list(expected.messages)[-count:])
            request = build_request("POST", self._path("/search"), {"query": self.word(wanted), "top_k": 200})
            return request, partial(_wrong, expected, partial(wrong_hits, expected, wanted))
        if way == "facts":
            return self._get("/core-memory"), partial(_wrong, expected, partial(wrong_facts, expected))
        if way == "page":
            return self._get("/messages?order=desc"), partial(_wrong, expected, partial(wrong_page, expected))
        judge = partial(wrong_context, expected, count)
        return self._get("/context?max_tokens=1000000"), partial(_wrong, expected, judge)

    def _get(self, rest: str) -> bytes:
        return build_request("GET", self._path(rest))

    async def _ask(self, kind: str, request: bytes) -> Answer | None:
        """Return the node's answer; None when it has none, or one that only says that it cannot yet."""
        begun_s = perf_counter()
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                if self._connection is None:
                    self._connection = await Connection.open(self._port)
                answer = await self._connection.ask(request)
        except (OSError, TimeoutError) as error:
            self._hang_up()
            self._note_failure(begun_s, type(error).__name__, request)
            return None
        now_s = perf_counter()
        if answer.status >= 500:
            self._note_failure(begun_s, told(answer), request, key=str(answer.status))
            return None
        self.outcomes[str(answer.status)] += 1
        self.asked.append(Asked(kind, begun_s, now_s - begun_s, answer.status))
        return answer

    def _note_failure(self, begun_s: float, what: str, request: bytes, *, key: str | None = None) -> None:
        self.outcomes[key or what] += 1
        if not self._uptime.excuses(begun_s, perf_counter()):
            self._note_mistake(f"{what} to {request[:120]!r}, and nobody had touched the node")

    def _note_mistake(self, what: str) -> None:
        if len(self.mistakes) < MISTAKES_MAX:
            self.mistakes.append(f"{self.expected.session_id}: {what}")

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Clients:
    """All of them, and what they have seen."""

    def __init__(self, port: int, seed: str, habits: Habits, uptime: Uptime) -> None:
        self.habits = habits
        self.all = [Client(number, port, seed, habits, uptime) for number in range(habits.clients)]

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Let them write and read until this is left; what they have begun is done then.

        Raises:
            BrokenPromiseError: A write was refused, or does not come to an end.
        """
        stopping = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(client.run(stopping)) for client in self.all]
                yield
                stopping.set()
                _, unfinished = await asyncio.wait(tasks, timeout=FINISH_S_MAX)
                for task in unfinished:
                    task.cancel()
        except* BrokenPromiseError as broken:
            raise first_of(broken) from None
        if unfinished:
            raise BrokenPromiseError(f"what was begun is not acknowledged within {FINISH_S_MAX:g} s")

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Let them only read, once they have written what they have begun."""
        for client in self.all:
            client.is_quiet = True
        try:
            yield
        finally:
            for client in self.all:
                client.is_quiet = False

    @property
    def acknowledged(self) -> int:
        """Messages that were acknowledged, deleted ones included."""
        return sum(client.acknowledged for client in self.all)

    @property
    def mistakes(self) -> list[str]:
        """What they were told that must not be."""
        return [mistake for client in self.all for mistake in client.mistakes]

    def outcomes(self) -> Counter[str]:
        """Return what they were answered, and how often."""
        return sum((client.outcomes for client in self.all), Counter())

    def asked(self, from_s: float, to_s: float) -> list[Asked]:
        """Return the requests that were under way between these moments."""
        return [
            asked
            for client in self.all
            for asked in client.asked
            if asked.at_s <= to_s and from_s <= asked.at_s + asked.took_s
        ]


def _wrong(expected: Expected, judge: Callable[[Mapping[str, Any]], str | None], answer: Answer) -> str | None:
    """Judge an answer: an unknown session is 404, or has no results."""
    if answer.status == 404:
        return "404, and the session is there" if expected.is_there else None
    if answer.status != 200:
        return told(answer)
    body = msgspec.json.decode(answer.body)
    if not expected.is_there and body != {"results": []}:
        return f"a deleted session is there: {told(answer)}"
    return judge(body) if expected.is_there else None
