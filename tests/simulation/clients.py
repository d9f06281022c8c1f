"""Clients: each has one request under way, which it repeats, with the same id, until it knows what became of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engram.log.consensus.types import NO_NODE, Entry, ReadState
from tests.simulation.referee import Foul

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

THINK_US = 60_000
REDIRECTS_MAX = 8


class Attempt:
    """One request to one node: a command, or a read."""

    __slots__ = ("client", "floor", "index", "number")

    def __init__(self, client: "Client", number: int, floor: int) -> None:
        self.client = client
        self.number = number
        """Of the request; attempts at the same one share it."""
        self.floor = floor
        """What was committed when it was made: a read that is answered now must not be older."""
        self.index = 0

    def applied(self, node: "Node", entry: Entry, *, proposed_in: int) -> None:
        """Take the answer of the node that the command was given to: the entry at its place is applied."""
        client = self.client
        if entry.term != proposed_in:  # another leader's entry: nothing was written, and nothing will be
            client.refused(self)
            return
        counted_at = client.world.model.counted_at(self.number)
        if not 0 < counted_at <= entry.index:
            raise Foul(f"node {node.id} acknowledges command {self.number} by {entry}; it counts at {counted_at}")
        client.done(self)

    def confirmed(self, index: int) -> None:
        """Take the index that a read must wait for."""
        self.index = index
        if index < self.floor:
            raise Foul(f"a read would see {index}, and {self.floor} was committed before it was asked for")

    def read(self, node: "Node") -> None:
        """Take the answer to a read."""
        if node.applied_index < self.floor:
            raise Foul(f"node {node.id} answers a read by {node.applied_index}; {self.floor} was committed before")
        self.client.done(self)


class Waiting:
    """The attempts that a process has to answer; they go with it."""

    def __init__(self) -> None:
        self._expected: dict[int, list[tuple[int, Attempt]]] = {}
        """By the index of the entry that is to be applied, with the term in which it was proposed."""
        self._asked: dict[bytes, Attempt] = {}
        self._confirmed: list[Attempt] = []

    def expect(self, index: int, term: int, attempt: Attempt) -> None:
        """Let a command wait for its entry to be applied."""
        self._expected.setdefault(index, []).append((term, attempt))

    def applied(self, node: "Node", entry: Entry) -> None:
        """Answer those who wait for `entry`."""
        if entry.index in self._expected:
            for term, attempt in self._expected.pop(entry.index):
                attempt.applied(node, entry, proposed_in=term)

    def ask(self, context: bytes, attempt: Attempt) -> None:
        """Let a read wait for the index that it must see."""
        self._asked[context] = attempt

    def confirmed(self, states: Sequence[ReadState]) -> None:
        """Let reads wait for the index that they must see to be applied."""
        for state in states:
            attempt = self._asked.pop(state.context, None)
            if attempt is not None:
                attempt.confirmed(state.index)
                self._confirmed.append(attempt)

    def answer(self, node: "Node") -> None:
        """Answer the reads that have waited long enough."""
        if not self._confirmed:
            return
        for attempt in self._confirmed:
            if attempt.index <= node.applied_index:
                attempt.read(node)
        self._confirmed = [attempt for attempt in self._confirmed if attempt.index > node.applied_index]


class Client:
    """Asks for one thing after the other."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self._number = 0
        self._data: bytes | None = None
        """The command that is under way; None for a read."""
        self._attempt: Attempt | None = None
        self._target = 0
        self._redirects = 0
        self.acknowledged = 0
        self.is_stopped = False

    def begin(self, _: object = None) -> None:
        """Ask for something new."""
        if self.is_stopped:
            return
        world = self.world
        self._number = world.next_number()
        self._data = None if world.dice.chance(world.weather.reading) else world.model.command(self._number, world.dice)
        self._redirects = 0
        self._ask()

    def stop(self) -> None:
        """Ask for nothing any more."""
        self.is_stopped = True
        self._attempt = None
        self._number = 0

    def write_once(self) -> None:
        """Ask for one more write."""
        self.is_stopped = False
        self._number = self.world.next_number()
        self._data = self.world.model.command(self._number, self.world.dice)
        self._ask()

    def done(self, attempt: Attempt) -> None:
        """Note that the request succeeded, by whichever attempt."""
        if attempt.number != self._number or self._attempt is None:
            return
        self._attempt = None
        self._number = 0  # whatever else was tried for it comes to nothing
        self.acknowledged += 1
        world = self.world
        if world.network.is_calm:
            return
        world.after(1 + world.dice.below(THINK_US), self.begin)

    def refused(self, attempt: Attempt) -> None:
        """Note that an attempt came to nothing."""
        if attempt is self._attempt:
            self._again(self.world.dice.below(THINK_US))

    def _again(self, delay_us: int) -> None:
        self._attempt = None
        self.world.after(1 + delay_us, self._retry, self._number)

    def _retry(self, number: int) -> None:
        if number == self._number and self._attempt is None and not self.is_stopped:
            self._ask()

    def _ask(self) -> None:
        world = self.world
        node = world.nodes.get(self._target)
        if node is None or not node.is_up or node.paused_until_us > world.now_us:
            self._target = world.dice.pick(world.ids)
            self._again(world.dice.below(THINK_US))
            return
        attempt = self._attempt = Attempt(self, self._number, len(world.referee.committed))
        world.after(world.weather.patience_us, self._lose_patience, attempt)
        if self._data is None:
            node.read(b"%d" % world.next_number(), attempt)
        elif not node.propose(self._data, attempt):
            self._redirect(node)

    def _redirect(self, node: "Node") -> None:
        """Go where the node says; or, as it knows nothing, to any."""
        world = self.world
        leader_id = node.raw.raft.leader_id if node.is_up else NO_NODE
        self._redirects += 1
        is_lost = leader_id in {NO_NODE, node.id} or self._redirects % REDIRECTS_MAX == 0
        self._target = world.dice.pick(world.ids) if is_lost else leader_id
        self._again(world.dice.below(THINK_US) if is_lost else 1000)

    def _lose_patience(self, attempt: Attempt) -> None:
        """Nobody knows what became of it: ask another node, by the same id."""
        if attempt is self._attempt and not self.is_stopped:
            self._target = self.world.dice.pick(self.world.ids)
            self._again(0)
