"""The recipe, step by step, and against a second implementation that is slow and plain."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.events import Role
from engram.projections.rows import MessageRow, RecallDelta
from engram.recall import rank as recipe
from engram.recall.cues import speaker
from engram.recall.index import EPISODE_GAP_MS, SessionIndex
from engram.recall.rank import Ranked, rank, understand
from engram.recall.terms import date_terms, terms, words
from engram.recall.times import Span
from tests.recall.conversation import DAY_MS, MINUTE_MS, START_MS, index_of, said, vector

EAST = np.array([1.0, 0.0], np.float32)
WORDS = ["lake", "violin", "paint", "Melanie", "sunset", "garden", "seven", "the", "tea"]
NAMES = ["melanie", "caroline"]


def search(
    indexes: Sequence[SessionIndex], query: str, *, direction: np.ndarray | None = None, top_k: int = 50
) -> list[Ranked]:
    return rank(indexes, understand(query, START_MS), lambda _: direction, top_k)


def order(messages: Sequence[MessageRow], query: str) -> list[int]:
    return [row.ordinal for row in search([index_of(messages)], query)]


def slow_idf(term: int, documents: Sequence[Counter[int]]) -> float:
    holders = sum(term in document for document in documents)
    return math.log(1 + (len(documents) - holders + 0.5) / (holders + 0.5))


def slow_gain(frequency: int, length: int, mean: float, b: float) -> float:
    return frequency * (1.2 + 1) / (frequency + 1.2 * (1 - b + b * length / mean))


def slow_bm25(
    query: Sequence[int], documents: Sequence[Counter[int]], b: float, rare: Sequence[Counter[int]] | None = None
) -> list[float]:
    """How rare a term is, is counted in the documents themselves, or in others."""
    mean = max(sum(document.total() for document in documents) / max(len(documents), 1), 1.0)
    return [
        sum(
            slow_idf(term, documents if rare is None else rare) * slow_gain(document[term], document.total(), mean, b)
            for term in query
        )
        for document in documents
    ]


def slow_scores(scope: Sequence[Sequence[MessageRow]], query: str) -> list[float]:
    """The recipe's steps without vectors and times, one row after the other."""
    rows = [message for session in scope for message in session]
    found = [Counter(date_terms(row.when_ms) + terms(words(row.text))) for row in rows]
    starts = [True for _ in rows]
    for number, (before, after) in enumerate(pairwise(rows), start=1):
        same_session = before.session_key == after.session_key
        starts[number] = not same_session or after.when_ms - before.when_ms > EPISODE_GAP_MS
    query_terms = list(dict.fromkeys(terms(words(query))))

    row = slow_bm25(query_terms, found, 0.6)
    row = [score * (0.5 if message.role == "assistant" else 1) for score, message in zip(row, rows, strict=True)]
    answers = slow_answers(rows, starts)
    lends = [not start and not answer for start, answer in zip(starts, answers, strict=True)][1:]
    lent = [score + (0.3 * row[number + 1] if [*lends, False][number] else 0) for number, score in enumerate(row)]
    around = slow_turns(answers, found)
    documents = list(around.values())
    for number, turns in zip(around, slow_bm25(query_terms, documents, 0.6, found), strict=True):
        lent[number] += 0.5 * (turns - row[number])
    episodes: list[Counter[int]] = []
    episode_of = []
    for begins, counter in zip(starts, found, strict=True):
        if begins:
            episodes.append(Counter())
        episodes[-1] += counter
        episode_of.append(len(episodes) - 1)
    whole = slow_bm25(query_terms, episodes, 0.75)
    lexical = [score + whole[episode] for score, episode in zip(lent, episode_of, strict=True)]

    mean = sum(lexical) / len(lexical)
    deviation = math.sqrt(sum((score - mean) ** 2 for score in lexical) / len(lexical))
    fused = [0.5 * (score - mean) / deviation if deviation > 1e-9 else 0.0 for score in lexical]
    return slow_lifts(rows, starts, fused, query)


def slow_answers(rows: Sequence[MessageRow], starts: Sequence[bool]) -> list[bool]:
    spoken = [(row.role, speaker(row.name, row.text, row.role)) for row in rows]
    return [
        number > 0 and not start and role == "user" == spoken[number - 1][0] and name != spoken[number - 1][1]
        for number, (start, (role, name)) in enumerate(zip(starts, spoken, strict=True))
    ]


def slow_turns(answers: Sequence[bool], found: Sequence[Counter[int]]) -> dict[int, Counter[int]]:
    """The terms of each turn of talk and those around it."""
    around = {}
    for number in range(len(found)):
        first = last = number
        while number - first < 2 and answers[first]:
            first -= 1
        while last - number < 2 and last + 1 < len(found) and answers[last + 1]:
            last += 1
        if first < last:
            around[number] = sum(found[first : last + 1], Counter[int]())
    return around


