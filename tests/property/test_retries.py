"""Clients that do not hear an answer write again, under the same ids, to whoever leads: everything counts once.

What reaches the log is the writes of two leaders, each write any number of times, in any order, among writes that
conflict with it and deletions. The model is what a client may rely on, said in the fewest words.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from engram.events import Event, FactPinned, FactUnpinned, MessageAppended, MessageDeleted, decode, encode
from engram.projections.reads import EVERY
from engram.projections.verdicts import Outcome, Verdict
from tests.projections.histories import Entry, deleted, open_store, pinned, said, scratch_folder, unpinned

TEXTS = st.sampled_from(["one", "two"])
MESSAGES = st.sampled_from(["m1", "m2", "m3", "m4"])
FACTS = st.sampled_from(["f1", "f2"])

WRITES = st.one_of(
    st.dictionaries(MESSAGES, TEXTS, min_size=1, max_size=3).map(
        lambda texts: [said(message_id, text) for message_id, text in texts.items()]
    ),
    st.builds(pinned, FACTS, TEXTS).map(lambda event: [event]),
)
DELETIONS = st.one_of(st.builds(deleted, MESSAGES), st.builds(unpinned, FACTS)).map(lambda event: [event])


class Retried(NamedTuple):
    """A log, and after which of its entries the store is closed and opened, or only a batch ends."""

    entries: list[Entry]
    ends: set[int]
    restarts: set[int]


@st.composite
def retried(draw: st.DrawFn) -> Retried:
    writes = draw(st.lists(WRITES, min_size=1, max_size=5))
    again = [write for write in writes for _ in range(draw(st.integers(1, 3)))]
    deletions = draw(st.lists(DELETIONS, max_size=3))
    order = draw(st.permutations([*again, *deletions]))
    second_leader = draw(st.integers(0, len(order)))
    payloads = [encode(events) for events in order]
    payloads.insert(second_leader, b"")  # what a leader begins with
    entries = [
        Entry(index, payload, term=1 + (index > second_leader)) for index, payload in enumerate(payloads, start=1)
    ]
    places = st.sets(st.integers(1, len(entries)))
    return Retried(entries, draw(places), draw(places))


class Model:
    """One session, as a client may think of it."""

    def __init__(self) -> None:
        self.messages: dict[str, tuple[str, int]] = {}
        """Texts, and where each was accepted; in order."""
        self.facts: dict[str, tuple[str, int]] = {}
        self.gone: set[str] = set()
        self.is_begun = False

    def write(self, index: int, events: Sequence[Event]) -> list[Verdict]:
        verdicts = [self.word(index, event) for event in events]
        if any(verdict.outcome in {Outcome.CONFLICT, Outcome.DELETED} for verdict in verdicts):
            return [Verdict(one.outcome, 0 if one.first_index == index else one.first_index) for one in verdicts]
        for event, verdict in zip(events, verdicts, strict=True):
            self.take(index, event, is_new=verdict.outcome is Outcome.ACCEPTED)
        return verdicts

    def word(self, index: int, event: Event) -> Verdict:
        match event:
            case MessageAppended():
                if event.message_id in self.gone:
                    return Verdict(Outcome.DELETED, 0)
                return self.said_before(self.messages.get(event.message_id), event.text, index)
            case FactPinned():
                first = next((index for text, index in self.facts.values() if text == event.text), None)
                if first is not None:
                    return Verdict(Outcome.DUPLICATE, first)
                return self.said_before(self.facts.get(event.fact_id), event.text, index)
            case MessageDeleted():
                return Verdict(Outcome.ACCEPTED, index) if event.message_id in self.messages else NOTHING
            case FactUnpinned():
                return Verdict(Outcome.ACCEPTED, index) if event.fact_id in self.facts else NOTHING
            case _:
                raise AssertionError(event)

    def said_before(self, known: tuple[str, int] | None, text: str, index: int) -> Verdict:
        if known is None:
            return Verdict(Outcome.ACCEPTED, index)
        return Verdict(Outcome.DUPLICATE, known[1]) if known[0] == text else Verdict(Outcome.CONFLICT, 0)

    def take(self, index: int, event: Event, *, is_new: bool) -> None:
        match event:
            case MessageAppended() if is_new:
                self.messages[event.message_id] = (event.text, index)
            case FactPinned() if is_new:
                self.facts[event.fact_id] = (event.text, index)
            case MessageDeleted() if self.is_begun:
                self.messages.pop(event.message_id, None)
                self.gone.add(event.message_id)
            case FactUnpinned():
                self.facts.pop(event.fact_id, None)
            case _:
                pass
        self.is_begun = self.is_begun or isinstance(event, MessageAppended | FactPinned)


NOTHING = Verdict(Outcome.UNKNOWN, 0)


async def folded(log: Retried) -> tuple[list[list[Verdict]], dict[str, tuple[str, int]], dict[str, str]]:
    """Return the verdicts, and the messages and facts that readers see."""
    verdicts: list[list[Verdict]] = []
    with scratch_folder() as folder:
        store = await open_store(Path(folder))
        batch: list[Entry] = []
        for entry in log.entries:
            batch.append(entry)
            if entry.index in log.ends | log.restarts or entry is log.entries[-1]:
                verdicts += await store.apply(batch)
                batch = []
            if entry.index in log.restarts:
                await store.close()
                store = await open_store(Path(folder))
        session = await store.session("s")
        messages = [] if session is None else await store.messages(session.session_key, limit=EVERY)
        facts = [] if session is None else await store.facts(session.session_key)
        await store.close()
    return (
        verdicts,
        {row.message_id: (row.text, row.log_index) for row in messages},
        {row.fact_id: row.text for row in facts},
    )


@given(retried())
def test_every_write_counts_once_whoever_led_and_however_often_it_was_tried(log: Retried) -> None:
    model = Model()
    expected = [model.write(entry.index, decode(entry.data)) if entry.data else [] for entry in log.entries]

    verdicts, messages, facts = asyncio.run(folded(log))

    assert verdicts == expected
    assert list(messages.items()) == list(model.messages.items())
    assert facts == {fact_id: text for fact_id, (text, _) in model.facts.items()}


@given(retried())
def test_a_retry_is_told_where_the_first_one_stands(log: Retried) -> None:
    """As long as nothing is deleted: then every answer to a write that stands names the same entry."""
    kept = [entry for entry in log.entries if b"Deleted" not in entry.data and b"Unpinned" not in entry.data]
    verdicts, messages, _ = asyncio.run(folded(log._replace(entries=kept)))

    for entry, words in zip(kept, verdicts, strict=True):
        if b"MessageAppended" not in entry.data:
            continue
        for word in words:
            if word.outcome is Outcome.ACCEPTED and word.first_index:
                assert word.first_index == entry.index
            if word.outcome is Outcome.DUPLICATE:
                assert word.first_index in {index for _, index in messages.values()}
                assert word.first_index < entry.index
