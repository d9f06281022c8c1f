"""What a quality benchmark writes down for each question, and the files that it is kept in.

A file is replaced as a whole, so that it can always be read, whenever the run is killed.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from benchmarks.quality_data import WrongDataError
from benchmarks.recall_quality import score

ENGRAM = "engram"

MARKS = ("recall_any@5", "recall_any@10", "recall_all@5", "recall_all@10", "mrr", "ndcg@10")
"""In the order of `recall_quality.score`, which defines them."""

ITEMS_MAX = 10
"""Hits that are written down with their text; of the others only the id."""

QUIET_SHARE = 10
"""A file is written again after so many times as long as writing it took: at most a tenth of the time goes there."""


class Item(msgspec.Struct, kw_only=True):
    """A hit."""

    rank: int
    id: str
    text: str
    score: float
    source_session_ids: list[str]


class Searched(msgspec.Struct, kw_only=True):
    """What one method found for one question; `metrics` of a level are there if it has a right answer."""

    search_ms: float
    ranked_session_ids: list[str]
    ranked_turn_ids: list[str]
    metrics: dict[str, float]


class Evidence(msgspec.Struct, kw_only=True):
    """The turns that answer a question, and those of them that a search has among its first ten hits."""

    turn_ids: list[str]
    found_ids: list[str]


class Packed(msgspec.Struct, kw_only=True):
    """The context of a question at one budget, and which of the turns that answer it are in it."""

    max_tokens: int
    tokens: int
    """As the server counts them."""
    context_ms: float
    shown_turn_ids: list[str]
    whole_turn_ids: list[str]
    """Those whose whole text is there."""


class Retrieved(msgspec.Struct, kw_only=True):
    """A question of a retrieval run."""

    question_id: str
    question_type: str
    question: str
    answer: str
    tier: str
    is_abstention: bool
    answer_session_ids: list[str]
    answer_turn_ids: list[str]
    ranked_session_ids: list[str]
    ranked_turn_ids: list[str]
    ranked_items: list[Item]
    metrics: dict[str, float]
    search_ms: float
    first_search_ms: float
    """Of another search, the first one since the conversation was written."""
    ingest_s: float
    """Of the conversation that the question is about."""
    messages: int
    evidence: Evidence
    contexts: list[Packed]
    baselines: dict[str, Searched]


class Answered(msgspec.Struct, kw_only=True):
    """A question of a QA run."""

    question_id: str
    question_type: str
    question: str
    answer: str
    context: str
    hypothesis: str
    context_ms: float


Kept = TypeVar("Kept", Retrieved, Answered)


def marks(
    sessions: Sequence[str], turns: Sequence[str], right: tuple[frozenset[str], frozenset[str]]
) -> dict[str, float]:
    """Return the measures of a ranking at each level that has a right answer: `right` sessions and turns."""
    found: dict[str, float] = {}
    for level, ranked, answers in (("session", sessions, right[0]), ("turn", turns, right[1])):
        if answers:
            named = zip(MARKS, score(ranked, answers), strict=True)
            found |= {f"{level}_{name}": round(value, 6) for name, value in named}
    return found


class Notebook(Generic[Kept]):
    """The questions that are done, in a file."""

    def __init__(self, path: Path, kind: type[Kept], *, resume: bool) -> None:
        """Begin anew, or with what an earlier run left.

        Raises:
            WrongDataError: The file is not of such a run.
        """
        self.path = path
        self.rows: list[Kept] = []
        if resume and path.exists():
            try:
                self.rows = msgspec.json.decode(path.read_bytes(), type=list[kind])  # type: ignore[valid-type]
            except msgspec.MsgspecError as error:
                raise WrongDataError(f"{path} is no result of this benchmark: {error}") from None
        self._encoded = [msgspec.json.encode(row) for row in self.rows]
        self._due_s = 0.0

    @property
    def done(self) -> frozenset[str]:
        """The questions that need not be asked again."""
        return frozenset(row.question_id for row in self.rows)

    def add(self, row: Kept) -> None:
        """Keep one more; it is in the file soon."""
        self.rows.append(row)
        self._encoded.append(msgspec.json.encode(row))
        if time.perf_counter() >= self._due_s:
            self.flush()

    def flush(self) -> None:
        """Write what there is."""
        started_s = time.perf_counter()
        replace(self.path, b"[\n" + b",\n".join(self._encoded) + b"\n]\n")
        ended_s = time.perf_counter()
        self._due_s = ended_s + QUIET_SHARE * (ended_s - started_s)


def replace(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole, or the old one is."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_bytes(data)
    beside.replace(path)


def pretty(value: object) -> bytes:
    """Return a value as JSON that people can read."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


class Same(msgspec.Struct, kw_only=True):
    """What has to be the same when a run is resumed, and the run's own number."""

    run_id: str
    mode: str
    dataset: str
    settings: dict[str, str]


def same_run(path: Path, mine: Same, *, resume: bool) -> Same:
    """Return the run that is gone on with, which is `mine` if there is none, and keep it.

    Raises:
        WrongDataError: The run that is to be gone on with had other options.
    """
    if resume and path.exists():
        try:
            theirs = msgspec.json.decode(path.read_bytes(), type=Same)
        except msgspec.MsgspecError as error:
            raise WrongDataError(f"{path} says of no run what it was: {error}") from None
        before = {"mode": theirs.mode, "dataset": theirs.dataset, **theirs.settings}
        now = {"mode": mine.mode, "dataset": mine.dataset, **mine.settings}
        for name, value in now.items():
            if before.get(name) != value:
                raise WrongDataError(
                    f"--resume: {path.parent} was made with {name} {before.get(name)}, this run has {value}"
                )
        return theirs
    replace(path, pretty(mine))
    return mine
