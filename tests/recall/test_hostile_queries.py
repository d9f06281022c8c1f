"""Queries that nobody should send: every one has an answer, with scores that are numbers, and the same one each time."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.inference.builtin import BuiltinEmbedder
from engram.projections.rows import RecallDelta, VectorRow
from engram.recall import cues, times
from engram.recall.explanation import rank_and_explain
from engram.recall.index import SessionIndex
from engram.recall.rank import QUERY_WORDS_MAX, rank, understand
from engram.recall.times import SPANS_MAX
from tests.recall.conversation import DAY_MS, MINUTE_MS, START_MS, said

EMBEDDER = BuiltinEmbedder()

TALK = [
    "Ann: the lake at sunset, painted in March",
    "Bob: why? 为什么画湖?",
    "Ann: ฉันชอบทะเลสาบ 湖が好きです",
    "Bob: أنا أحب البحيرة",
    "אני אוהב את האגם",
    "",
    "\u200b\u200d\ufeff",
    "😀🎉👩‍👩‍👧‍👦",
    "the and of",
    "word " * 3000,
    "Wann waren wir am See? Gestern, am 7. Mai.",
]

HOSTILE = {
    "empty": "",
    "white space": " \t\r\n\u00a0\u3000\u2028",
    "one letter": "a",
    "small words": "the and of to in who what when",
    "emoji": "😀🎉👩‍👩‍👧‍👦🏳️‍🌈",
    "right to left": "متى رسمت البحيرة؟ מתי ציירת את האגם?",
    "right-to-left marks": "\u202e\u2067lake\u2069\u202c\u200f",
    "zero width": "l\u200ba\u200ck\u200de\ufeff",
    "only zero width": "\u200b\u200c\u200d\u2060\ufeff",
    "combining": "e\u0301" * 3000 + "\u0301" * 3000,
    "mixed scripts": "lake湖ทะเลสาบ호수Seeозеро λίμνη झील",  # noqa: RUF001 - a lake in eight languages
    "a wall of ideographs": "湖" * 20_000,
    "Thai without spaces": "ทะเลสาบ" * 5_000,
    "controls": "\x00\x01\x1f\x7f\ufffd\ufffe",
    "private use and unassigned": "\ue000\U000f0000\U0010ffff\u0378",
    "ten thousand words": " ".join(f"word{number}" for number in range(10_000)),
    "ten thousand times a word": "lake " * 10_000,
    "one word of a quarter of a megabyte": "k" * 262_144,
    "apostrophes": "'" * 50_000 + "l'" * 50_000,
    "question marks": "?" * 100_000,
    "colons": "Ann: " * 20_000,
    "digits": "9" * 100_000,
    "dates": "7 May 2023, " * 10_000,
    "dates that are none": "99 March 2023, 30 February 0000, 2023-99-99, in 9999 months ago, 9999 years ago",
    "an endless hast du": "hast du mir " * 20_000,
    "an endless you": "you have " * 20_000,
    "regular expression": "(a+)+$ [^ \\b{1,9}|.*?",
    "SQL": "'; DROP TABLE messages; --",
    "JSON": '{"$ne": null}]}',
    "format": "%s %n {0} {query!r} ${jndi:x}",
    "surrogates as text": "\\ud800\\udfff",
    "everything at once": "When did Ann, Bob and you suggest 湖 on 7 mai 2023 😀? 'l' متى " * 200,
}
ORDINALS_MAX = 10**6


def index_of_talk() -> SessionIndex:
    messages = [
        said(place, text, "assistant" if place % 5 == 4 else "user", when_ms=START_MS + place * MINUTE_MS)
        for place, text in enumerate(TALK)
    ]
    vectors = EMBEDDER.embed([message.text for message in messages]).astype("<f2")
    index = SessionIndex.empty()
    index.fold(RecallDelta(messages, [VectorRow(place, 0, 0, row.tobytes()) for place, row in enumerate(vectors)]))
    return index


INDEX = index_of_talk()


def answers(query: str, top_k: int = ORDINALS_MAX, indexes: Sequence[SessionIndex] = (INDEX,)) -> list[int]:
    """Return the ordinals that are found, after a look at their scores and their explanations."""
    understood = understand(query, START_MS + DAY_MS)
    found = rank(indexes, understood, EMBEDDER.embed_query, top_k)
    ranked, explained = rank_and_explain(indexes, understood, EMBEDDER.embed_query, top_k, None)

    assert ranked == found
    scores = [row.score for row in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)
    assert all(row.similarity is None or -1 <= row.similarity <= 1 for row in found)
    for row, why in zip(found, explained, strict=True):
        assert all(map(math.isfinite, (*why.evidence.values(), *why.lifts.values())))
        assert why.total == pytest.approx(sum(why.lifts.values()), abs=1e-4)
        assert row.score == pytest.approx(1 / (1 + math.exp(-min(max(why.total, -30), 30))), abs=1e-4)
    return [row.ordinal for row in found]


@pytest.mark.parametrize("query", HOSTILE.values(), ids=HOSTILE.keys())
def test_every_query_finds_every_message_once(query: str) -> None:
    found = answers(query)

    assert sorted(found) == list(range(len(TALK)))
    assert answers(query) == found


@pytest.mark.parametrize("query", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("top_k", [-1, 0, 1, 2, len(TALK), 200])
def test_no_more_is_found_than_asked_for(query: str, top_k: int) -> None:
    assert answers(query, top_k) == answers(query)[: max(top_k, 0)]


@pytest.mark.parametrize("query", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_read_out_of_a_query_is_bounded(query: str) -> None:
    understood = understand(query, START_MS)

    assert len(understood.terms) <= QUERY_WORDS_MAX
    assert len(understood.spans) <= SPANS_MAX
    assert all(span.start_ms < span.end_ms for span in understood.spans)


def test_cues_are_looked_for_in_the_beginning_only() -> None:
    far = " " * max(cues.QUERY_CHARS_MAX, times.QUERY_CHARS_MAX)

    assert cues.asks_when("when?")
    assert not cues.asks_when(f"{far}when?")
    assert not cues.asks_assistant(f"{far}what did you suggest")
    assert cues.named(f"{far}Ann", ["ann", "bob", ""]) == set()
    assert times.spans(f"{far}yesterday", START_MS) == []


def test_the_first_words_of_ten_thousand_are_searched_for() -> None:
    index = SessionIndex.empty()
    index.fold(RecallDelta([said(0, "violin"), said(1, "garden", when_ms=START_MS + DAY_MS)], []))
    padding = " ".join(f"word{number}" for number in range(10_000))

    assert answers(f"violin {padding} garden", 1, [index]) == [0]
    assert answers(f"garden {padding} violin", 1, [index]) == [1]


def test_invisible_characters_do_not_hide_a_word_from_a_query_that_has_them_too() -> None:
    index = SessionIndex.empty()
    index.fold(RecallDelta([said(0, "vio\u200blin"), said(1, "garden", when_ms=START_MS + DAY_MS)], []))

    assert answers("vio\u200blin", 1, [index]) == [0]


strange = st.text(st.characters(codec="utf-8"), max_size=60)


@given(strange, st.integers(1, 200))
def test_any_query_at_all_has_an_answer(query: str, top_k: int) -> None:
    assert len(answers(query, top_k)) == min(top_k, len(TALK))


@given(st.lists(strange, min_size=1, max_size=6), strange)
def test_any_messages_at_all_can_be_searched(texts: list[str], query: str) -> None:
    index = SessionIndex.empty()
    messages = [said(place, text, name="Ann" if place % 2 else None) for place, text in enumerate(texts)]
    vectors = EMBEDDER.embed(texts).astype("<f2")
    index.fold(RecallDelta(messages, [VectorRow(place, 0, 0, row.tobytes()) for place, row in enumerate(vectors)]))

    assert len(answers(query, 99, [index, INDEX])) == len(texts) + len(TALK)
