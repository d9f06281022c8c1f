"""How well are memories found? Plain BM25, plain vectors, and engram's recipe on public questions.

    python -m benchmarks.recall_quality            all of it, about a minute; writes results/recall.json
    python -m benchmarks.recall_quality --quick    one conversation of each; writes nothing
    python -m benchmarks.recall_quality --json     the results as JSON on standard output
    python -m benchmarks.recall_quality --embedder minilm
                                                   the same with another embedder; shows, and writes nothing

any@k: one of the answers is among the first k; all@k: every one is. Session level: hits are grouped by the session
they are in, in the order of their best hit. The data lies in ../shared/data, or in --data.
"""

import argparse
import math
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import recall_embedders
from benchmarks.recall_data import FILES, Conversation, Question, Said, load, row_of
from benchmarks.recall_embedders import AnyEmbedder
from engram.errors import ConfigError
from engram.inference.embedder import EmbedderError
from engram.projections.rows import RecallDelta
from engram.recall.index import SessionIndex
from engram.recall.rank import rank, understand
from engram.recall.terms import terms, words

PROJECT = Path(__file__).parents[1]
DATA = PROJECT / ".." / "shared" / "data"
RESULTS = Path(__file__).parent / "results"

MEASURES = ("any@5", "any@10", "all@5", "all@10", "MRR", "NDCG@10")
HITS = 100
"""Rows that are looked at: the session level needs more than ten."""

K1, B = 1.2, 0.75


class Method(Protocol):
    """A way to search one conversation."""

    def find(self, question: Question) -> Sequence[int]:
        """Return the places of the best messages, best first."""


class PlainBm25:
    """The textbook's BM25 over stems."""

    def __init__(self, messages: Sequence[Said], _embedder: AnyEmbedder) -> None:
        self._rows = [Counter(terms(words(message.text))) for message in messages]
        self._lengths = np.array([row.total() for row in self._rows], np.float64)

    def find(self, question: Question) -> Sequence[int]:
        scores = np.zeros(len(self._rows))
        for term in dict.fromkeys(terms(words(question.text))):
            counts = np.array([row[term] for row in self._rows], np.float64)
            holders = np.count_nonzero(counts)
            idf = math.log(1 + (len(counts) - holders + 0.5) / (holders + 0.5))
            scores += idf * counts * (K1 + 1) / (counts + K1 * (1 - B + B * self._lengths / self._lengths.mean()))
        return _best(scores)


class PlainDense:
    """Cosines of the embedder's vectors, one a message however long it is."""

    def __init__(self, messages: Sequence[Said], embedder: AnyEmbedder) -> None:
        self._embedder = embedder
        self._vectors = embedder.embed([message.text for message in messages])

    def find(self, question: Question) -> Sequence[int]:
        return _best(self._vectors @ self._embedder.embed([question.text])[0])


class Recipe:
    """What a node does."""

    def __init__(self, messages: Sequence[Said], embedder: AnyEmbedder) -> None:
        self._embedder = embedder
        self._index = SessionIndex.empty()
        self._index.fold(
            RecallDelta(
                [row_of(place, message) for place, message in enumerate(messages)],
                recall_embedders.vector_rows(embedder, [message.text for message in messages]),
            )
        )

    def find(self, question: Question) -> Sequence[int]:
        query = understand(question.text, question.now_ms)
        embed = recall_embedders.pool(self._embedder, question.text)
        return [row.ordinal for row in rank([self._index], query, embed, HITS)]


METHODS: dict[str, Callable[[Sequence[Said], AnyEmbedder], Method]] = {
    "plain BM25": PlainBm25,
    "plain dense": PlainDense,
    "engram": Recipe,
}


class Line(msgspec.Struct, kw_only=True):
    """How well one method answers the questions of one data set."""

    data: str
    level: str
    method: str
    questions: int
    measures: dict[str, float]


