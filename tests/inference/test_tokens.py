"""Counting cl100k_base tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.inference.tokens import TokenCounter

TOKENS = TokenCounter()


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("hello world", 2), ("tiktoken is great!", 6), ("你好", 2)])
def test_counts_are_those_of_cl100k_base(text: str, tokens: int) -> None:
    assert TOKENS.count(text) == tokens


def test_the_name_of_a_special_token_is_ordinary_text() -> None:
    assert TOKENS.count("<|endoftext|>") > 1


@pytest.mark.parametrize("text", ["a" * 262_144, " " * 262_144, "\n" * 262_144, "x-" * 131_072, "😀" * 65_536])
def test_the_longest_message_is_counted(text: str) -> None:
    assert TOKENS.count(text) > 1000


@given(st.text(), st.text())
def test_two_texts_never_take_fewer_tokens_apart_than_their_bytes_allow(first: str, second: str) -> None:
    assert TOKENS.count(first + second) <= len((first + second).encode())


def test_a_lone_surrogate_is_counted() -> None:
    assert TOKENS.count("\ud800") >= 1


PIECES = st.sampled_from(
    ["<|endoftext|>", "<|endof", "text|>", "<|", "|>", "\n", " ", "a", "it's", "漢字", "😀", "\ud800"]
)


@given(st.lists(st.text() | st.lists(PIECES).map("".join), max_size=6))
def test_counting_together_is_counting_one_by_one(texts: list[str]) -> None:
    assert TOKENS.count_all(texts) == [TOKENS.count(text) for text in texts]
