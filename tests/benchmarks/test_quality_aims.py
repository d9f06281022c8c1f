"""An aim is met when it is reached, and what it asks for depends on the data, the embedder and what was measured."""

import pytest

from benchmarks.quality_aims import CONTEXT, NARROW, WIDE, judge, judge_speed
from benchmarks.quality_contexts import Survival
from benchmarks.quality_metrics import Metrics, Spread, spread
from benchmarks.quality_report import Server, summarize
from benchmarks.quality_results import Evidence, Packed, Retrieved, marks


def retrieved(*, rank: int = 1, ingest_s: float = 1.0, context_ms: float = 5.0) -> Retrieved:
    """Return a question whose only answer stands at a rank."""
    ranked = [f"t{place}" for place in range(1, 11) if place != rank]
    ranked.insert(rank - 1, "right")
    return Retrieved(
        question_id="q",
        question_type="kind",
        question="",
        answer="",
        tier="",
        is_abstention=False,
        answer_session_ids=["right"],
        answer_turn_ids=["right"],
        ranked_session_ids=ranked,
        ranked_turn_ids=ranked,
        ranked_items=[],
        metrics=marks(ranked, ranked, (frozenset({"right"}), frozenset({"right"}))),
        search_ms=1.0,
        first_search_ms=1.0,
        ingest_s=ingest_s,
        messages=1,
        evidence=Evidence(turn_ids=["right"], found_ids=["right"]),
        contexts=[
            Packed(max_tokens=2_000, tokens=9, context_ms=context_ms, shown_turn_ids=["right"], whole_turn_ids=[])
        ],
        baselines={},
    )


def metrics(dataset: str, *rows: Retrieved, embedder: str = "wordllama", rss_mb: float | None = None) -> Metrics:
    return summarize(dataset, "file", rows, {}, Server(embedder, rss_mb))


def verdicts(run: Metrics) -> dict[str, bool]:
    return {one.aim: one.is_met for one in run.aims}


def test_a_run_that_reaches_everything_meets_every_aim() -> None:
    run = metrics("LongMemEval", retrieved(), rss_mb=500.0)

    assert verdicts(run) == {
        "session recall_any@5 >= 0.96": True,
        "session recall_all@10 >= 0.92": True,
        "session ndcg@10 >= 0.90": True,
        "of what is found, in a context of 2000 tokens >= 0.95": True,
        "a question's messages are in, s, longest < 2": True,
        "context p50, ms <= 6": True,
        "resident memory, MB <= 500": True,
    }


def test_a_run_that_reaches_nothing_misses_every_aim() -> None:
    row = retrieved(rank=11, ingest_s=2.0, context_ms=6.1)
    row.contexts[0].shown_turn_ids = []

    run = metrics("LongMemEval", row, rss_mb=500.1)

    assert not any(verdicts(run).values())
    assert len(run.aims) == 7


def test_with_minilm_locomo_has_an_aim_of_its_own() -> None:
    rows = [retrieved(), retrieved(rank=11), retrieved(), retrieved(rank=3)]  # (1 + 0 + 1 + .5) / 4 = .625
    builtin = verdicts(metrics("LoCoMo", *rows))
    minilm = verdicts(metrics("LoCoMo", *rows, embedder="all-MiniLM-L6-v2-int8"))

    assert builtin["turn ndcg@10 >= 0.66"] is False
    assert minilm["turn ndcg@10 >= 0.68"] is False
    assert "turn ndcg@10 >= 0.66" not in minilm
    assert metrics("LoCoMo", retrieved(), embedder="all-MiniLM-L6-v2-int8").aims[0].is_met


def test_what_nothing_was_found_of_and_what_was_not_asked_for_is_not_judged() -> None:
    row = retrieved()
    row.contexts = []

    run = metrics("BEAM", row)

    assert [aim for aim in verdicts(run) if "context" in aim or "memory" in aim] == []
    run.contexts = [
        Survival(
            max_tokens=2_000,
            questions=1,
            evidence=1,
            found=0,
            shown=0.0,
            found_shown=0.0,
            found_whole=0.0,
            tokens=1.0,
            p50_ms=1.0,
            p99_ms=1.0,
        )
    ]
    assert judge(run) == run.aims


@pytest.mark.parametrize(("times", "is_met"), [((4.0, 12.0, 6.0), True), ((4.1, 12.1, 6.1), False)])
def test_times_are_judged_by_their_medians(times: tuple[float, float, float], *, is_met: bool) -> None:
    took: dict[str, Spread] = {
        name: spread([1.0, time, 1_000.0]) for name, time in zip((NARROW, WIDE, CONTEXT), times, strict=True)
    }

    judged = judge_speed({**took, "search, the first in a session": spread([99.0])}, None)

    assert [(one.measured, one.is_met) for one in judged] == [(time, is_met) for time in times]
