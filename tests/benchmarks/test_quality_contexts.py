"""What of the evidence is in a context is counted as it is, whatever the server tells of the messages in it."""

from dataclasses import dataclass

import pytest

from benchmarks.quality_client import Context
from benchmarks.quality_contexts import ask, evidence, survivals
from benchmarks.quality_data import Asked, Turn
from benchmarks.quality_results import Evidence, Packed

TURNS = [Turn(f"t{place}", "user", f"text {place}", None, f"s{place // 2}") for place in range(6)]


def asked(*, turns: set[str] | None = None, sessions: set[str] | None = None) -> Asked:
    return Asked("q", "kind", "What?", "", None, frozenset(turns or ()), frozenset(sessions or ()))


@dataclass
class Gives:
    """A memory that has one context."""

    given: Context

    def context(self, session_id: str, query: str, max_tokens: int, now: str | None) -> Context:
        return self.given


def packed(*, tokens: int = 2_000, shown: list[str], whole: list[str] | None = None, ms: float = 1.0) -> Packed:
    return Packed(max_tokens=tokens, tokens=9, context_ms=ms, shown_turn_ids=shown, whole_turn_ids=whole or [])


def test_evidence_is_found_when_it_is_among_the_first_ten_hits() -> None:
    hits = [[0], *[[]] * 8, [3], [5]]

    found = evidence(asked(turns={"t0", "t3", "t5"}), TURNS, hits)

    assert (found.turn_ids, found.found_ids) == (["t0", "t3", "t5"], ["t0", "t3"])


def test_where_only_sessions_are_named_evidence_is_the_best_hit_in_each() -> None:
    hits = [[4], [1], [0], [5]]

    found = evidence(asked(sessions={"s0", "s1", "s2"}), TURNS, hits)

    assert (found.turn_ids, found.found_ids) == (["t1", "t4"], ["t1", "t4"])


def test_a_question_without_an_answer_has_no_evidence() -> None:
    found = evidence(asked(turns={"t0"})._replace(is_abstention=True), TURNS, [[0]])

    assert (found.turn_ids, found.found_ids) == ([], [])


@pytest.mark.parametrize(
    ("ids", "shown"),
    [(frozenset({"m1-2"}), ["t1"]), (frozenset({"m2-1", "m9"}), ["t2"]), (frozenset[str](), []), (None, ["t1", "t2"])],
    ids=["one part", "other", "none", "no ids"],
)
def test_a_turn_is_shown_by_the_ids_of_its_messages_or_by_their_texts(
    ids: frozenset[str] | None, shown: list[str]
) -> None:
    memory = Gives(Context("- user: first\n- user: all of it", ids, 7))
    parts = {"t1": {"m1-1": "first", "m1-2": "second"}, "t2": {"m2-1": "all of it"}, "t3": {"m3-1": "else"}}

    found = ask(memory, "s", "What?", None, 2_000, parts)

    assert (found.max_tokens, found.tokens, found.shown_turn_ids, found.whole_turn_ids) == (2_000, 7, shown, ["t2"])


def test_shares_are_of_the_turns_of_all_questions_by_budget() -> None:
    two = Evidence(turn_ids=["a", "b"], found_ids=["a"])
    one = Evidence(turn_ids=["c", "d"], found_ids=["c", "d"])
    nothing = Evidence(turn_ids=[], found_ids=[])
    small = [packed(tokens=1_000, shown=["b"]), packed(tokens=1_000, shown=[], ms=5.0), packed(tokens=1_000, shown=[])]
    large = [packed(shown=["a", "b"], whole=["a"]), packed(shown=["d"], whole=["d"]), packed(shown=[], ms=8.0)]

    first, second = survivals(list(zip((two, one, nothing), zip(small, large, strict=True), strict=True)))

    assert (first.max_tokens, first.shown, first.found_shown, first.p50_ms, first.p99_ms) == (
        1_000,
        0.25,
        0.0,
        1.0,
        5.0,
    )
    assert (second.max_tokens, second.questions, second.evidence, second.found) == (2_000, 2, 4, 3)
    assert (second.shown, second.found_shown, second.found_whole) == (0.75, 0.6667, 0.6667)