def slow_lifts(rows: Sequence[MessageRow], starts: Sequence[bool], fused: Sequence[float], query: str) -> list[float]:
    scores = [score - (0.2 if row.role == "assistant" else 0) for score, row in zip(fused, rows, strict=True)]
    for number in range(1, len(rows)):
        asked = "?" in rows[number - 1].text and not starts[number] and rows[number].role != "assistant"
        scores[number] += 0.4 * max(fused[number - 1], 0) if asked else 0
    speakers = [speaker(row.name, row.text, row.role) for row in rows]
    spoken = {name for name in speakers if name in words(query)}
    if len(spoken) == 1:
        scores = [score + (2.0 if name in spoken else 0) for score, name in zip(scores, speakers, strict=True)]
    return scores


@st.composite
def sessions(draw: st.DrawFn, session_key: int) -> list[MessageRow]:
    messages, when_ms = [], START_MS
    for ordinal in range(draw(st.integers(1, 8))):
        text = " ".join(draw(st.lists(st.sampled_from(WORDS), max_size=6))) + draw(st.sampled_from(["", "?"]))
        role: Role = draw(st.sampled_from(["user", "user", "user", "assistant", "tool"]))
        name = draw(st.sampled_from([None, *NAMES]))
        text = text if name is None else f"{name}: {text}"
        messages.append(said(ordinal, text, role, when_ms=when_ms, session_key=session_key))
        when_ms += draw(st.sampled_from([MINUTE_MS, EPISODE_GAP_MS + 1]))
    return messages


scopes = st.integers(1, 3).flatmap(lambda count: st.tuples(*(sessions(key) for key in range(count))))
queries = st.lists(st.sampled_from([*WORDS, "unheard"]), max_size=5).map(" ".join)


@given(scopes, queries)
def test_scores_are_those_of_the_plain_recipe(scope: tuple[list[MessageRow], ...], query: str) -> None:
    expected = [1 / (1 + math.exp(-score)) for score in slow_scores(scope, query)]

    found = search([index_of(session) for session in scope], query, top_k=1000)

    scores = {(row.place, row.ordinal): row.score for row in found}
    places = [(place, message.ordinal) for place, session in enumerate(scope) for message in session]
    assert [scores[place] for place in places] == pytest.approx(expected, abs=1e-6)
    assert [row.score for row in found] == sorted(scores.values(), reverse=True)


def test_the_rarer_word_counts_more() -> None:
    messages = [said(0, "tea garden", when_ms=0), *(said(n, "tea violin", when_ms=n * DAY_MS) for n in range(1, 9))]

    assert order(messages, "garden tea")[0] == 0


def test_an_assistants_row_counts_half() -> None:
    messages = [said(0, "blue lake", "assistant", when_ms=0), said(1, "blue lake", when_ms=DAY_MS)]

    assert order(messages, "lake") == [1, 0]


@pytest.mark.parametrize(("query", "share"), [("which lake did you suggest", 1.0), ("which lake was it", 0.5)])
def test_an_assistants_row_counts_whole_when_it_is_asked_about(query: str, share: float) -> None:
    index = index_of([said(0, "lake", "assistant", when_ms=0), said(1, "lake", when_ms=DAY_MS)])

    row = recipe.scored([index], understand(query, START_MS), lambda _: None).evidence["row"]

    assert row[0] == pytest.approx(share * row[1])


def test_of_rows_that_fit_as_well_the_assistants_comes_last() -> None:
    messages = [said(0, "tea", when_ms=0), said(1, "tea", "assistant", when_ms=DAY_MS)]

    assert order(messages, "violin") == [0, 1]
    assert order(messages, "what did you say about the violin") == [1, 0]


def test_a_reply_vouches_for_its_question() -> None:
    texts = ["tea please", "the garden", "tea please", "the violin"]
    whens_ms = [0, MINUTE_MS, DAY_MS, DAY_MS + MINUTE_MS]
    messages = [said(n, text, when_ms=when_ms) for n, (text, when_ms) in enumerate(zip(texts, whens_ms, strict=True))]

    found = order(messages, "violin")

    assert found.index(2) < found.index(0)


