"""The checker on histories whose verdict is known, and against one that tries every order."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest

from tests.linearizability.specifications import (
    Add,
    Delete,
    FactsSpecification,
    Look,
    LookAll,
    MessageSpecification,
    MessageState,
    Pin,
    Pinned,
    Unpin,
    Word,
)
from tests.linearizability.wgl import Report, Span, Specification, Verdict, check, explain

Call = Add | Delete | Look | Pin | Unpin | LookAll
Answer = Word | Pinned | str | tuple[tuple[str, str], ...] | None
AnySpan = Span[Any, Any]
AnySpecification = Specification[Any, Any, Any]
Case = tuple[int, int | None, Call, Answer]
"""From when until when, what was asked, and what was answered."""

MESSAGE: Specification[MessageState, Add | Delete | Look, Word | str | None] = MessageSpecification()
FACTS = FactsSpecification()


def spans(*cases: Case) -> list[AnySpan]:
    return [Span(called, returned, call, answer, f"#{at}") for at, (called, returned, call, answer) in enumerate(cases)]


GOOD: dict[str, Sequence[Case]] = {
    "nothing": [],
    "one after the other": [
        (0, 1, Look(), None),
        (2, 3, Add("a"), Word.CREATED),
        (4, 5, Look(), "a"),
        (6, 7, Add("a"), Word.DUPLICATE),
        (8, 9, Add("b"), Word.CONFLICT),
        (10, 11, Delete(), Word.DONE),
        (12, 13, Look(), None),
        (14, 15, Add("a"), Word.DELETED),
    ],
    "a read during a write sees it or not": [
        (0, 9, Add("a"), Word.CREATED),
        (1, 2, Look(), None),
        (3, 4, Look(), "a"),
    ],
    "of two writes at once the one that returns later comes first": [
        (0, 9, Add("a"), Word.CREATED),
        (1, 5, Add("a"), Word.DUPLICATE),
    ],
    "an unknown write happens after others have returned": [
        (0, None, Add("a"), None),
        (1, 2, Look(), None),
        (3, 4, Look(), None),
        (5, 6, Look(), "a"),
    ],
    "an unknown write never happens": [(0, None, Add("a"), None), (1, 2, Look(), None), (3, 4, Add("b"), Word.CREATED)],
    "an unknown deletion happens between a retry and a read": [
        (0, 1, Add("a"), Word.CREATED),
        (2, None, Delete(), None),
        (3, 4, Add("a"), Word.DUPLICATE),
        (5, 6, Look(), None),
    ],
    "what touches at one instant may be in either order": [(0, 5, Add("a"), Word.CREATED), (5, 6, Look(), None)],
}

BAD: dict[str, tuple[Sequence[Case], int]] = {
    "stale read": ([(0, 1, Add("a"), Word.CREATED), (2, 3, Look(), None)], 1),
    "lost write": ([(0, 1, Add("a"), Word.CREATED), (2, 3, Look(), "a"), (4, 5, Look(), None)], 2),
    "created twice": ([(0, 1, Add("a"), Word.CREATED), (2, 3, Add("a"), Word.CREATED)], 1),
    "created twice at once": ([(0, 5, Add("a"), Word.CREATED), (1, 6, Add("a"), Word.CREATED)], 1),
    "duplicate of nothing": ([(0, 1, Add("a"), Word.DUPLICATE)], 0),
    "a read that goes back": ([(0, 9, Add("a"), Word.CREATED), (1, 2, Look(), "a"), (3, 4, Look(), None)], 2),
    "a deleted message comes back": (
        [(0, 1, Add("a"), Word.CREATED), (2, 3, Delete(), Word.DONE), (4, 5, Look(), "a")],
        2,
    ),
    "an unknown write happens before it was asked for": ([(0, 1, Look(), "a"), (2, None, Add("a"), None)], 0),
    "an unknown write happens, is undone, and happens again": (
        [(0, None, Add("a"), None), (1, 2, Look(), "a"), (3, 4, Look(), None), (5, 6, Look(), "a")],
        2,
    ),
    "an unknown deletion happens twice": (
        [
            (0, 1, Add("a"), Word.CREATED),
            (2, None, Delete(), None),
            (3, 4, Look(), None),
            (5, 6, Look(), "a"),
        ],
        3,
    ),
    "the order is inverted against real time": (
        [(0, 1, Add("a"), Word.CONFLICT), (2, 3, Add("b"), Word.CREATED)],
        0,
    ),
    "another text": ([(0, 1, Add("a"), Word.CREATED), (2, 3, Look(), "b")], 1),
}

BAD_FACTS: dict[str, tuple[Sequence[Case], int]] = {
    "a pin of unknown outcome happens again after it was undone": (
        [
            (0, None, Pin("f", "a"), None),
            (1, 2, LookAll(), (("f", "a"),)),
            (3, 4, Unpin("f"), Word.DONE),
            (5, 6, LookAll(), (("f", "a"),)),
        ],
        3,
    ),
    "facts in another order than they were pinned": (
        [
            (0, 1, Pin("f", "a"), Pinned("f")),
            (2, 3, Pin("g", "b"), Pinned("g")),
            (4, 5, LookAll(), (("g", "b"), ("f", "a"))),
        ],
        2,
    ),
    "a text stands twice": (
        [(0, 1, Pin("f", "a"), Pinned("f")), (2, 3, Pin("g", "a"), Pinned("g"))],
        1,
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_is_linearizable(name: str) -> None:
    history = spans(*GOOD[name])

    report = check(MESSAGE, history)

    assert report.verdict is Verdict.LINEARIZABLE
    assert_possible(MESSAGE, history, report)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_a_violation_by_the_operation_at_fault(name: str) -> None:
    cases, at_fault = BAD[name]

    report = check(MESSAGE, spans(*cases))

    assert report.verdict is Verdict.VIOLATION
    assert report.stuck == at_fault


@pytest.mark.parametrize("name", BAD_FACTS)
def test_a_bad_history_of_facts_is_a_violation_by_the_operation_at_fault(name: str) -> None:
    cases, at_fault = BAD_FACTS[name]

    report = check(FACTS, spans(*cases))

    assert report.verdict is Verdict.VIOLATION
    assert report.stuck == at_fault


def test_facts_pinned_twice_by_two_unknown_requests_are_linearizable() -> None:
    history = spans(
        (0, None, Pin("f", "a"), None),
        (1, None, Pin("f", "a"), None),
        (2, 3, LookAll(), (("f", "a"),)),
        (4, 5, Unpin("f"), Word.DONE),
        (6, 7, LookAll(), (("f", "a"),)),
        (8, 9, Unpin("f"), Word.DONE),
        (10, 11, LookAll(), ()),
    )

    assert check(FACTS, history).verdict is Verdict.LINEARIZABLE


def test_a_search_that_takes_too_long_ends_without_a_verdict() -> None:
    history = spans(*BAD["created twice at once"][0], *BAD["lost write"][0])

    assert check(MESSAGE, history, steps_max=3).verdict is Verdict.UNDECIDED


def test_many_unknown_writes_that_ask_the_same_cost_no_more_than_one() -> None:
    history = spans(*((0, None, Pin("f", "a"), None) for _ in range(40)), (1, 2, LookAll(), (("g", "b"),)))

    report = check(FACTS, history)

    assert report.verdict is Verdict.VIOLATION
    assert report.steps < 1000


def test_a_violation_is_told_with_what_led_to_it() -> None:
    history = spans(*BAD["a read that goes back"][0])

    told = explain(MESSAGE, history, check(MESSAGE, history))

    assert "#0" in told
    assert "then: a" in told
    assert "cannot come next: #2" in told
    assert "would be answered: a" in told


@pytest.mark.parametrize("seed", range(8))
def test_the_checker_agrees_with_one_that_tries_every_order_of_messages(seed: int) -> None:
    rng = random.Random(seed)
    calls: list[Call] = [Add("a"), Add("b"), Delete(), Look()]
    answers: list[Answer] = [*Word, "a", "b", None]

    verdicts = [compare(MESSAGE, random_history(rng, MESSAGE, calls, answers)) for _ in range(400)]

    assert 40 < sum(verdicts) < 360, "one-sided histories show nothing"


@pytest.mark.parametrize("seed", range(8))
def test_the_checker_agrees_with_one_that_tries_every_order_of_facts(seed: int) -> None:
    rng = random.Random(seed)
    calls: list[Call] = [Pin("f", "a"), Pin("g", "a"), Pin("f", "b"), Unpin("f"), LookAll(), LookAll()]
    answers: list[Answer] = [Pinned("f"), Pinned("g"), Word.CONFLICT, Word.DONE, (), (("f", "a"),), (("f", "b"),)]

    verdicts = [compare(FACTS, random_history(rng, FACTS, calls, answers)) for _ in range(400)]

    assert 40 < sum(verdicts) < 360, "one-sided histories show nothing"


def compare(specification: AnySpecification, history: Sequence[AnySpan]) -> bool:
    """Check a history both ways; return whether it is linearizable."""
    report = check(specification, history)
    is_possible = any(can_be(specification, history, order) for order in orders(history))

    assert report.verdict is (Verdict.LINEARIZABLE if is_possible else Verdict.VIOLATION), [*map(str, history)]
    if is_possible:
        assert_possible(specification, history, report)
    else:
        assert can_be(specification, history, report.order), "what is shown of a violation has happened"
        assert report.stuck is not None
        assert not can_be(specification, history, [*report.order, report.stuck])
    return is_possible


def orders(history: Sequence[AnySpan]) -> list[tuple[int, ...]]:
    """Return every order of the operations that returned and of any of the others."""
    known = [at for at, span in enumerate(history) if span.returned_ns is not None]
    unknown = [at for at, span in enumerate(history) if span.returned_ns is None]
    return [
        order
        for count in range(len(unknown) + 1)
        for happened in itertools.combinations(unknown, count)
        for order in itertools.permutations([*known, *happened])
    ]


def can_be(specification: AnySpecification, history: Sequence[AnySpan], order: Sequence[int]) -> bool:
    """Whether the operations can have happened in that order, and been answered as they were."""
    state = specification.initial
    latest_call = -1
    for at in order:
        span = history[at]
        if span.returned_ns is not None and span.returned_ns < latest_call:
            return False
        latest_call = max(latest_call, span.called_ns)
        state, answer = specification.apply(state, span.call)
        if span.returned_ns is not None and answer != span.answer:
            return False
    return True


def assert_possible(specification: AnySpecification, history: Sequence[AnySpan], report: Report) -> None:
    known = {at for at, span in enumerate(history) if span.returned_ns is not None}

    assert len(set(report.order)) == len(report.order)
    assert known <= set(report.order)
    assert can_be(specification, history, report.order)


def random_history(
    rng: random.Random, specification: AnySpecification, calls: Sequence[Call], answers: Sequence[Answer]
) -> list[AnySpan]:
    """Return up to six operations of an object that is asked by several at once and may answer one of them wrongly."""
    history = []
    state = specification.initial
    for at in range(rng.randint(1, 6)):
        call = rng.choice(calls)
        state, answer = specification.apply(state, call)
        called, returned = 10 * at - rng.randrange(25), 10 * at + rng.randrange(25)
        history.append(Span(called, None if rng.random() < 0.2 else returned, call, answer, f"#{at}"))
    if rng.random() < 0.6:
        wrong = rng.randrange(len(history))
        before = history[wrong]
        history[wrong] = Span(before.called_ns, before.returned_ns, before.call, rng.choice(answers), before.name)
    rng.shuffle(history)
    return history
