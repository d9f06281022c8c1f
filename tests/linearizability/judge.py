"""What to say of a whole history: every message and every core memory by itself, lists and the log as a whole."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tests.linearizability import lists, wgl
from tests.linearizability.history import Operation, Outcome
from tests.linearizability.partition import split_facts, split_messages
from tests.linearizability.specifications import FactsSpecification, MessageSpecification
from tests.linearizability.wgl import Answer, Call, Span, Specification, State, Verdict

EXAMPLES_MAX = 3
"""Faults of one kind that are told."""


class Judgement(NamedTuple):
    """What was found."""

    verdict: Verdict
    faults: Sequence[str]
    """Why it is not linearizable, each in words, a line or several."""
    odd: Sequence[str]
    """Answers that the API does not name: what they mean is unknown, and so they are no violation by themselves."""
    objects: int
    """How many were checked by themselves."""
    largest: int
    """Operations on the busiest of them."""
    steps: int
    """Of all searches."""


def judge(operations: Sequence[Operation], *, steps_max: int = wgl.STEPS_MAX) -> Judgement:
    """Check all that can be checked of a history; a search is given up after `steps_max` steps."""
    found = [
        _judge_each("message", MessageSpecification(), split_messages(operations), steps_max),
        _judge_each("facts of", FactsSpecification(), split_facts(operations), steps_max),
    ]
    faults = [
        *lists.find_faults(operations)[:EXAMPLES_MAX],
        *(fault for part in found for fault in part.faults[:EXAMPLES_MAX]),
    ]
    verdict = Verdict.LINEARIZABLE
    if faults:
        verdict = Verdict.VIOLATION
    elif any(part.verdict is Verdict.UNDECIDED for part in found):
        verdict = Verdict.UNDECIDED
    return Judgement(
        verdict,
        faults,
        [f"answered what must not be answered: {operation}" for operation in operations if _is_odd(operation)],
        objects=sum(part.objects for part in found),
        largest=max(part.largest for part in found),
        steps=sum(part.steps for part in found),
    )


def _judge_each(
    kind: str,
    specification: Specification[State, Call, Answer],
    objects: Mapping[str, Sequence[Span[Call, Answer]]],
    steps_max: int,
) -> Judgement:
    reports = {name: wgl.check(specification, spans, steps_max=steps_max) for name, spans in sorted(objects.items())}
    verdicts = {report.verdict for report in reports.values()}
    return Judgement(
        Verdict.UNDECIDED if Verdict.UNDECIDED in verdicts else Verdict.LINEARIZABLE,
        [
            f"{kind} {name}: {wgl.explain(specification, objects[name], report)}"
            for name, report in reports.items()
            if report.verdict is Verdict.VIOLATION
        ],
        [],
        objects=len(reports),
        largest=max(map(len, objects.values()), default=0),
        steps=sum(report.steps for report in reports.values()),
    )


def _is_odd(operation: Operation) -> bool:
    """Whether an answer is none of those that the API names for it."""
    if operation.status is None or operation.outcome is Outcome.ANSWERED:
        return False
    return operation.status not in {307, 503, 504}
