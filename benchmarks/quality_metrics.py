"""The numbers of a quality run, as they are written down."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.quality_contexts import Survival
from benchmarks.timing import Timing


class Judged(msgspec.Struct, kw_only=True):
    """An aim and what was measured."""

    aim: str
    measured: float
    limit: float
    is_met: bool


class Spread(msgspec.Struct, kw_only=True):
    """Times of one kind, or anything else that has a spread."""

    p50: float
    p95: float
    p99: float
    max: float


class Metrics(msgspec.Struct, kw_only=True):
    """A retrieval run's numbers. Those of `means` stand for engram; `methods` has all, by level and name."""

    dataset: str
    file: str
    embedder: str
    """The model that the memory says it embeds with; empty if it says none."""
    questions_total: int
    questions_evaluated: int
    abstention_questions: int
    abstention_empty_rate: float
    means: dict[str, float]
    by_question_type: dict[str, dict[str, float]]
    methods: dict[str, dict[str, dict[str, float]]]
    methods_by_type: dict[str, dict[str, dict[str, float]]]
    """By name and type of question: the lowest level's."""
    search_ms: dict[str, Spread]
    first_search_ms: Spread
    """The first one in a conversation that has just been written."""
    context_ms: Spread | None
    """Of contexts of all budgets; None if none was asked for."""
    contexts: list[Survival]
    ingest_s: Spread
    messages: int
    rss_mb: float | None
    """Resident memory of the server at the end, in 10**6 bytes; None if it does not say."""
    aims: list[Judged]
    machine: dict[str, str]
    settings: dict[str, str]


class Speed(msgspec.Struct, kw_only=True):
    """What requests take while very much is stored."""

    files: list[str]
    messages: int
    sessions: int
    characters: float
    """Of a message, on average."""
    messages_per_s: float
    """While they were written."""
    times_ms: dict[str, Spread]
    """Over HTTP, by what was asked for."""
    requests: dict[str, int]
    rss_mb: float | None
    aims: list[Judged]
    machine: dict[str, str]


def spread(values: Sequence[float]) -> Spread:
    """Return how values, at least one, are spread."""
    ranked = Timing([value / 1000 for value in values], 1.0)
    p50, p95, p99 = (round(ranked.quantile_ms(share), 3) for share in (0.5, 0.95, 0.99))
    return Spread(p50=p50, p95=p95, p99=p99, max=round(max(values), 3))


def read_metrics(path: Path) -> Metrics:
    """Return the numbers that a retrieval run has written.

    Raises:
        OSError, msgspec.MsgspecError: There are none.
    """
    return msgspec.json.decode(path.read_bytes(), type=Metrics)


def read_speed(path: Path) -> Speed:
    """Return the numbers that `quality_speed` has written.

    Raises:
        OSError, msgspec.MsgspecError: There are none.
    """
    return msgspec.json.decode(path.read_bytes(), type=Speed)
