"""The checker of Wing and Gong with Lowe's cache: can these operations have happened one after the other?

Porcupine's way of it: calls and returns stand in one list in the order of time. An operation whose call stands before
the first return may have happened next; it is tried by taking it out of the list, and put back when that leads nowhere.
What was tried is remembered as a set of operations, the bits of one integer, and the state that they led to.

An operation whose outcome is unknown has no return: it may have happened at any time after its call, or never.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, Protocol, TypeVar

Call = TypeVar("Call", bound=Hashable)
Answer = TypeVar("Answer")
State = TypeVar("State", bound=Hashable)
Call_contra = TypeVar("Call_contra", bound=Hashable, contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)

STEPS_MAX = 2_000_000
"""A few seconds. A search that takes longer ends without a verdict."""


class Specification(Protocol[State, Call_contra, Answer_co]):
    """What an object does when it is asked one thing at a time. Every call is possible in every state."""

    @property
    def initial(self) -> State:
        """The state before the first call."""

    def apply(self, state: State, call: Call_contra) -> tuple[State, Answer_co]:
        """Return the state after `call` in `state`, and what is answered."""


@dataclass(frozen=True, slots=True)
class Span(Generic[Call, Answer]):
    """One operation, from its call to its return, by one clock."""

    called_ns: int
    returned_ns: int | None
    """None: the outcome is unknown, and `answer` says nothing."""
    call: Call
    answer: Answer | None
    name: str = ""
    """For people."""

    def __str__(self) -> str:
        if self.returned_ns is None:
            return f"{self.name} [{self.called_ns / 1e9:.6f} s, ...] {self.call} -> unknown"
        return (
            f"{self.name} [{self.called_ns / 1e9:.6f} s, {self.returned_ns / 1e9:.6f} s] {self.call} -> {self.answer}"
        )


class Verdict(StrEnum):
    """What the checker can say of a history."""

    LINEARIZABLE = "linearizable"
    VIOLATION = "violation"
    UNDECIDED = "undecided"
    """The search was given up."""


class Report(NamedTuple):
    """A verdict and what it rests on."""

    verdict: Verdict
    order: Sequence[int]
    """Positions of spans in an order in which they can have happened: all that returned, and the unknown ones that must
    have happened. Where that cannot be, the longest beginning of one that was found."""
    stuck: int | None
    """The span that had to come next and cannot, in case of a violation."""
    steps: int


class _Node:
    """A call or a return in the list. A return has no `match`; nor has a call without a return."""

    __slots__ = ("is_call", "match", "next", "prev", "span")

    def __init__(self, span: int, *, is_call: bool) -> None:
        self.span = span
        self.is_call = is_call
        self.match: _Node | None = None
        self.prev: _Node | None = None
        self.next: _Node | None = None

    def unlink(self) -> None:
        assert self.prev is not None
        self.prev.next = self.next
        if self.next is not None:
            self.next.prev = self.prev

    def relink(self) -> None:
        """Undo `unlink`: the neighbours must be those of then, and so the last one out is the first one in."""
        assert self.prev is not None
        self.prev.next = self
        if self.next is not None:
            self.next.prev = self

    def lift(self) -> None:
        """Take an operation out of the list."""
        self.unlink()
        if self.match is not None:
            self.match.unlink()

    def unlift(self) -> None:
        """Put it back."""
        if self.match is not None:
            self.match.relink()
        self.relink()


def check(
    specification: Specification[State, Call, Answer],
    spans: Sequence[Span[Call, Answer]],
    *,
    steps_max: int = STEPS_MAX,
) -> Report:
    """Return whether `spans` is linearizable, or that `steps_max` steps did not tell. The order of `spans` is free."""
    return _Search(specification, spans).run(steps_max)


class _Search(Generic[State, Call, Answer]):
    def __init__(self, specification: Specification[State, Call, Answer], spans: Sequence[Span[Call, Answer]]) -> None:
        self._specification = specification
        self._spans = spans
        self._twins = _twins(spans)
        self._head = _linked(spans)
        self._left = sum(span.returned_ns is not None for span in spans)
        """How many that have returned are in the list."""
        self._state = specification.initial
        self._done = 0
        """The operations that are not in the list, as bits."""
        self._taken: list[tuple[_Node, State]] = []
        """Each with the state before it."""
        self._tried: set[tuple[int, State]] = set()

    def run(self, steps_max: int) -> Report:
        fewest_left = self._left + 1
        best: list[int] = []
        stuck = steps = 0
        node = self._head.next
        while self._left:
            steps += 1
            if steps > steps_max:
                return Report(Verdict.UNDECIDED, self._order(), None, steps)
            assert node is not None, "a return stands in the list as long as one is left"
            if node.is_call:
                node = self._head.next if self._take(node) else node.next
                continue
            if self._left < fewest_left:
                fewest_left, best, stuck = self._left, self._order(), node.span
            if not self._taken:
                return Report(Verdict.VIOLATION, best, stuck, steps)
            node = self._give_back().next
        return Report(Verdict.LINEARIZABLE, self._order(), None, steps)

    def _order(self) -> list[int]:
        return [node.span for node, _ in self._taken]

    def _take(self, node: _Node) -> bool:
        """Let an operation happen next, if it can and if that is worth trying."""
        span = self._spans[node.span]
        is_unknown = span.returned_ns is None
        # Of two unknown operations that ask the same, the one that was called first can stand for the other.
        if is_unknown and self._twins[node.span] & ~self._done:
            return False
        state, answer = self._specification.apply(self._state, span.call)
        # An unknown operation that changes nothing can as well have happened at the end.
        if state == self._state if is_unknown else answer != span.answer:
            return False
        done = self._done | 1 << node.span
        if (done, state) in self._tried:
            return False
        self._tried.add((done, state))
        self._taken.append((node, self._state))
        self._state, self._done = state, done
        self._left -= not is_unknown
        node.lift()
        return True

    def _give_back(self) -> _Node:
        """Undo the last step; return the operation that was taken."""
        node, self._state = self._taken.pop()
        self._done &= ~(1 << node.span)
        self._left += self._spans[node.span].returned_ns is not None
        node.unlift()
        return node


def _linked(spans: Sequence[Span[Call, Answer]]) -> _Node:
    """Return the head of the list. At the same instant calls come first: what may have overlapped counts as if it had."""
    events: list[tuple[int, bool, int, _Node]] = []
    for position, span in enumerate(spans):
        call = _Node(position, is_call=True)
        events.append((span.called_ns, False, position, call))
        if span.returned_ns is not None:
            assert span.called_ns <= span.returned_ns, f"{span} returned before it was called"
            call.match = _Node(position, is_call=False)
            events.append((span.returned_ns, True, position, call.match))
    head = last = _Node(-1, is_call=False)
    for *_, node in sorted(events, key=lambda event: event[:3]):
        last.next, node.prev = node, last
        last = node
    return head


def _twins(spans: Sequence[Span[Call, Answer]]) -> list[int]:
    """Return for each span the bit of the unknown one with the same call that was called before it, 0 if none."""
    twins = [0] * len(spans)
    latest: dict[Call, int] = {}
    for position in sorted(range(len(spans)), key=lambda position: spans[position].called_ns):
        span = spans[position]
        if span.returned_ns is None:
            twins[position] = 1 << latest[span.call] if span.call in latest else 0
            latest[span.call] = position
    return twins


def explain(
    specification: Specification[State, Call, Answer],
    spans: Sequence[Span[Call, Answer]],
    report: Report,
    last: int = 12,
) -> str:
    """Return a report in words: of the order that was found the last few steps, each with the state that it led to."""
    lines = [f"{report.verdict}: {len(spans)} operations, {report.steps} steps of the search"]
    if report.verdict is not Verdict.VIOLATION or report.stuck is None:
        return lines[0]
    state = specification.initial
    for number, position in enumerate(report.order):
        state, _ = specification.apply(state, spans[position].call)
        if number >= len(report.order) - last:
            lines.append(f"  {number + 1:4}. {spans[position]}   then: {state}")
    stuck = spans[report.stuck]
    _, answer = specification.apply(state, stuck.call)
    lines.append(f"  cannot come next: {stuck}   would be answered: {answer}")
    placed = {*report.order, report.stuck}
    assert stuck.returned_ns is not None
    lines += [
        f"  could have come between: {span}"
        for position, span in enumerate(spans)
        if position not in placed and span.called_ns <= stuck.returned_ns
    ]
    return "\n".join(lines)
