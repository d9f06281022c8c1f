"""Vectors of a session's rows: kept as bytes, several a row, replaced, late, or missing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.projections.rows import RecallDelta
from engram.recall.index import SessionIndex
from engram.recall.vectors import BLOCK_ROWS, RowVectors, no_chunks
from tests.recall.conversation import index_of, said, vector

EAST = np.array([1.0, 0.0], np.float32)


def talk(rows: int) -> SessionIndex:
    return index_of([said(ordinal, "x") for ordinal in range(rows)])


def cosines(index: SessionIndex) -> list[float | None]:
    found = index.similarities(EAST)
    return [
        round(cosine, 2) if known else None
        for cosine, known in zip(found.cosines.tolist(), found.known.tolist(), strict=True)
    ]


@given(st.integers(1, 3 * BLOCK_ROWS), st.integers(0, 2**32 - 1))
def test_bytes_are_as_near_as_floats_to_a_percent(rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    floats = random.normal(size=(rows, 64)).astype(np.float32)
    floats /= np.linalg.norm(floats, axis=1, keepdims=True)
    query = floats[0]
    vectors = RowVectors(no_chunks())

    vectors.replace(floats, np.arange(rows))

    np.testing.assert_allclose(vectors.similarities(query, rows).cosines, floats @ query, atol=0.01)


def test_a_row_is_as_near_as_its_nearest_chunk() -> None:
    index = talk(3)

    index.fold(RecallDelta([], [vector(0, [0, 1]), vector(1, [-1, 0]), vector(1, [0.6, 0.8]), vector(2, [1, 0])]))

    assert cosines(index) == [0.0, 0.6, 1.0]


def test_rows_without_a_vector_are_not_known() -> None:
    index = talk(3)

    index.fold(RecallDelta([], [vector(1, [1, 0])]))

    assert cosines(index) == [None, 1.0, None]


def test_as_many_vectors_as_rows_need_not_be_one_each() -> None:
    index = talk(2)

    index.fold(RecallDelta([], [vector(0, [1, 0]), vector(0, [0, 1])]))

    assert cosines(index) == [1.0, None]


def test_new_vectors_replace_old_ones() -> None:
    index = talk(3)
    index.fold(RecallDelta([], [vector(ordinal, [1, 0]) for ordinal in range(3)]))

    index.fold(RecallDelta([], [vector(1, [0, 1])]))

    assert cosines(index) == [1.0, 0.0, 1.0]


def test_new_vectors_replace_those_of_a_reopened_index() -> None:
    index = talk(2)
    index.fold(RecallDelta([], [vector(0, [1, 0]), vector(1, [1, 0])]))
    data = index.to_bytes()
    reopened = SessionIndex.from_bytes(data)

    reopened.fold(RecallDelta([], [vector(1, [0, 1])]))

    assert cosines(reopened) == [1.0, 0.0]
    assert cosines(SessionIndex.from_bytes(data)) == [1.0, 1.0]


def test_a_different_number_of_chunks_replaces_all_of_them() -> None:
    index = talk(3)
    index.fold(RecallDelta([], [vector(0, [0, 1]), vector(1, [1, 0]), vector(1, [0, 1]), vector(2, [0, 1])]))

    index.fold(RecallDelta([], [vector(1, [0, 1])]))
    assert cosines(index) == [0.0, 0.0, 0.0]

    index.fold(RecallDelta([], [vector(1, [0, 1]), vector(1, [1, 0])]))
    assert cosines(index) == [0.0, 1.0, 0.0]


def test_a_delta_may_repeat_old_vectors_before_new_ones() -> None:
    index = talk(4)
    index.fold(RecallDelta([], [vector(0, [1, 0]), vector(1, [1, 0])]))

    index.fold(RecallDelta([], [vector(1, [1, 0]), vector(2, [0, 1]), vector(3, [1, 0])]))

    assert cosines(index) == [1.0, 1.0, 0.0, 1.0]


def test_vectors_of_unknown_messages_are_left_alone() -> None:
    index = index_of([said(0, "x"), said(3, "x")])

    index.fold(RecallDelta([], [vector(0, [1, 0]), vector(2, [1, 0]), vector(7, [1, 0])]))

    assert cosines(index) == [1.0, None]


@pytest.mark.parametrize("broken", [[0.0, 0.0], [float("nan"), 1.0], [float("inf"), 0.0]])
def test_a_vector_without_a_direction_is_none(broken: list[float]) -> None:
    index = talk(2)
    index.fold(RecallDelta([], [vector(0, [1, 0])]))

    index.fold(RecallDelta([], [vector(0, broken), vector(1, broken)]))

    assert cosines(index) == [None, None]


def test_vectors_of_another_width_start_everything_again() -> None:
    index = talk(2)
    index.fold(RecallDelta([], [vector(0, [1, 0, 0]), vector(1, [1, 0, 0])]))
    assert cosines(index) == [None, None]

    index.fold(RecallDelta([], [vector(1, [1, 0])]))

    assert cosines(index) == [None, 1.0]


def test_of_mixed_widths_the_latest_counts() -> None:
    index = talk(2)

    index.fold(RecallDelta([], [vector(0, [1, 0, 0]), vector(1, [1, 0])]))

    assert cosines(index) == [None, 1.0]
