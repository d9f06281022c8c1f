"""Which aims a run has met: what is to be reached with the built-in embedder, over HTTP, on the development data."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.quality_metrics import Judged, Metrics, Spread
from benchmarks.quality_results import ENGRAM

MINILM = "all-MiniLM"
"""How the name of the extra's model begins."""

INGEST_S_MAX = 2.0
CONTEXT_MS_MAX = 6.0
RSS_MB_MAX = 500.0
SURVIVAL_TOKENS = 2_000
SURVIVAL_LEAST = 0.95

NARROW, WIDE, CONTEXT = "search, session of 500", "search, scope of 20 000", "context"
SPEED_MS_MAX: Mapping[str, float] = {NARROW: 4.0, WIDE: 12.0, CONTEXT: CONTEXT_MS_MAX}
"""Medians of what `quality_speed` asks for, by its names for it."""


class Aim(NamedTuple):
    """A mean that is to be reached at a level."""

    level: str
    measure: str
    least: float


AIMS: Mapping[str, Sequence[Aim]] = {
    "LongMemEval": (
        Aim("session", "recall_any@5", 0.96),
        Aim("session", "recall_all@10", 0.92),
        Aim("session", "ndcg@10", 0.90),
    ),
    "LoCoMo": (
        Aim("turn", "recall_any@5", 0.80),
        Aim("turn", "recall_all@10", 0.76),
        Aim("turn", "ndcg@10", 0.66),
    ),
    "BEAM": (Aim("turn", "recall_any@5", 0.90), Aim("turn", "ndcg@10", 0.72)),
}
MINILM_AIMS: Mapping[str, Sequence[Aim]] = {**AIMS, "LoCoMo": (Aim("turn", "ndcg@10", 0.68),)}


def judge(metrics: Metrics) -> list[Judged]:
    """Return the aims for the data set with what was measured."""
    aims = MINILM_AIMS if metrics.embedder.startswith(MINILM) else AIMS
    judged = [
        Judged(
            aim=f"{aim.level} {aim.measure} >= {aim.least:.2f}",
            measured=measured,
            limit=aim.least,
            is_met=round(measured, 3) >= aim.least,
        )
        for aim in aims.get(metrics.dataset, ())
        if (measured := metrics.methods.get(aim.level, {}).get(ENGRAM, {}).get(aim.measure)) is not None
    ]
    if metrics.dataset == "BEAM":
        judged += _better_everywhere(metrics)
    judged += [
        Judged(
            aim=f"of what is found, in a context of {SURVIVAL_TOKENS} tokens >= {SURVIVAL_LEAST:.2f}",
            measured=line.found_shown,
            limit=SURVIVAL_LEAST,
            is_met=line.found_shown >= SURVIVAL_LEAST,
        )
        for line in metrics.contexts
        if line.max_tokens == SURVIVAL_TOKENS and line.found
    ]
    if metrics.dataset == "LongMemEval":
        judged.append(at_most("a question's messages are in, s, longest <", metrics.ingest_s.max, INGEST_S_MAX))
    if metrics.context_ms is not None:
        judged.append(at_most("context p50, ms <=", metrics.context_ms.p50, CONTEXT_MS_MAX))
    return judged + judge_rss(metrics.rss_mb)


def judge_speed(times_ms: Mapping[str, Spread], rss_mb: float | None) -> list[Judged]:
    """Return the aims for times and memory while very much is stored."""
    judged = [
        at_most(f"{name}, p50, ms <=", times_ms[name].p50, limit)
        for name, limit in SPEED_MS_MAX.items()
        if name in times_ms
    ]
    return judged + judge_rss(rss_mb)


def judge_rss(rss_mb: float | None) -> list[Judged]:
    """Return the aim for the server's memory, if it says how much it has."""
    return [] if rss_mb is None else [at_most("resident memory, MB <=", rss_mb, RSS_MB_MAX)]


def at_most(aim: str, measured: float, limit: float) -> Judged:
    """Return whether something is within its limit; the aim ends with the comparison."""
    is_met = measured < limit if aim.endswith("<") else measured <= limit
    return Judged(aim=f"{aim} {limit:g}", measured=measured, limit=limit, is_met=is_met)


def _better_everywhere(metrics: Metrics) -> list[Judged]:
    """Return, for each plain method, by how much engram is above it at least, whatever the type of question."""
    ours = metrics.methods_by_type.get(ENGRAM, {})
    judged = []
    for name, theirs in metrics.methods_by_type.items():
        if name != ENGRAM and ours:
            least = round(min(marks["ndcg@10"] - theirs[kind]["ndcg@10"] for kind, marks in ours.items()), 4)
            aim = f"ndcg@10 above {name} in every ability, by at least"
            judged.append(Judged(aim=aim, measured=least, limit=0.0, is_met=least > 0))
    return judged