def test_a_turn_of_talk_is_understood_by_the_turns_around_it() -> None:
    texts = [
        "Ann: the violin",
        "Bob: blue lake sunset garden",
        "Ann: in seven",
        "Ann: in seven",
        "Bob: the garden",
        "Ann: tea",
    ]
    whens_ms = [0, MINUTE_MS, 2 * MINUTE_MS, DAY_MS, DAY_MS + MINUTE_MS, DAY_MS + 2 * MINUTE_MS]
    messages = [said(n, text, when_ms=when_ms) for n, (text, when_ms) in enumerate(zip(texts, whens_ms, strict=True))]

    evidence = recipe.scored([index_of(messages)], understand("violin", START_MS), lambda _: None).evidence

    assert evidence["row"][1:].tolist() == [0.0] * 5
    assert evidence["talk"][0] < 0 < evidence["talk"][1]
    assert evidence["talk"][1:3].tolist() == pytest.approx([evidence["talk"][1]] * 2, rel=0.2)
    assert evidence["talk"][3:].tolist() == [0.0] * 3
    assert not evidence["reply"].any()


def test_a_turn_of_talk_means_half_of_what_the_turns_around_it_mean() -> None:
    messages = [said(n, "tea", name=name) for n, name in enumerate(["Ann", "Bob", "Ann", "Bob"])]
    messages.append(said(9, "tea", "assistant"))
    directions = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    index = index_of(messages, [vector(row.ordinal, to) for row, to in zip(messages, directions, strict=True)])

    lifts = recipe.scored([index], understand("unheard", START_MS), lambda _: EAST).lifts["dense"]

    assert isinstance(lifts, np.ndarray)
    alone = np.array([2.0, -0.5, -0.5, -0.5, -0.5]) / 2
    means = [alone[:3].mean(), alone[:4].mean(), alone[:4].mean(), alone[1:4].mean(), alone[4]]
    assert lifts.tolist() == pytest.approx([(own + mean) / 2 for own, mean in zip(alone, means, strict=True)], abs=1e-3)


def test_what_is_seen_between_two_folds_is_what_is_there_then() -> None:
    messages = [said(n, "tea lake", name=name) for n, name in enumerate(["Ann", "Bob", "Ann", "Bob"])]
    index = index_of(messages[:2])
    search([index], "lake")

    index.fold(RecallDelta(messages[2:], []))

    assert search([index], "lake") == search([index_of(messages)], "lake")


def test_a_question_lends_to_its_answer() -> None:
    whens_ms = [0, MINUTE_MS, DAY_MS, DAY_MS + MINUTE_MS]
    texts = ["Which violin is yours?", "The brown one", "My violin is old", "The grey one"]
    messages = [said(n, text, when_ms=when_ms) for n, (text, when_ms) in enumerate(zip(texts, whens_ms, strict=True))]

    found = order(messages, "violin")

    assert found.index(1) < found.index(3)


def test_the_speaker_who_is_named_comes_first() -> None:
    whens_ms = [0, DAY_MS]
    messages = [
        said(0, "I like the lake", name="Melanie", when_ms=whens_ms[0]),
        said(1, "I like the lake", name="Caroline", when_ms=whens_ms[1]),
    ]

    assert order(messages, "Which lake does Caroline like?") == [1, 0]
    assert order(messages, "Which lake does Melanie like?") == [0, 1]


def test_two_speakers_who_are_named_lift_nobody() -> None:
    messages = [said(n, "hello", name=name, when_ms=n * DAY_MS) for n, name in enumerate(["Ann", "Bob", "Cid"])]

    scores = [row.score for row in search([index_of(messages)], "Ann, Bob")]

    assert max(scores) < 1 / (1 + math.exp(-1.0))


def test_rows_that_tell_a_time_come_first_when_one_is_asked_for() -> None:
    messages = [said(0, "we saw the lake yesterday", when_ms=0), said(1, "we saw the lake together", when_ms=DAY_MS)]

    assert order(messages, "When did we see the lake?") == [0, 1]
    assert order(messages, "Who saw the lake?") == [1, 0]


def test_rows_near_a_named_time_come_first() -> None:
    messages = [said(n, "we saw the lake", when_ms=START_MS - n * 10 * DAY_MS) for n in range(5)]

    assert order(messages, "What did we see 20 days ago?")[0] == 2


def test_nearness_falls_with_the_distance_to_the_nearest_span() -> None:
    week = 7 * DAY_MS
    whens_ms = np.array([0, week, 2 * week, 10 * week], np.int64)

    near = recipe.nearness(whens_ms, [Span(0, week), Span(10 * week, 10 * week + 1)])

    assert near.tolist() == pytest.approx([1.0, 1.0, math.exp(-1), 1.0])


def test_statistics_are_of_the_whole_scope() -> None:
    """Alone, "lake" is in every row of the first session and tells nothing; beside the second it is rare."""
    first = index_of([said(n, "lake", when_ms=n * DAY_MS) for n in range(2)])
    second = index_of([said(n, "tea", when_ms=n * DAY_MS) for n in range(9)])

    found = search([second, first], "lake", top_k=2)

    assert [(row.place, row.ordinal) for row in found] == [(1, 1), (1, 0)]


