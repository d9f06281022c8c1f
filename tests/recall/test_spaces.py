"""Vectors of several makers in one index: never compared with one another, put on a common scale."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.projections.lance_rows import Space
from engram.projections.past import Cut
from engram.projections.rows import RecallDelta
from engram.recall.index import SessionIndex
from engram.recall.past_index import as_it_was
from engram.recall.rank import rank, understand
from engram.recall.spaces import DEVIATIONS_MAX, SpaceVectors, common_scale
from engram.recall.vectors import Similarities
from tests.recall.conversation import START_MS, index_of, said, vector

OLD, NEW, WIDE = Space("old", 2), Space("new", 2), Space("wide", 3)
EAST, NORTH = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
UP = np.array([0, 0, 1], np.float32)


def index_of_two() -> SessionIndex:
    """Return rows 0 and 2 by one maker, 1 by another one, 3 by nobody."""
    messages = [said(ordinal, f"word{ordinal}") for ordinal in range(4)]
    return index_of(messages, [vector(0, [1, 0], "old"), vector(1, [1, 0], "new"), vector(2, [0, 1], "old")])


def test_a_row_is_compared_with_the_vector_of_its_own_maker_only() -> None:
    found = index_of_two().similarities({OLD: EAST, NEW: NORTH})

    assert found.cosines.tolist() == pytest.approx([1, 0, 0, 0], abs=0.01)
    assert found.known.tolist() == [True, True, True, False]


def test_a_maker_who_cannot_be_asked_leaves_his_rows_unknown() -> None:
    found = index_of_two().similarities({NEW: EAST})

    assert found.known.tolist() == [False, True, False, False]
    assert found.cosines.tolist() == pytest.approx([0, 1, 0, 0], abs=0.01)


def test_new_vectors_take_the_place_of_another_makers() -> None:
    index = index_of_two()

    index.fold(RecallDelta([], [vector(0, [0, 0, 1], "wide")]))
    found = index.similarities({OLD: EAST, NEW: EAST, WIDE: UP})

    assert sorted(index.chunks) == [NEW, OLD, WIDE]
    assert found.cosines.tolist() == pytest.approx([1, 1, 0, 0], abs=0.01)
    assert not index.similarities({OLD: EAST}).known[0]


def test_when_all_is_moved_nothing_of_the_old_maker_is_left() -> None:
    index = index_of_two()

    index.fold(RecallDelta([], [vector(ordinal, [0, 1], "new") for ordinal in range(4)]))

    assert list(index.chunks) == [NEW]
    assert index.similarities({NEW: NORTH}).known.all()


def test_one_delta_can_have_both_and_the_later_one_stays() -> None:
    index = index_of([said(0, "a")], [vector(0, [1, 0], "old"), vector(0, [0, 1], "new")])

    assert list(index.chunks) == [NEW]


def test_a_sealed_index_keeps_its_makers() -> None:
    index = index_of_two()

    again = SessionIndex.from_bytes(index.to_bytes())

    assert sorted(again.chunks) == [NEW, OLD]
    query = {OLD: EAST, NEW: NORTH}
    assert again.similarities(query).cosines.tolist() == index.similarities(query).cosines.tolist()


@given(st.permutations(range(12)), st.integers(1, 12))
def test_moved_in_any_order_it_is_as_if_moved_at_once(order: list[int], count: int) -> None:
    messages = [said(ordinal, f"word{ordinal}") for ordinal in range(12)]
    step = index_of(messages, [vector(ordinal, [1, ordinal], "old") for ordinal in range(12)])
    moved = order[:count]

    for ordinal in moved:
        step.fold(RecallDelta([], [vector(ordinal, [ordinal, 1, 1], "wide")]))
    stay = [vector(ordinal, [1, ordinal], "old") for ordinal in range(12) if ordinal not in moved]
    at_once = index_of(messages, stay + [vector(ordinal, [ordinal, 1, 1], "wide") for ordinal in moved])

    assert step.to_bytes() == at_once.to_bytes()


def test_the_past_has_the_vectors_of_then_by_who_made_them_then() -> None:
    index = index_of([said(0, "a"), said(1, "b")], [vector(0, [0, 0, 1], "wide"), vector(1, [1, 0], "old")])
    cut = Cut(2, [0], [vector(0, [0, 1], "old")], frozenset({"old"}))

    then = as_it_was(index, cut).similarities({OLD: NORTH, WIDE: UP})

    assert then.cosines.tolist() == pytest.approx([1, 0], abs=0.01)


def scaled(cosines: list[float], spaces: list[int]) -> list[float]:
    known = np.array([space >= 0 for space in spaces])
    numbers = np.maximum(np.array(spaces), 0).astype(np.uint8)
    found: list[float] = common_scale(Similarities(np.array(cosines, np.float32), known, numbers)).tolist()
    return found


def test_one_maker_needs_no_scale() -> None:
    assert scaled([0.5, 0.25, 0.0], [0, 0, -1]) == [0.5, 0.25, 0.0]
    assert scaled([0.5, 0.25, 0.0], [1, 1, -1]) == [0.5, 0.25, 0.0]


def test_a_maker_who_sees_all_near_does_not_win_by_that() -> None:
    shy, keen = [0.0, 0.1, 0.2, 0.5] * 10, [0.7, 0.71, 0.72, 0.75] * 10

    found = scaled(shy + keen, [0] * 40 + [1] * 40)

    assert found[3] > found[40]
    assert found[43] > found[0]
    assert found[3] > found[42]


def test_the_first_row_that_was_moved_is_not_taken_for_an_average_one() -> None:
    found = scaled([0.1, 0.0, 0.2, 0.1, 0.9], [0, 0, 0, 0, 1])

    assert found[4] == max(found)
    assert found[4] > 1


@given(st.lists(st.tuples(st.floats(-1, 1, width=32), st.integers(-1, 2)), min_size=1, max_size=30))
def test_the_scale_is_bounded_and_keeps_each_makers_order(rows: list[tuple[float, int]]) -> None:
    cosines = [cosine if space >= 0 else 0.0 for cosine, space in rows]
    spaces = [space for _, space in rows]

    found = scaled(cosines, spaces)

    assert all(np.isfinite(found))
    assert all(abs(value) <= DEVIATIONS_MAX for value in found)
    assert all(value == 0 for value, space in zip(found, spaces, strict=True) if space < 0)
    for maker in range(3):
        own = sorted((cosines[place], found[place]) for place in range(len(rows)) if spaces[place] == maker)
        assert all(lower[1] <= higher[1] + 1e-6 for lower, higher in itertools.pairwise(own))


def test_one_odd_row_does_not_make_the_others_alike() -> None:
    found = scaled([0.0] * 60 + [1.0] + [0.0, 0.1] * 10, [0] * 61 + [1] * 20)

    assert found[60] == 4


def test_a_row_that_waited_then_had_no_vector_then() -> None:
    index = index_of([said(0, "a"), said(1, "b")], [vector(0, [0, 0, 1], "wide"), vector(1, [1, 0], "old")])

    then = as_it_was(index, Cut(2, [0], [], frozenset())).similarities({OLD: NORTH, WIDE: UP})

    assert then.known.tolist() == [False, True]


def test_both_makers_rows_are_found_by_their_meaning() -> None:
    messages = [said(ordinal, f"word{ordinal}") for ordinal in range(20)]
    vectors = [vector(ordinal, [1, 0] if ordinal == 3 else [0, 1], "old") for ordinal in range(10)]
    vectors += [vector(ordinal, [0, 0, 1] if ordinal == 15 else [0, 1, 0], "wide") for ordinal in range(10, 20)]

    found = rank([index_of(messages, vectors)], understand("elsewhere", START_MS), lambda _: {OLD: EAST, WIDE: UP}, 2)

    assert {row.ordinal for row in found} == {3, 15}


def test_no_vectors_leave_no_space() -> None:
    vectors = SpaceVectors({})

    vectors.replace(OLD, np.zeros((0, 2), np.float32), np.zeros(0, np.uint32))

    assert vectors.parts == {}
    assert not vectors.similarities({OLD: EAST}, 3).known.any()
