"""Which rows are turns of talk, and what is around them."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.recall import evidence
from engram.recall.index import SessionIndex
from engram.recall.rank import rank, understand
from engram.recall.talk import TURNS_REACH, Turns, around, near, side_by_side, sums_around, turns_of
from tests.recall.conversation import DAY_MS, index_of, said

NOBODY_YET = SessionIndex.empty()


def turns(*speakers: int, starts: tuple[int, ...] = ()) -> Turns:
    """Turns of people; 0 stands for an assistant."""
    numbers = np.array(speakers, np.uint16)
    begins = np.zeros(len(speakers), np.bool_)
    begins[[0, *starts]] = True
    return turns_of(numbers > 0, begins, numbers, np.full(len(speakers), 10, np.uint32))


@st.composite
def rows(draw: st.DrawFn) -> tuple[Turns, npt.NDArray[np.float32]]:
    speakers = draw(st.lists(st.integers(0, 3), min_size=1, max_size=30))
    starts = draw(st.sets(st.integers(0, len(speakers) - 1)))
    count = st.sampled_from([0, 0, 0, 0, 1, 3])
    counts = draw(st.lists(count, min_size=len(speakers), max_size=len(speakers)))
    return turns(*speakers, starts=tuple(starts)), np.array(counts, np.float32)


def test_one_person_after_another_is_talk() -> None:
    assert turns(1, 2, 1).answers.tolist() == [False, True, True]
    assert turns(1, 2, 1).counts.tolist() == [3, 3, 3]
    assert turns(1, 2, 1).lengths.tolist() == [30, 30, 30]


@pytest.mark.parametrize("speakers", [(1, 0, 1, 0), (1, 1, 1), (0, 0), (1,)])
def test_with_an_assistant_or_alone_there_is_no_talk(speakers: tuple[int, ...]) -> None:
    found = turns(*speakers)

    assert not found.answers.any()
    assert found.counts.tolist() == [1] * len(speakers)
    assert found.lengths.tolist() == [10] * len(speakers)


def test_an_episode_ends_a_talk() -> None:
    assert turns(1, 2, 1, 2, starts=(2,)).counts.tolist() == [2, 2, 2, 2]


def test_a_turn_has_two_turns_around_it_on_either_side() -> None:
    found = turns(1, 2, 1, 2, 1, 2, 1)

    assert found.counts.tolist() == [3, 4, 5, 5, 5, 4, 3]
    assert around(np.array([1, 0, 0, 0, 0, 0, 7], np.uint32), found.answers).tolist() == [1, 1, 1, 0, 7, 7, 7]


def test_what_tools_and_systems_say_is_no_talk() -> None:
    index = index_of([said(0, "hi", name="Ann"), said(1, "ok", "tool", name="search"), said(2, "be kind", "system")])

    assert not index.turns.answers.any()


def test_people_are_told_apart_by_their_names() -> None:
    named = index_of([said(0, "Ann: hi"), said(1, "Bob: hi"), said(2, "hi", name="Ann"), said(3, "Ann: bye")])
    nameless = index_of([said(n, "hi") for n in range(3)])

    assert named.turns.answers.tolist() == [False, True, True, False]
    assert not nameless.turns.answers.any()


def test_days_apart_nobody_answers() -> None:
    assert not index_of(
        [said(n, "hi", name=name, when_ms=n * DAY_MS) for n, name in enumerate("AB")]
    ).turns.answers.any()


def test_an_index_without_rows_has_no_turns() -> None:
    assert [len(array) for array in NOBODY_YET.turns] == [0, 0, 0]


@given(rows())
def test_turns_near_rows_are_those_that_have_one_around_them(drawn: tuple[Turns, npt.NDArray[np.float32]]) -> None:
    found, counts = drawn

    reached = near(np.flatnonzero(counts), found)

    expected = (around(counts, found.answers) > 0) & (found.counts > 1)
    assert reached.tolist() == np.flatnonzero(expected).tolist()


@given(rows())
def test_a_table_of_turns_side_by_side_sums_as_the_rows_do(drawn: tuple[Turns, npt.NDArray[np.float32]]) -> None:
    found, counts = drawn
    some = near(np.flatnonzero(counts), found)
    if not len(some):
        return
    columns = side_by_side(some, found)

    table = np.zeros((2, int(columns[-1]) + 1 + TURNS_REACH), np.float32)
    table[1, columns] = counts[some]
    summed = sums_around(table)

    assert not summed[0].any()
    assert summed[1][columns - TURNS_REACH].tolist() == around(counts, found.answers)[some].tolist()


def test_a_talk_of_which_only_the_end_is_near_stays_apart_from_the_talk_before() -> None:
    found = turns(1, 2, 1, 2, 1, 2, 1, 2, starts=(2,))
    counts = np.array([0, 5, 0, 0, 0, 0, 0, 7], np.float32)
    some = near(np.flatnonzero(counts), found)
    assert some.tolist() == [0, 1, 5, 6, 7]

    columns = side_by_side(some, found)
    table = np.zeros((1, int(columns[-1]) + 1 + TURNS_REACH), np.float32)
    table[0, columns] = counts[some]

    assert sums_around(table)[0][columns - TURNS_REACH].tolist() == [5, 5, 7, 7, 7]


def test_many_terms_are_summed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["lake violin tea", "seven gardens", "paint the sunset", "tea tea"]
    index = index_of([said(n, text, name=name) for n, (text, name) in enumerate(zip(texts, "ABAB", strict=True))])
    query = understand("lake tea garden sunset seven", 0)
    at_once = rank([index], query, lambda _: None, 9)

    monkeypatch.setattr(evidence, "CELLS_MAX", 1)

    in_blocks = rank([index], query, lambda _: None, 9)
    assert [row.ordinal for row in in_blocks] == [row.ordinal for row in at_once]
    assert [row.score for row in in_blocks] == pytest.approx([row.score for row in at_once], abs=1e-6)
    assert near(np.array([0]), index.turns).tolist() == [0, 1, 2]
