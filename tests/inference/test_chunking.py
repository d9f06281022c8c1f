"""Splitting long texts and grouping short ones."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.inference.chunking import Span, group, split

texts = st.lists(
    st.sampled_from(["A sentence. ", "「漢字。」", "🎉👩‍👩‍👧", "word ", "\n\n", "x" * 50, '"Really?" '])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    max_size=30,
).map("".join)


@given(texts, st.integers(4, 200))
def test_the_spans_cover_the_text_without_gaps_or_overlaps(text: str, bytes_max: int) -> None:
    spans = split(text, bytes_max)

    assert "".join(text[start:end] for start, end in spans) == text
    assert all(before.end == after.start for before, after in pairwise(spans))


@given(texts, st.integers(4, 200))
def test_no_span_is_empty_or_too_long(text: str, bytes_max: int) -> None:
    sizes = [len(text[start:end].encode()) for start, end in split(text, bytes_max)]

    assert all(0 < size <= bytes_max for size in sizes)


@given(texts, st.integers(16, 200))
def test_there_are_not_many_more_spans_than_needed(text: str, bytes_max: int) -> None:
    assert len(split(text, bytes_max)) <= 1 + len(text.encode()) // ((bytes_max - 8) // 8)


def test_a_text_within_the_limit_is_one_span() -> None:
    assert split("short", 5) == [Span(0, 5)]
    assert split("", 5) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One two three. Four five", ["One two three. ", "Four five"]),
        ('He said "no." Then he left us', ['He said "no." ', "Then he left us"]),
        ("One. two three fours", ["One. two three ", "fours"]),
        ("one two three four five", ["one two three ", "four five"]),
        ("line of words\nanother line", ["line of words\n", "another line"]),
        ("x" * 30, ["x" * 16, "x" * 14]),
        ("漢字漢。字漢字", ["漢字漢。", "字漢字"]),
        ("🎉🎉🎉🎉🎉", ["🎉🎉🎉🎉", "🎉"]),
    ],
)
def test_a_span_ends_behind_a_sentence_else_a_word_else_a_character(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in split(text, 16)] == expected


def test_a_limit_that_may_not_hold_a_character_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="3 bytes"):
        split("🎉", 3)


@given(st.lists(st.integers(0, 12)), st.integers(1, 5), st.integers(1, 20))
def test_groups_keep_the_order_and_both_limits(sizes: list[int], items_max: int, size_max: int) -> None:
    items = list(enumerate(sizes))

    groups = list(group(items, sizes, items_max=items_max, size_max=size_max))

    assert [item for members in groups for item in members] == items
    for members in groups:
        assert 1 <= len(members) <= items_max
        assert len(members) == 1 or sum(size for _, size in members) <= size_max
    for members, following in pairwise(groups):
        whole = sum(size for _, size in members) + following[0][1]
        assert len(members) == items_max or whole > size_max
