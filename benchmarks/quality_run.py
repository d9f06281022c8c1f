"""One run of a quality benchmark: write each conversation, ask its questions, keep what was found.

The questions of one conversation are asked one after another in the same session: reads change nothing.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import quality_contexts
from benchmarks.quality_answers import Answerer
from benchmarks.quality_client import Hit, Memory, Message
from benchmarks.quality_data import Asked, Haystack, Turn
from benchmarks.quality_results import ITEMS_MAX, Answered, Evidence, Item, Notebook, Packed, Retrieved, Searched, marks
from benchmarks.recall_data import Question as Plain
from benchmarks.recall_data import Said
from benchmarks.recall_quality import Method, PlainBm25, PlainDense
from engram.events import Role
from engram.inference.builtin import BuiltinEmbedder

BASELINES: Mapping[str, Callable[[Sequence[Said], BuiltinEmbedder], Method]] = {
    "plain BM25": PlainBm25,
    "plain vectors": PlainDense,
}

WARM_UP_CHARACTERS = 100
"""Of the first thing said: searched for once, so that no question pays for an index that is not there yet."""

LONG_AGO = datetime.fromisoformat("2024-01-01T00:00:00+00:00")
"""When something was said that has no date: the plain methods do not look at it."""


class Ids(NamedTuple):
    """How a benchmark calls its messages."""

    prefix: str
    """In a marker's id and a message's id."""
    characters_max: int | None
    """A longer message is written in parts."""


class Written(NamedTuple):
    """A conversation in the memory; the place of a message's turn by its id and by its text."""

    session_id: str
    turns: Sequence[Turn]
    places: Mapping[str, int]
    texts: Mapping[str, Sequence[int]]
    parts: Mapping[int, Mapping[str, str]]
    """Of the turn at a place: its messages' texts by their ids."""
    messages: int
    ingest_s: float
    first_search_ms: float