def measure(name: str, conversations: Sequence[Conversation], embedder: AnyEmbedder) -> list[Line]:
    """Return a line for each level and method."""
    marks: dict[tuple[str, str], list[Sequence[float]]] = {}
    for conversation in conversations:
        for method_name, method in METHODS.items():
            searched = method(conversation.messages, embedder)
            for question in conversation.questions:
                found = [conversation.messages[place] for place in searched.find(question)]
                if question.messages:
                    mark = score([message.message_id for message in found], question.messages)
                    marks.setdefault(("message", method_name), []).append(mark)
                if question.sessions:
                    sessions = list(dict.fromkeys(message.session for message in found))
                    marks.setdefault(("session", method_name), []).append(score(sessions, question.sessions))
    return [
        Line(
            data=name,
            level=level,
            method=method_name,
            questions=len(rows),
            measures={
                measure: round(statistics.fmean(column), 4)
                for measure, column in zip(MEASURES, zip(*rows, strict=True), strict=True)
            },
        )
        for (level, method_name), rows in sorted(marks.items(), key=lambda item: item[0][0])
    ]


def score(found: Sequence[str], answers: frozenset[str]) -> Sequence[float]:
    """Return the measures of one answer, in the order of `MEASURES`."""
    right = [unit in answers for unit in found]
    first = right.index(True) + 1 if any(right) else math.inf
    gain = sum(1 / math.log2(place + 2) for place, is_right in enumerate(right[:10]) if is_right)
    ideal = sum(1 / math.log2(place + 2) for place in range(min(len(answers), 10)))
    return (
        float(any(right[:5])),
        float(any(right[:10])),
        float(sum(right[:5]) == len(answers)),
        float(sum(right[:10]) == len(answers)),
        1 / first,
        gain / ideal,
    )


def main(arguments: Sequence[str]) -> int:
    """Measure what data there is; say which there is not."""
    parser = argparse.ArgumentParser(prog="recall_quality", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one conversation of each data set, and keep nothing")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data; default: ../shared/data")
    recall_embedders.add_options(parser)
    options = parser.parse_args(arguments)
    try:
        embedder = recall_embedders.chosen(options)
        return _measure(options, embedder)
    except (ConfigError, EmbedderError, ValueError) as error:
        sys.stderr.write(f"recall_quality: {error}\n")
        return 2


def _measure(options: argparse.Namespace, embedder: AnyEmbedder) -> int:
    notes = Console(stderr=True)
    lines: list[Line] = []
    with Progress(console=notes, transient=True) as progress:
        for name in progress.track(FILES, description="searching"):
            try:
                conversations = load(name, options.data)
            except FileNotFoundError:
                notes.print(f"SKIPPED {name}: no {FILES[name]} in {options.data}", style="bold yellow")
                continue
            lines += measure(name, conversations[:1] if options.quick else conversations, embedder)
    encoded = msgspec.json.format(msgspec.json.encode(lines), indent=2)
    if options.json:
        sys.stdout.write(encoded.decode() + "\n")
    elif lines:
        Console().print(_table(lines, recall_embedders.name_of(options)))
    if lines and not options.quick and options.embedder == "builtin":
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "recall.json").write_bytes(encoded + b"\n")
        notes.print(f"written: {RESULTS.name}/recall.json")
    return 0


def _table(lines: Sequence[Line], embedder: str) -> Table:
    counts = ", ".join(
        f"{data} {questions}" for data, questions in {line.data: line.questions for line in lines}.items()
    )
    table = Table(
        title="How well are memories found?",
        caption=f"questions: {counts}; embedder: {embedder}",
        box=box.SIMPLE,
        padding=(0, 0, 0, 1),
        pad_edge=False,
        show_edge=False,
    )
    for column in ("data", "method", *MEASURES):
        table.add_column(column, justify="right" if column in MEASURES else "left", no_wrap=True)
    for line in lines:
        marks = [f"{line.measures[name]:.3f}" for name in MEASURES]
        is_last = line.method == list(METHODS)[-1]
        style = "bold" if is_last else None
        table.add_row(f"{line.data} {line.level}s", line.method, *marks, style=style, end_section=is_last)
    return table


def _best(scores: np.ndarray) -> Sequence[int]:
    return [int(place) for place in np.argsort(-scores, kind="stable")[:HITS]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
