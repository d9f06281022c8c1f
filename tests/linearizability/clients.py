"""Clients that ask for everything at once: writes, the same again, deletions, and reads from any node."""

import asyncio
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from tests.cluster.waiting import pause, wait_until
from tests.linearizability.exchange import LINEARIZABLE, Exchange
from tests.linearizability.history import (
    READS,
    AddMessages,
    DeleteMessage,
    Operation,
    Outcome,
    PinFact,
    ReadFacts,
    ReadMessage,
    ReadMessages,
    Request,
    UnpinFact,
)

LIST_MESSAGES_MAX = 140
"""A list that has so many is left alone, and another begun: see PAGE_MESSAGES."""

FINAL_READ_S_MAX = 60.0
TEXTS = ("red", "green", "blue")
FACT_IDS = ("f1", "f2", "f3")
RECENT_IDS = 4
"""How many ids of deletable messages are in use at a time: few, so that clients meet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How clients behave."""

    clients: int = 8
    pause_s: float = 0.020
    refused_s: float = 0.150
    """The same after a refusal: nodes that do not run refuse at once, which would fill a history with nothing."""
    timeout_s: float = 0.5
    again_share: float = 0.15
    """Of the writes that got an answer, those that are sent again all the same."""
    again_unknown_share: float = 0.7
    """Of the writes that got none."""
    stray_share: float = 0.25
    """Of the writes, those that are sent to any node, not to the one that answered last."""
    level: str = LINEARIZABLE
    """What reads ask for that are checked as linearizable ones."""


