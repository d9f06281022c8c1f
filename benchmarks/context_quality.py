"""How much of the evidence that a search finds is in a context of so many tokens? Public questions, in process.

    python -m benchmarks.context_quality            all of it, about a minute; writes results/context.json
    python -m benchmarks.context_quality --quick    one conversation of each; writes nothing
    python -m benchmarks.context_quality --json     the results as JSON on standard output

Each conversation is one session, each question the `query` of a context, everything else as it is by default. A gold
turn is a message that answers; of LongMemEval, where whole sessions do, the best hit in each of them. It is found when it
is among the first ten hits, and shown when its message is in the context: among the memories or in the conversation. The
data lies in ../shared/data, or in --data.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.recall_data import FILES, SESSION_KEY, Conversation, Question, Said, load, row_of
from engram.events import TENANT_DEFAULT
from engram.inference.builtin import BuiltinEmbedder
from engram.inference.tokens import TokenCounter
from engram.projections.rows import FactRow, LabelRow, MessageRow, RecallBlob, RecallDelta, SessionRow, VectorRow
from engram.recall.reader import Context, ContextReader
from engram.recall.search import Searcher

PROJECT = Path(__file__).parents[1]
DATA = PROJECT / ".." / "shared" / "data"
RESULTS = Path(__file__).parent / "results"

BUDGETS_TOKENS = (1_000, 2_000, 4_000, 8_000)
HITS = 10
LONG_TERM_TOP_K = 10
SHORT_TERM_COUNT = 20
"""Both as a node has them by default."""

CACHE_BYTES = 64 * 1024 * 1024
AIM = 0.95
AIM_TOKENS = 2_000


class Talk(NamedTuple):
    """What a reader of contexts gets of a session."""

    session: SessionRow
    recent: Sequence[MessageRow]
    facts: Sequence[FactRow]


class Told:
    """One session in memory, with the reads of a store."""

    applied_index = 1

    def __init__(self, messages: Sequence[Said], embedder: BuiltinEmbedder, tokens: TokenCounter) -> None:
        counts = tokens.count_all([message.text for message in messages])
        self._rows = [row_of(place, *pair) for place, pair in enumerate(zip(messages, counts, strict=True))]
        vectors = embedder.embed([message.text for message in messages]).astype("<f2")
        self._vectors = [
            VectorRow(place, 0, 0, vector.tobytes(), embedder.model) for place, vector in enumerate(vectors)
        ]
        self.session = _session(len(messages))

    async def conversation(self, session_id: str, tenant: str, limit: int) -> Talk:
        assert (session_id, tenant) == (self.session.session_id, self.session.tenant)
        return Talk(self.session, self._rows[-limit:], ())

    async def scope(self, tenant: str, *, agent_id: str | None = None, user_id: str | None = None) -> list[SessionRow]:
        assert tenant == self.session.tenant
        return [] if agent_id or user_id else [self.session]

    async def labels(self, session_key: int, *, first: int, limit: int) -> list[LabelRow]:
        assert session_key == SESSION_KEY
        return [LabelRow(row.ordinal, row.role, None, {}) for row in self._rows[first : first + limit]]

    async def recall_blob(self, session_key: int) -> RecallBlob | None:
        assert session_key == SESSION_KEY
        return None

    async def recall_delta(self, session_key: int, *, next_ordinal: int, vectors_index: int) -> RecallDelta:
        assert session_key == SESSION_KEY
        return RecallDelta(self._rows[next_ordinal:], [] if vectors_index else self._vectors)

    async def messages(self, session_key: int, *, after: int | None, limit: int, descending: bool) -> list[MessageRow]:
        assert session_key == SESSION_KEY
        assert not descending
        first = 0 if after is None else after + 1
        return self._rows[first : first + limit]

    async def messages_at(self, wanted: Sequence[tuple[int, int]]) -> list[MessageRow]:
        return [self._rows[ordinal] for _, ordinal in wanted]


class Unobserved:
    """Takes no note."""

    def searched(self, stage: str, seconds: float) -> None:
        """Do nothing."""


class Mark(NamedTuple):
    """What became of the gold turns of one question in one context."""

    gold: int
    found: int
    shown: int
    found_and_shown: int
    whole: int
    """Of those that were found: with their whole text."""
    tokens: int
    seconds: float


class Line(msgspec.Struct, kw_only=True):
    """One data set at one budget. The shares are of all gold turns of all questions together."""

    data: str
    budget_tokens: int
    questions: int
    gold: int
    found: int
    shown: float
    """Of all gold turns, the share that is in the context."""
    found_shown: float
    """The same of those among the first ten hits."""
    found_whole: float
    """Those of them whose whole text is there."""
    tokens: float
    """Of the context, on average."""
    p50_ms: float


async def measure(
    name: str,
    conversations: Sequence[Conversation],
    embedder: BuiltinEmbedder,
    tokens: TokenCounter,
    budgets: Sequence[int] = BUDGETS_TOKENS,
) -> list[Line]:
    """Return a line for each budget."""
    marks: dict[int, list[Mark]] = {budget: [] for budget in budgets}
    for conversation in conversations:
        told = Told(conversation.messages, embedder, tokens)
        searcher = Searcher(told, embedder, cache_bytes_max=CACHE_BYTES, observer=Unobserved())
        reader = ContextReader(told, searcher, tokens, short_term_count=SHORT_TERM_COUNT)
        try:
            for question in conversation.questions:
                found = await _found(told, searcher, question)
                gold = _gold(conversation, question, found)
                for budget in budgets:
                    marks[budget].append(await _mark(reader, question, gold, found[:HITS], budget))
        finally:
            searcher.close()
    return [_line(name, budget, rows) for budget, rows in marks.items() if rows]


async def _found(told: Told, searcher: Searcher, question: Question) -> list[MessageRow]:
    found = await searcher.search([told.session], question.text, top_k=10**6, now_ms=question.now_ms)
    return [hit.message for hit in found.hits]


def _gold(conversation: Conversation, question: Question, found: Sequence[MessageRow]) -> dict[str, str]:
    """Return the texts of the gold turns, by id."""
    if question.messages:
        return {each.message_id: each.text for each in conversation.messages if each.message_id in question.messages}
    session_of = {each.message_id: each.session for each in conversation.messages}
    best: dict[str, MessageRow] = {}
    for row in found:
        best.setdefault(session_of[row.message_id], row)
    return {best[session].message_id: best[session].text for session in question.sessions}


async def _mark(
    reader: ContextReader, question: Question, gold: dict[str, str], found: Sequence[MessageRow], budget: int
) -> Mark:
    started_s = time.perf_counter()
    context = await _context(reader, question, budget)
    seconds = time.perf_counter() - started_s
    ids = {item.id for part in context.sections if part.name != "core" for item in part.items}
    hits = {message.message_id for message in found} & gold.keys()
    return Mark(
        gold=len(gold),
        found=len(hits),
        shown=len(gold.keys() & ids),
        found_and_shown=len(hits & ids),
        whole=sum(gold[message_id] in context.context for message_id in hits),
        tokens=context.tokens,
        seconds=seconds,
    )


async def _context(reader: ContextReader, question: Question, budget: int) -> Context:
    return await reader.read(
        "s",
        tenant=TENANT_DEFAULT,
        max_tokens=budget,
        similarity_threshold=None,
        long_term_top_k=LONG_TERM_TOP_K,
        query=question.text,
        now_ms=question.now_ms,
        scope="session",
        format="text",
    )


def _line(name: str, budget: int, marks: Sequence[Mark]) -> Line:
    gold, found = sum(mark.gold for mark in marks), sum(mark.found for mark in marks)
    return Line(
        data=name,
        budget_tokens=budget,
        questions=len(marks),
        gold=gold,
        found=found,
        shown=round(sum(mark.shown for mark in marks) / gold, 4),
        found_shown=round(sum(mark.found_and_shown for mark in marks) / max(found, 1), 4),
        found_whole=round(sum(mark.whole for mark in marks) / max(found, 1), 4),
        tokens=round(statistics.fmean(mark.tokens for mark in marks), 1),
        p50_ms=round(1000 * statistics.median(mark.seconds for mark in marks), 2),
    )


def main(arguments: Sequence[str]) -> int:
    """Measure what data there is; say which there is not."""
    parser = argparse.ArgumentParser(prog="context_quality", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one conversation of each data set, and keep nothing")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data; default: ../shared/data")
    options = parser.parse_args(arguments)
    notes = Console(stderr=True)
    lines: list[Line] = []
    embedder, tokens = BuiltinEmbedder(), TokenCounter()
    with Progress(console=notes, transient=True) as progress:
        for name in progress.track(FILES, description="packing"):
            try:
                conversations = load(name, options.data)
            except FileNotFoundError:
                notes.print(f"SKIPPED {name}: no {FILES[name]} in {options.data}", style="bold yellow")
                continue
            some = conversations[:1] if options.quick else conversations
            lines += asyncio.run(measure(name, some, embedder, tokens))
    encoded = msgspec.json.format(msgspec.json.encode(lines), indent=2)
    if options.json:
        sys.stdout.write(encoded.decode() + "\n")
    elif lines:
        Console().print(_table(lines))
    if lines and not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "context.json").write_bytes(encoded + b"\n")
        notes.print(f"written: {RESULTS.name}/context.json")
    return 0


def _table(lines: Sequence[Line]) -> Table:
    table = Table(
        title="How much of the evidence is in a context?",
        caption=f"aim: {AIM:.0%} of what is found is shown at {AIM_TOKENS} tokens",
        box=box.SIMPLE,
        padding=(0, 0, 0, 1),
        pad_edge=False,
        show_edge=False,
    )
    columns = ("budget", "gold", "found", "shown", "of found", "whole", "used", "p50 ms")
    table.add_column("data", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for line in lines:
        shares = [f"{share:.3f}" for share in (line.shown, line.found_shown, line.found_whole)]
        counts = [f"{count:,}" for count in (line.budget_tokens, line.gold, line.found)]
        is_last = line.budget_tokens == BUDGETS_TOKENS[-1]
        style = "bold" if line.budget_tokens == AIM_TOKENS else None
        used = f"{line.tokens:,.0f}"
        table.add_row(line.data, *counts, *shares, used, f"{line.p50_ms:.1f}", style=style, end_section=is_last)
    return table


def _session(size: int) -> SessionRow:
    return SessionRow(
        session_key=SESSION_KEY,
        tenant=TENANT_DEFAULT,
        session_id="s",
        agent_id=None,
        user_id=None,
        metadata={},
        visibility="private",
        created_at_ms=0,
        updated_at_ms=0,
        updated_index=1,
        message_count=size,
        fact_count=0,
        token_count=0,
        pending_embeddings=0,
        abandoned_embeddings=0,
        next_ordinal=size,
        vectors_index=1,
        deletions=0,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
