"""How much of the evidence that a search finds is in a context of so many tokens, over HTTP?

Evidence are the turns that answer; where the data names whole sessions only, the best hit in each of them. It is found
when it is among the first ten hits, and shown when a message of it is among the memories or in the conversation.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from benchmarks.quality_client import Context
from benchmarks.quality_data import Asked, Turn
from benchmarks.quality_results import Evidence, Packed
from benchmarks.timing import Timing

HITS = 10


class Contexts(Protocol):
    """The part of a memory that is asked."""

    def context(self, session_id: str, query: str, max_tokens: int, now: str | None) -> Context:
        """Return the context for a question."""


class Survival(msgspec.Struct, kw_only=True):
    """What becomes of the evidence in contexts of one budget. The shares are of the turns of all questions together."""

    max_tokens: int
    questions: int
    evidence: int
    found: int
    shown: float
    """Of all evidence, the share that is in the context."""
    found_shown: float
    """The same of that among the first ten hits."""
    found_whole: float
    """That of it whose whole text is there."""
    tokens: float
    """Of the context as the server counts them, on average."""
    p50_ms: float
    p99_ms: float


def evidence(asked: Asked, turns: Sequence[Turn], hits: Sequence[Sequence[int]]) -> Evidence:
    """Return the evidence for a question; `hits` are the places of the turns that each hit is, best first.

    A question without an answer in the conversation has none, though the data may say what it is about.
    """
    if asked.is_abstention:
        return Evidence(turn_ids=[], found_ids=[])
    ranked = [turns[place] for places in hits for place in places]
    if asked.turns:
        wanted = [turn.turn_id for turn in turns if turn.turn_id in asked.turns]
    else:
        best: dict[str, str] = {}
        for turn in ranked:
            best.setdefault(turn.session, turn.turn_id)
        wanted = [best[session] for session in sorted(asked.sessions) if session in best]
    first = {turns[place].turn_id for places in hits[:HITS] for place in places}
    return Evidence(turn_ids=wanted, found_ids=[turn_id for turn_id in wanted if turn_id in first])


def ask(
    memory: Contexts,
    session_id: str,
    question: str,
    now: str | None,
    max_tokens: int,
    parts: Mapping[str, Mapping[str, str]],
) -> Packed:
    """Ask for the context of a question, and look for turns in it: `parts` has each turn's messages and their texts."""
    started_s = time.perf_counter()
    context = memory.context(session_id, question, max_tokens, now)
    context_ms = 1000 * (time.perf_counter() - started_s)
    return Packed(
        max_tokens=max_tokens,
        tokens=context.tokens,
        context_ms=round(context_ms, 3),
        shown_turn_ids=[turn_id for turn_id, texts in parts.items() if _is_shown(context, texts)],
        whole_turn_ids=[
            turn_id for turn_id, texts in parts.items() if all(one in context.text for one in texts.values())
        ],
    )


def _is_shown(context: Context, texts: Mapping[str, str]) -> bool:
    """Say whether a part of a turn is there: by its id, or by its text where the server gives no ids."""
    if context.message_ids is None:
        return any(text in context.text for text in texts.values())
    return not context.message_ids.isdisjoint(texts)


def survivals(asked: Sequence[tuple[Evidence, Sequence[Packed]]]) -> list[Survival]:
    """Return a line for each budget."""
    budgets = sorted({packed.max_tokens for _, contexts in asked for packed in contexts})
    return [
        _survival([(one, packed) for one, contexts in asked for packed in contexts if packed.max_tokens == budget])
        for budget in budgets
    ]


def _survival(asked: Sequence[tuple[Evidence, Packed]]) -> Survival:
    wanted = sum(len(one.turn_ids) for one, _ in asked)
    found = sum(len(one.found_ids) for one, _ in asked)
    timing = Timing([packed.context_ms / 1000 for _, packed in asked], 1.0)
    return Survival(
        max_tokens=asked[0][1].max_tokens,
        questions=sum(bool(one.turn_ids) for one, _ in asked),
        evidence=wanted,
        found=found,
        shown=_share(sum(len(packed.shown_turn_ids) for _, packed in asked), wanted),
        found_shown=_share(sum(len(_both(one, packed.shown_turn_ids)) for one, packed in asked), found),
        found_whole=_share(sum(len(_both(one, packed.whole_turn_ids)) for one, packed in asked), found),
        tokens=round(statistics.fmean(packed.tokens for _, packed in asked), 1),
        p50_ms=round(timing.quantile_ms(0.5), 3),
        p99_ms=round(timing.quantile_ms(0.99), 3),
    )


def _both(one: Evidence, turn_ids: Sequence[str]) -> set[str]:
    return set(one.found_ids) & set(turn_ids)


def _share(some: int, of: int) -> float:
    return round(some / of, 4) if of else 0.0