class Board:
    """What the clients of one history ask for. Sessions are named after the history, and so never met before."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self._name = name
        self._rng = rng
        self._list = 0
        self._list_messages = 0
        self._numbers = itertools.count()
        self._newest = 0
        self.used: dict[str, type[ReadMessages | ReadFacts]] = {}
        """Sessions and how they are read."""

    def first(self) -> tuple[str, Request]:
        """Return a write that makes the session in which messages are deleted."""
        return self._pool_id(), AddMessages((("first", "first"),))

    def next(self, floor_index: int) -> tuple[str, Request]:
        """Return a session and what to ask of it; `floor_index` is a log index that the client knows of."""
        kinds: Sequence[tuple[Callable[[int], tuple[str, Request]], float]] = (
            (self._append, 22),
            (self._read_list, 16),
            (self._change_message, 16),
            (self._read_message, 14),
            (self._change_fact, 14),
            (self._read_facts, 14),
        )
        [make] = self._rng.choices([make for make, _ in kinds], [weight for _, weight in kinds])
        session_id, request = make(floor_index)
        self.used.setdefault(session_id, ReadFacts if "facts" in session_id else ReadMessages)
        return session_id, request

    def _append(self, _: int) -> tuple[str, Request]:
        count = 1 if self._rng.random() < 0.8 else 3
        self._list_messages += count
        if self._list_messages > LIST_MESSAGES_MAX:
            self._list, self._list_messages = self._list + 1, count
        ids = [f"m{next(self._numbers)}" for _ in range(count)]
        return self._list_id(), AddMessages(tuple((message_id, f"says {message_id}") for message_id in ids))

    def _read_list(self, floor_index: int) -> tuple[str, Request]:
        return self._list_id(), ReadMessages(floor_index if self._rng.random() < 0.4 else None)

    def _change_message(self, _: int) -> tuple[str, Request]:
        if self._rng.random() < 0.2:
            self._newest += 1
        message_id = self._recent_id()
        if self._rng.random() < 0.25:
            return self._pool_id(), DeleteMessage(message_id)
        return self._pool_id(), AddMessages(((message_id, self._rng.choices(TEXTS, (8, 1, 1))[0]),))

    def _read_message(self, _: int) -> tuple[str, Request]:
        if self._rng.random() < 0.5:
            return self._pool_id(), ReadMessages()
        return self._pool_id(), ReadMessage(self._recent_id())

    def _change_fact(self, _: int) -> tuple[str, Request]:
        fact_id = self._rng.choice(FACT_IDS)
        if self._rng.random() < 0.4:
            return self._facts_id(), UnpinFact(fact_id)
        return self._facts_id(), PinFact(fact_id, self._rng.choice(TEXTS))

    def _read_facts(self, _: int) -> tuple[str, Request]:
        return self._facts_id(), ReadFacts()

    def _list_id(self) -> str:
        return f"{self._name}-list-{self._list}"

    def _pool_id(self) -> str:
        return f"{self._name}-pool"

    def _facts_id(self) -> str:
        return f"{self._name}-facts-{self._rng.randrange(2)}"

    def _recent_id(self) -> str:
        return f"p{max(0, self._newest - self._rng.randrange(RECENT_IDS))}"


class Client:
    """One that asks one thing after the other, and does not wait for ever."""

    def __init__(self, crowd: "Crowd", number: int, rng: random.Random) -> None:
        self._crowd = crowd
        self._number = number
        self._rng = rng
        self._leader = rng.choice(crowd.node_ids)
        self._exchange = Exchange(crowd.ports, crowd.habits.timeout_s, crowd.habits.level)

    async def run(self, stopping: asyncio.Event) -> None:
        """Ask until told to stop."""
        habits = self._crowd.habits
        try:
            while not stopping.is_set():
                session_id, request = self._crowd.board.next(self._crowd.floor_index)
                operation = await self.ask(session_id, request)
                share = habits.again_unknown_share if operation.outcome is Outcome.UNKNOWN else habits.again_share
                if not isinstance(request, READS) and self._rng.random() < share:
                    await pause(self._rng.uniform(0, habits.pause_s))
                    await self.ask(session_id, request)
                failed = operation.outcome is Outcome.FAILED
                await pause((habits.refused_s if failed else habits.pause_s) * self._rng.uniform(0, 2))
        finally:
            self._exchange.hang_up()

    async def ask(self, session_id: str, request: Request, node_id: int | None = None) -> Operation:
        """Ask one thing, of a certain node or of the one that seems best, and have it written down."""
        crowd = self._crowd
        if node_id is None:
            is_stray = isinstance(request, READS) or self._rng.random() < crowd.habits.stray_share
            node_id = self._rng.choice(crowd.node_ids) if is_stray else self._leader
        operation = await self._exchange.perform(next(crowd.numbers), self._number, session_id, request, node_id)
        crowd.operations.append(operation)
        crowd.floor_index = max(crowd.floor_index, operation.log_index)
        if not isinstance(request, READS):
            is_done = operation.outcome is Outcome.ANSWERED
            self._leader = operation.nodes[-1] if is_done else self._rng.choice(crowd.node_ids)
        return operation


class Crowd:
    """Clients that ask while something happens to the nodes; afterwards, every node is read once more."""

    def __init__(self, name: str, ports: Mapping[int, int], rng: random.Random, habits: Habits) -> None:
        self.ports = ports
        self.node_ids = sorted(ports)
        self.habits = habits
        self.board = Board(name, rng)
        self.numbers = itertools.count()
        self.operations: list[Operation] = []
        self.floor_index = 0
        """The highest log index that any client was told."""
        self._clients = [Client(self, number, rng) for number in range(habits.clients)]
        self._stopping = asyncio.Event()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        for client in self._clients:
            self._group.create_task(client.run(self._stopping))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._stopping.set()
        await self._group.__aexit__(kind, error, at)

    async def prepare(self) -> None:
        """Begin the session whose messages are deleted: in an unknown session a deletion leaves no trace.

        Raises:
            NeverError: Nothing can be written within FINAL_READ_S_MAX.
        """
        begin = partial(_is_answered, self._clients[0], *self.board.first(), None)
        await wait_until(begin, "the first message is written", within_s=FINAL_READ_S_MAX)

    async def read_all(self) -> None:
        """Read every session from every node.

        Raises:
            NeverError: One cannot be read within FINAL_READ_S_MAX.
        """
        async with asyncio.TaskGroup() as group:
            for client, node_id in zip(self._clients, self.node_ids, strict=False):
                group.create_task(self._read_node(client, node_id))

    async def _read_node(self, client: Client, node_id: int) -> None:
        for session_id, read in self.board.used.items():
            is_read = partial(_is_answered, client, session_id, read(), node_id)
            claim = f"{session_id} can be read from node {node_id}"
            await wait_until(is_read, claim, within_s=FINAL_READ_S_MAX, every_s=0.1)


async def _is_answered(client: Client, session_id: str, request: Request, node_id: int | None) -> bool:
    return (await client.ask(session_id, request, node_id)).outcome is Outcome.ANSWERED
