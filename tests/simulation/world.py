"""A world of nodes, disks, links and clients in which everything that happens comes from one queue and one seed."""

import itertools
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Any

from engram.log.consensus.types import ConfState
from engram.log.members import Member
from tests.simulation.clients import Client
from tests.simulation.dice import Dice
from tests.simulation.disk import Disk
from tests.simulation.faults import Nemesis
from tests.simulation.machine import Counting, Erasing, Machine, Model
from tests.simulation.network import Network
from tests.simulation.node import Node
from tests.simulation.projections import Folding, Remembering
from tests.simulation.referee import Foul, Referee
from tests.simulation.trace import Trace
from tests.simulation.weather import Weather, drawn

CLUSTER = "simulated"

STORM_EVENTS = 20_000
"""More than happens in one election timeout, even of seven nodes that catch up."""

Handler = Callable[[Any], None]


class World:
    """One run. `trace` looks at each step."""

    def __init__(
        self, seed: int, *, trace: Trace | None = None, moves: int | None = None, projections: bool = False
    ) -> None:
        self.seed = seed
        self.dice = Dice(seed)
        self.weather: Weather = drawn(self.dice, moves=moves)
        self.now_us = 0
        self.events = 0
        self._trace = trace
        self._queue: list[tuple[int, int, Handler, Any]] = []
        self._order = itertools.count()
        self._numbers = itertools.count(1)
        self.model: Model = Remembering() if projections else Counting()
        self.referee = Referee(self, self.model)
        self.network = Network(self)
        self.nodes: dict[int, Node] = {}
        self.ids = tuple(range(1, self.weather.size + self.weather.spares + 1))
        self.clients = [Client(self) for _ in range(self.weather.clients)]
        self.nemesis = Nemesis(self)

    def after(self, delay_us: int, handler: Handler, about: Any = None) -> None:
        """Let `handler` be called with `about`, `delay_us` from now."""
        heappush(self._queue, (self.now_us + delay_us, next(self._order), handler, about))

    def run(self, moves: int) -> None:
        """Let that many things happen."""
        queue, trace = self._queue, self._trace
        for _ in range(moves):
            self.now_us, _order, handler, about = heappop(queue)
            handler(about)
            if trace is not None:
                trace.note(self, handler, about)
        self.events += moves

    def run_for(self, duration_us: int) -> None:
        """Let that much time pass."""
        until_us = self.now_us + duration_us
        queue = self._queue
        storm = self.events + STORM_EVENTS
        while queue[0][0] <= until_us:
            self.run(1)
            if self.events > storm:
                raise Foul(
                    f"{STORM_EVENTS} events within {duration_us / 1000:.0f} ms: the cluster does not come to rest"
                )
        self.now_us = until_us

    def under_way(self) -> Iterator[Any]:
        """Yield what the handlers of the queue will be called with."""
        return (about for _time, _order, _handler, about in self._queue)

    def next_number(self) -> int:
        """Return a number that nobody else has."""
        return next(self._numbers)

    def up(self) -> list[Node]:
        """Return the nodes whose process runs and is not paused."""
        return [node for node in self.nodes.values() if node.is_up and node.paused_until_us <= self.now_us]

    def leader(self) -> Node | None:
        """Return a node that leads, in the latest term."""
        return max((node for node in self.up() if node.leads), key=lambda node: node.raw.term, default=None)

    def new_machine(self) -> Machine:
        """Return what a node makes of the log, before its first entry."""
        if isinstance(self.model, Remembering):
            return Folding(self.model, self.dice)
        assert isinstance(self.model, Counting)
        return Erasing(self.model)

    def new_store(self, node_id: int) -> str:
        """Return the name of a disk that is new."""
        return f"store-{node_id}-{self.next_number()}"

    def begin(self) -> None:
        """Start all nodes, all clients, and the trouble."""
        weather = self.weather
        members = ConfState(voters=self.ids[: weather.size])
        for node_id in self.ids:
            disk = Disk(node_id, self.new_store(node_id), self)
            node = self.nodes[node_id] = Node(node_id, disk, self)
            node.machine = self.new_machine()
        book = {
            node_id: Member(address=f"node-{node_id}", store_id=self.nodes[node_id].disk.state.store_id)
            for node_id in members.voters
        }
        founded = self.ids[:1] if weather.is_founded else members.voters
        for node_id in founded:
            self.nodes[node_id].disk.found(CLUSTER, members, book)
        self.referee.founded(members, self.nodes[1].disk.rows[0])
        for node in self.nodes.values():
            node.clock_rate = self._clock_rate()
            node.boot()
        self.nodes[1].do(lambda raw: raw.campaign())
        for client in self.clients:
            self.after(self.dice.below(200_000), client.begin)
        self.nemesis.begin()

    def _clock_rate(self) -> float:
        low, high = self.weather.clock_rate_min, self.weather.clock_rate_max
        return low + (high - low) * self.dice.random()