def test_the_nearer_vector_wins_when_words_say_nothing() -> None:
    index = index_of(
        [said(n, "tea", when_ms=n * DAY_MS) for n in range(3)],
        [vector(0, [0, 1]), vector(1, [1, 0]), vector(2, [-1, 0])],
    )

    found = search([index], "quite unheard of", direction=EAST)

    assert [row.ordinal for row in found] == [1, 0, 2]
    assert [row.similarity for row in found] == pytest.approx([1.0, 0.0, -1.0])


def test_vectors_of_all_sessions_are_compared() -> None:
    first = index_of([said(0, "tea"), said(1, "tea")], [vector(1, [0, 1])])
    second = index_of([said(0, "tea")], [vector(0, [1, 0])])

    found = search([first, second], "unheard", direction=EAST)

    similarities = [(row.place, row.ordinal, row.similarity) for row in found]
    assert similarities == [(1, 0, 1.0), (0, 0, None), (0, 1, 0.0)]


def test_a_row_without_a_vector_is_taken_for_an_average_one() -> None:
    index = index_of([said(n, "tea", when_ms=n * DAY_MS) for n in range(3)], [vector(1, [0, 1]), vector(2, [1, 0])])

    found = search([index], "unheard", direction=EAST)

    assert [(row.ordinal, row.similarity) for row in found] == [(2, 1.0), (0, None), (1, 0.0)]


def test_among_equals_the_latest_comes_first() -> None:
    assert order([said(n, "tea", when_ms=n * DAY_MS) for n in range(4)], "") == [3, 2, 1, 0]


def test_the_query_gets_the_idf_of_its_words() -> None:
    seen: dict[str, float] = {}
    index = index_of([said(0, "tea lake", when_ms=0), said(1, "tea", when_ms=DAY_MS)])

    rank([index], understand("Tea, the lake's unheard tea", START_MS), seen.update, 5)

    assert list(seen) == ["tea", "lake", "unheard"]
    assert seen["tea"] < seen["lake"] < seen["unheard"]


def test_one_row_alone_is_found_with_an_even_score() -> None:
    (found,) = search([index_of([said(0, "lake")], [vector(0, [1, 0])])], "lake", direction=EAST)

    assert found == Ranked(0, 0, 0.5, 1.0)


def test_nothing_is_found_where_nothing_is() -> None:
    assert search([], "lake") == []
    assert search([SessionIndex.empty()], "lake") == []
    assert search([index_of([said(0, "lake")])], "lake", top_k=0) == []


def test_empty_sessions_do_not_shift_the_others() -> None:
    found = search([SessionIndex.empty(), index_of([said(0, "lake")]), SessionIndex.empty()], "lake")

    assert [(row.place, row.ordinal) for row in found] == [(1, 0)]


HOSTILE = [
    "",
    " ",
    "😀🎉",
    "?" * 300,
    "the and or",
    "a" * 1_000_000,
    "word " * 52_000,
    "x-" * 131_072,
    "\x00\ufffd\u202e",
    "': " * 100,
]


@pytest.mark.parametrize("query", HOSTILE, ids=lambda text: repr(text[:8]))
@pytest.mark.parametrize("direction", [None, EAST, np.zeros(2, np.float32)], ids=["none", "some", "zero"])
def test_no_query_gives_a_score_that_is_no_number(query: str, direction: np.ndarray | None) -> None:
    for text in ("", "lake"):
        index = index_of([said(0, text), said(1, "lake", when_ms=DAY_MS)], [vector(1, [1, 0])])

        found = search([index], query, direction=direction)

        assert sorted(row.ordinal for row in found) == [0, 1]
        assert all(0 < row.score < 1 for row in found)
        assert all(row.similarity is None or -1 <= row.similarity <= 1 for row in found)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:8]))
def test_no_text_gives_a_score_that_is_no_number(text: str) -> None:
    index = index_of([said(0, text), said(1, "lake", when_ms=DAY_MS)], [vector(1, [1, 0])])

    for query in ("", "lake", "word? x 😀"):
        found = search([index], query, direction=EAST)

        assert sorted(row.ordinal for row in found) == [0, 1]
        assert all(0 < row.score < 1 for row in found)
        assert all(row.similarity is None or -1 <= row.similarity <= 1 for row in found)


def test_times_at_the_ends_of_64_bits_give_scores() -> None:
    messages = [said(n, "lake", when_ms=when_ms) for n, when_ms in enumerate([-(2**63), 0, 2**63 - 1])]

    found = search([index_of(messages)], "When were we at the lake in March?")

    assert all(0 < row.score < 1 for row in found)