class Run:
    """Writes and asks."""

    def __init__(self, options: argparse.Namespace, memory: Memory, ids: Ids, run_id: str) -> None:
        self._options = options
        self._memory = memory
        self._ids = ids
        self._run_id = run_id
        self._console = Console(stderr=True)

    def retrieve(self, haystacks: Sequence[Haystack], notebook: Notebook[Retrieved]) -> None:
        """Search for each question that is not done."""
        embedder = BuiltinEmbedder() if self._options.baselines else None

        def ask(written: Written) -> Callable[[Asked], Retrieved]:
            said = [
                Said(turn.turn_id, cast("Role", turn.role), turn.text, turn.when or LONG_AGO, turn.session)
                for turn in written.turns
            ]
            methods = {} if embedder is None else {name: kind(said, embedder) for name, kind in BASELINES.items()}
            return partial(self._search, written, methods)

        self._each(haystacks, notebook, ask)

    def answer(
        self,
        haystacks: Sequence[Haystack],
        notebook: Notebook[Answered],
        answerer: Answerer,
        then: Callable[[Asked, str], None],
    ) -> None:
        """Let the model answer each question that is not done; `then` hears each answer."""

        def ask(written: Written) -> Callable[[Asked], Answered]:
            return partial(self._answer, written, answerer, then)

        self._each(haystacks, notebook, ask)

    def _each(
        self,
        haystacks: Sequence[Haystack],
        notebook: Notebook,  # type: ignore[type-arg]
        prepare: Callable[[Written], Callable[[Asked], object]],
    ) -> None:
        done = notebook.done
        total = sum(len(haystack.questions) for haystack in haystacks)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task("asking", total=total, completed=len(done))
            count = itertools.count(len(done) + 1)
            try:
                for haystack in haystacks:
                    questions = [asked for asked in haystack.questions if asked.question_id not in done]
                    if not questions:
                        self._forget_last(haystack, notebook)
                        continue
                    progress.update(task, description=f"writing {haystack.name}")
                    written = self._write(haystack)
                    ask = prepare(written)
                    progress.update(task, description=f"asking {haystack.name}")
                    for asked in questions:
                        notebook.add(ask(asked))
                        progress.advance(task)
                        self._tell(next(count), total, asked)
                    self._forget(written.session_id)
            finally:
                notebook.flush()

    def _forget_last(self, haystack: Haystack, notebook: Notebook) -> None:  # type: ignore[type-arg]
        """Delete what a run that was killed may have left: it kept its last row, and came no further."""
        if notebook.rows and notebook.rows[-1].question_id in {asked.question_id for asked in haystack.questions}:
            self._forget(self._session_id(haystack))

    def _forget(self, session_id: str) -> None:
        if not self._options.keep_sessions:
            self._memory.delete_session(session_id)

    def _session_id(self, haystack: Haystack) -> str:
        return f"{self._run_id}:{haystack.name}"[:200]

    def _tell(self, number: int, total: int, asked: Asked) -> None:
        if number % self._options.progress_every == 0 or number == total:
            self._console.print(f"{number} of {total}: {asked.question_id}", highlight=False)

    def _write(self, haystack: Haystack) -> Written:
        """Write a conversation and wait until all of it can be found."""
        session_id = self._memory.open_session(self._session_id(haystack))
        messages, places = self._messages(haystack)
        started_s = time.perf_counter()
        if self._options.sleep_between_messages > 0:
            for message in messages:
                self._memory.write_one(session_id, message)
                time.sleep(self._options.sleep_between_messages)
        else:
            self._memory.write(session_id, messages)
        self._memory.wait_until_embedded(
            self._options.queue_metric_name,
            timeout_s=self._options.wait_timeout_secs,
            settle_s=self._options.queue_settle_secs,
            poll_s=self._options.queue_poll_interval_secs,
        )
        written_s = time.perf_counter()
        if haystack.turns:
            self._memory.search(session_id, haystack.turns[0].text[:WARM_UP_CHARACTERS], self._options.top_k, None)
        ready_s = time.perf_counter()
        first_search_ms = round(1000 * (ready_s - written_s), 3)
        texts: dict[str, list[int]] = {}
        parts: dict[int, dict[str, str]] = {}
        for message in messages:
            if message.message_id in places:
                place = places[message.message_id]
                texts.setdefault(message.content, []).append(place)
                parts.setdefault(place, {})[message.message_id] = message.content
        return Written(
            session_id, haystack.turns, places, texts, parts, len(messages), written_s - started_s, first_search_ms
        )

    def _messages(self, haystack: Haystack) -> tuple[list[Message], dict[str, int]]:
        """Return what to write, and which turn each of it is. A marker is none: it never counts as found."""
        messages: list[Message] = []
        places: dict[str, int] = {}
        session, number, first = "", 0, 0
        for place, turn in enumerate(haystack.turns):
            if turn.session != session:
                session, number, first = turn.session, number + 1, place
                messages += self._markers(turn, number, haystack.name)
            for part, text in enumerate(split(turn.text, self._ids.characters_max), 1):
                message_id = f"{haystack.name}:{self._ids.prefix}msg-{number}-{place - first + 1}-{part}"
                messages.append(Message(message_id, turn.role, text, self._stamp(turn.when)))
                places[message_id] = place
        return messages, places

    def _markers(self, turn: Turn, number: int, name: str) -> list[Message]:
        if not self._options.inject_session_markers:
            return []
        date = "unknown" if turn.when is None else turn.when.date().isoformat()
        text = f"[session {number}] source_id={turn.session} date={date}"
        return [Message(f"{name}:{self._ids.prefix}marker-{number}", "system", text, self._stamp(turn.when))]

    def _stamp(self, when: datetime | None) -> str | None:
        return when.isoformat() if when is not None and self._options.timestamps else None

    def _search(self, written: Written, methods: Mapping[str, Method], asked: Asked) -> Retrieved:
        started_s = time.perf_counter()
        hits = self._memory.search(written.session_id, asked.text, self._options.top_k, self._stamp(asked.now))
        search_ms = 1000 * (time.perf_counter() - started_s)
        found = [(hit, _places(hit, written)) for hit in hits]
        ranked = _ranked(
            written.turns, list(itertools.chain.from_iterable(places for _, places in found)), asked, search_ms
        )
        wanted = quality_contexts.evidence(asked, written.turns, [places for _, places in found])
        return Retrieved(
            question_id=asked.question_id,
            question_type=asked.kind,
            question=asked.text,
            answer=asked.answer,
            tier=asked.tier,
            is_abstention=asked.is_abstention,
            answer_session_ids=sorted(asked.sessions),
            answer_turn_ids=sorted(asked.turns),
            ranked_session_ids=ranked.ranked_session_ids,
            ranked_turn_ids=ranked.ranked_turn_ids,
            ranked_items=[
                _item(rank, hit, places, written.turns) for rank, (hit, places) in enumerate(found[:ITEMS_MAX], 1)
            ],
            metrics=ranked.metrics,
            search_ms=ranked.search_ms,
            first_search_ms=written.first_search_ms,
            ingest_s=round(written.ingest_s, 4),
            messages=written.messages,
            evidence=wanted,
            contexts=self._contexts(written, asked, _parts(wanted, written)),
            baselines={name: self._plain(method, written.turns, asked) for name, method in methods.items()},
        )

    def _contexts(self, written: Written, asked: Asked, parts: Mapping[str, Mapping[str, str]]) -> list[Packed]:
        now = self._stamp(asked.now)
        return [
            quality_contexts.ask(self._memory, written.session_id, asked.text, now, budget, parts)
            for budget in self._options.context_tokens
        ]

    def _plain(self, method: Method, turns: Sequence[Turn], asked: Asked) -> Searched:
        question = Plain(asked.text, asked.now or LONG_AGO, asked.turns, asked.sessions)
        started_s = time.perf_counter()
        places = method.find(question)
        return _ranked(turns, places[: self._options.top_k], asked, 1000 * (time.perf_counter() - started_s))

    def _answer(
        self, written: Written, answerer: Answerer, then: Callable[[Asked, str], None], asked: Asked
    ) -> Answered:
        started_s = time.perf_counter()
        now = self._stamp(asked.now)
        context = self._memory.context(written.session_id, asked.text, self._options.max_tokens, now).text
        context_ms = 1000 * (time.perf_counter() - started_s)
        hypothesis = answerer.answer(asked.text, context)
        then(asked, hypothesis)
        return Answered(
            question_id=asked.question_id,
            question_type=asked.kind,
            question=asked.text,
            answer=asked.answer,
            context=context,
            hypothesis=hypothesis,
            context_ms=round(context_ms, 3),
        )


