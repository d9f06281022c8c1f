"""Words and terms: what a search matches on."""

from hypothesis import given
from hypothesis import strategies as st

from engram.recall.terms import (
    STOP_WORDS,
    WORD_CHARS_MAX,
    TermTable,
    bare,
    date_terms,
    query_terms,
    terms,
    words,
)


def term(word: str) -> int:
    (found,) = terms([word])
    return found


def test_words_are_lower_case_runs_of_letters_and_digits() -> None:
    assert words("Hello, WORLD_42! naïve Ünïcode 你好") == [
        "hello",
        "world",
        "42",
        "naïve",
        "ünïcode",
        "你",
        "好",
        "你好",
    ]


def test_an_apostrophe_inside_a_word_does_not_split_it() -> None:
    assert words("O'Neil's 'quoted' don't") == ["o'neil's", "quoted", "don't"]


def test_a_typographic_apostrophe_is_an_apostrophe() -> None:
    assert words("don\u2019t") == ["don't"]


def test_endings_after_an_apostrophe_are_dropped() -> None:
    endings = ["melanie's", "we're", "i've", "she'll", "he'd", "i'm"]

    assert [bare(word) for word in endings] == ["melanie", "we", "i", "she", "he", "i"]


def test_other_apostrophes_are_removed() -> None:
    assert [bare("don't"), bare("o'neil"), bare("o'neil's")] == ["dont", "oneil", "oneil"]


def test_there_are_56_stop_words_and_none_is_a_term() -> None:
    assert len(STOP_WORDS) == 56
    assert terms(sorted(STOP_WORDS)) == []
    assert terms(["it's", "she'll"]) == []


def test_forms_of_a_word_share_a_term() -> None:
    assert term("painting") == term("painted") == term("paints") == term("paint")
    assert term("paint") != term("point")


def test_terms_keep_order_and_repeats() -> None:
    assert terms(["sunset", "the", "lake", "sunset"]) == [term("sunset"), term("lake"), term("sunset")]


def test_a_date_is_four_terms() -> None:
    assert date_terms(1_683_504_000_000) == terms(["08", "may", "2023", "monday"])


def test_a_time_that_no_calendar_holds_has_no_date() -> None:
    assert date_terms(10**18) == []
    assert date_terms(-(10**18)) == []


def test_a_query_has_each_word_once_without_its_ending() -> None:
    assert query_terms("Melanie's lake, Melanie and the Lake", words_max=9) == {
        "melanie": term("melanie"),
        "lake": term("lake"),
    }


def test_a_query_is_cut_after_so_many_words() -> None:
    assert list(query_terms("one two three four", words_max=2)) == ["one", "two"]


def test_a_query_of_stop_words_or_signs_has_no_terms() -> None:
    assert query_terms("who are you?", words_max=9) == {}
    assert query_terms("😀 🎉 ... !", words_max=9) == {}
    assert query_terms("", words_max=9) == {}


def test_a_word_of_a_million_characters_is_one_term() -> None:
    long = "a" * 1_000_000

    assert terms(words(long)) == [term(long)]
    assert term(long) != term(long + "a")


def test_no_more_words_are_remembered_than_the_bound() -> None:
    table = TermTable(words_max=3)
    first = table["violin"]

    for number in range(10):
        assert table[f"w{number}"] == term(f"w{number}")

    assert len(table) <= 3
    assert table["violin"] == first


def test_a_very_long_word_is_not_remembered() -> None:
    table = TermTable(words_max=3)

    assert table["a" * (WORD_CHARS_MAX + 1)] == term("a" * (WORD_CHARS_MAX + 1))
    assert len(table) == 0


@given(st.text())
def test_any_text_has_terms_of_32_bits(text: str) -> None:
    assert all(0 <= found < 2**32 for found in terms(words(text)))


@given(st.text(alphabet=st.characters(categories=["Cs", "Ll", "Zs"]), max_size=WORD_CHARS_MAX * 2))
def test_lone_surrogates_do_no_harm(text: str) -> None:
    assert len(terms(words(text))) <= len(words(text))
