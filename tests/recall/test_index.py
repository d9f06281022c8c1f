"""The recall index of a session: folding, sealing, bytes, memory."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.events import Role
from engram.projections.rows import MessageRow, RecallDelta, VectorRow
from engram.recall.blob import BlobError
from engram.recall.index import EPISODE_GAP_MS, EPISODE_ROWS_MAX, SPEAKERS_MAX, SessionIndex
from engram.recall.rank import Ranked, rank, understand
from engram.recall.terms import query_terms
from tests.recall.conversation import MINUTE_MS, START_MS, index_of, said, vector

WORDS = ["lake", "violin", "paint", "Melanie", "sunset", "yesterday", "seven", "the", "tea?", "garden"]
DIMENSION = 4
QUERY = "When did Melanie paint the lake at sunset?"

texts = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
roles: st.SearchStrategy[Role] = st.sampled_from(["user", "assistant"])
numbers = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=DIMENSION, max_size=DIMENSION)
pauses = st.sampled_from([MINUTE_MS, 10 * MINUTE_MS, EPISODE_GAP_MS + 1])


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[MessageRow], list[VectorRow]]:
    messages, vectors, when_ms, ordinal = [], [], START_MS, 0
    for _ in range(draw(st.integers(0, 20))):
        messages.append(said(ordinal, draw(texts), draw(roles), when_ms=when_ms))
        vectors += [vector(ordinal, draw(numbers)) for _ in range(draw(st.integers(0, 2)))]
        when_ms += draw(pauses)
        ordinal += draw(st.integers(1, 2))
    return messages, vectors


def ranked(*indexes: SessionIndex, query: str = QUERY) -> list[Ranked]:
    direction = np.array([0.5, 0.5, 0.5, 0.5], np.float32)
    return rank(indexes, understand(query, START_MS), lambda _: direction, 50)


def rows_of(index: SessionIndex, word: str) -> list[tuple[int, int]]:
    """Return the rows that hold a word, each with how often."""
    matches = index.matches(np.array(list(query_terms(word, words_max=1).values()), np.uint32))
    return list(zip(matches.rows.tolist(), matches.counts.tolist(), strict=True))


def episode_sizes(whens_ms: Sequence[int]) -> list[int]:
    index = index_of([said(ordinal, "x", when_ms=when_ms) for ordinal, when_ms in enumerate(whens_ms)])
    return [int(size) for size in np.bincount(index.episodes.numbers)]


@given(conversations(), st.data())
def test_folding_in_any_split_is_folding_at_once(
    conversation: tuple[list[MessageRow], list[VectorRow]], data: st.DataObject
) -> None:
    messages, vectors = conversation
    split = SessionIndex.empty()

    start = 0
    while start < len(messages):
        end = data.draw(st.integers(start + 1, len(messages)))
        ordinals = {message.ordinal for message in messages[start:end]}
        split.fold(RecallDelta(messages[start:end], [row for row in vectors if row.ordinal in ordinals]))
        start = end

    assert split.to_bytes() == index_of(messages, vectors).to_bytes()


@given(conversations(), st.randoms(use_true_random=False))
def test_vectors_may_come_later_and_in_any_order(
    conversation: tuple[list[MessageRow], list[VectorRow]],
    random: Random,
) -> None:
    messages, vectors = conversation
    ordinals = sorted({row.ordinal for row in vectors})
    random.shuffle(ordinals)
    late = index_of(messages)

    for ordinal in ordinals:
        late.fold(RecallDelta([], [row for row in vectors if row.ordinal == ordinal]))

    assert late.to_bytes() == index_of(messages, vectors).to_bytes()


@given(conversations())
def test_folding_again_changes_nothing(conversation: tuple[list[MessageRow], list[VectorRow]]) -> None:
    index = index_of(*conversation)
    before = index.to_bytes()

    index.fold(RecallDelta(*conversation))

    assert index.to_bytes() == before


@given(conversations())
def test_an_index_comes_back_from_its_bytes(conversation: tuple[list[MessageRow], list[VectorRow]]) -> None:
    index = index_of(*conversation)

    reopened = SessionIndex.from_bytes(index.to_bytes())

    assert ranked(reopened) == ranked(index)
    assert reopened.to_bytes() == index.to_bytes()


@given(conversations(), st.integers(0, 20))
def test_a_sealed_part_and_a_tail_answer_as_all_sealed(
    conversation: tuple[list[MessageRow], list[VectorRow]], sealed: int
) -> None:
    messages, vectors = conversation
    growing = SessionIndex.from_bytes(index_of(messages[:sealed], vectors).to_bytes())
    growing.fold(RecallDelta(messages[sealed:], vectors))
    both = ranked(growing)

    growing.to_bytes()

    assert both == ranked(growing)
    assert both == ranked(index_of(messages, vectors))


@given(conversations())
def test_a_reopened_index_grows_without_touching_its_bytes(
    conversation: tuple[list[MessageRow], list[VectorRow]],
) -> None:
    data = index_of(*conversation).to_bytes()
    reopened = SessionIndex.from_bytes(data)

    reopened.fold(RecallDelta([said(99, "lake")], [vector(99, [1, 0, 0, 0])]))

    assert SessionIndex.from_bytes(data).to_bytes() == data


@given(st.data())
def test_damaged_bytes_are_refused(data: st.DataObject) -> None:
    sound = index_of([said(0, "lake")], [vector(0, [1, 0])]).to_bytes()
    place = data.draw(st.integers(0, len(sound) - 1).filter(lambda place: place not in range(12, 16)))
    damaged = bytearray(sound)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))

    with pytest.raises(BlobError):
        SessionIndex.from_bytes(bytes(damaged))


@given(st.data())
def test_cut_bytes_are_refused(data: st.DataObject) -> None:
    sound = index_of([said(0, "lake")]).to_bytes()

    with pytest.raises(BlobError):
        SessionIndex.from_bytes(sound[: data.draw(st.integers(0, len(sound) - 1))])


def test_a_term_is_found_in_sealed_rows_and_in_the_tail() -> None:
    index = index_of([said(0, "lake lake"), said(1, "tea"), said(2, "Lakes")])
    index.to_bytes()
    index.fold(RecallDelta([said(3, "the lake"), said(4, "tea")], []))

    assert rows_of(index, "lake") == [(0, 2), (2, 1), (3, 1)]
    assert rows_of(index, "violin") == []


def test_many_messages_are_sealed_on_the_way() -> None:
    index = SessionIndex.empty()
    for ordinal in range(2000):
        index.fold(RecallDelta([said(ordinal, f"lake w{ordinal} v{ordinal} u{ordinal}")], []))

    assert rows_of(index, "lake") == [(row, 1) for row in range(2000)]
    assert rows_of(index, "w1234") == [(1234, 1)]
    assert index.size_bytes / 2000 < 200


def test_rows_beyond_two_bytes_are_found() -> None:
    index = SessionIndex.empty()
    for start in range(0, 70_000, 10_000):
        index.fold(RecallDelta([said(ordinal, "tea") for ordinal in range(start, start + 10_000)], []))
    index.fold(RecallDelta([said(70_000, "lake")], []))
    index = SessionIndex.from_bytes(index.to_bytes())

    assert rows_of(index, "lake") == [(70_000, 1)]
    assert rows_of(index, "tea")[-1] == (69_999, 1)


def test_more_repetitions_than_a_byte_holds_count_as_255() -> None:
    assert rows_of(index_of([said(0, "lake " * 1000)]), "lake") == [(0, 255)]


def test_the_date_of_a_message_is_among_its_terms() -> None:
    index = index_of([said(0, "tea"), said(1, "tea", when_ms=START_MS + 40 * 24 * 60 * MINUTE_MS)])

    assert rows_of(index, "May") == [(0, 1)]
    assert rows_of(index, "June") == [(1, 1)]


def test_a_given_name_is_among_the_terms() -> None:
    assert rows_of(index_of([said(0, "tea", name="Melanie")]), "Melanie") == [(0, 1)]


def test_a_long_pause_ends_an_episode() -> None:
    whens_ms = [0, EPISODE_GAP_MS, 2 * EPISODE_GAP_MS + 1, 2 * EPISODE_GAP_MS + 2]

    assert episode_sizes(whens_ms) == [2, 2]


def test_going_far_back_in_time_ends_an_episode() -> None:
    assert episode_sizes([10 * EPISODE_GAP_MS, 0, 1]) == [1, 2]


def test_a_long_episode_is_cut() -> None:
    assert episode_sizes(range(EPISODE_ROWS_MAX * 2 + 1)) == [EPISODE_ROWS_MAX, EPISODE_ROWS_MAX, 1]


def test_more_speakers_than_have_a_place_stay_unnamed() -> None:
    index = index_of([said(ordinal, "hi", name=f"n{ordinal}") for ordinal in range(SPEAKERS_MAX + 5)])

    assert len(index.speakers) == SPEAKERS_MAX
    assert not index.spoken_by(f"n{SPEAKERS_MAX + 1}").any()
    assert index.spoken_by("n7").nonzero()[0].tolist() == [7]


def test_an_index_holds_no_text_and_no_stem() -> None:
    data = index_of([said(0, "a violinist practising rhapsodies", name="Melanie")]).to_bytes().lower()

    assert not any(word in data for word in (b"violin", b"practis", b"rhapsod"))


def test_memory_grows_with_messages() -> None:
    small = index_of([said(0, "lake")])
    messages = [said(ordinal, "lake tea garden") for ordinal in range(1000)]
    large = index_of(messages, [vector(ordinal, [1.0] * 64) for ordinal in range(1000)])

    assert small.size_bytes < 100_000
    assert large.size_bytes - small.size_bytes > 1000 * 64


def test_an_empty_index_has_nothing() -> None:
    index = SessionIndex.empty()

    assert (len(index), index.next_ordinal, ranked(index)) == (0, 0, [])
    assert len(SessionIndex.from_bytes(index.to_bytes())) == 0