def split(text: str, characters_max: int | None) -> list[str]:
    """Return a text in parts of so many characters at most: whole paragraphs, but those that are too long are cut.

    Blank text has no parts.
    """
    if characters_max is None or len(text) <= characters_max:
        return [text] if text.strip() else []
    parts: list[str] = []
    for paragraph in text.split("\n\n"):
        if parts and len(parts[-1]) + 2 + len(paragraph) <= characters_max:
            parts[-1] += "\n\n" + paragraph
        else:
            parts += [paragraph[at : at + characters_max] for at in range(0, len(paragraph), characters_max)]
    return [part for part in parts if part.strip()]


def _places(hit: Hit, written: Written) -> Sequence[int]:
    """Return the turns that a hit is: one by its id, all with its text when it has none, none for a marker."""
    if hit.message_id is None:
        return written.texts.get(hit.text, ())
    return [written.places[hit.message_id]] if hit.message_id in written.places else ()


def _parts(wanted: Evidence, written: Written) -> dict[str, Mapping[str, str]]:
    """Return the messages of each turn that is evidence."""
    of = set(wanted.turn_ids)
    return {turn.turn_id: written.parts[place] for place, turn in enumerate(written.turns) if turn.turn_id in of}


def _ranked(turns: Sequence[Turn], places: Sequence[int], asked: Asked, search_ms: float) -> Searched:
    found = [turns[place] for place in dict.fromkeys(places)]
    sessions = list(dict.fromkeys(turn.session for turn in found))
    ids = [turn.turn_id for turn in found]
    return Searched(
        search_ms=round(search_ms, 3),
        ranked_session_ids=sessions,
        ranked_turn_ids=ids,
        metrics={} if asked.is_abstention else marks(sessions, ids, (asked.sessions, asked.turns)),
    )


def _item(rank: int, hit: Hit, places: Sequence[int], turns: Sequence[Turn]) -> Item:
    sessions = list(dict.fromkeys(turns[place].session for place in places))
    return Item(rank=rank, id=hit.message_id or "", text=hit.text, score=hit.score, source_session_ids=sessions)
