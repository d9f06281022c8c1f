"""Who speaks, who asks, who tells a time."""

import pytest

from engram.recall.cues import ASK_CHARS, NAME_CHARS_MAX, asks, asks_assistant, asks_when, named, speaker, tells_time
from engram.recall.terms import words


def test_a_question_mark_near_the_end_asks() -> None:
    assert asks("How was your trip? I am curious.")
    assert not asks("It was great.")
    assert not asks("Why? " + "x" * ASK_CHARS)


def test_a_given_name_says_who_speaks() -> None:
    assert speaker("Melanie", "Caroline: hi", "user") == "melanie"


def test_a_name_before_the_text_says_who_speaks() -> None:
    assert speaker(None, "Melanie: hi there", "user") == "melanie"
    assert speaker(None, "Mary Ann O'Neil: hi", "user") == "mary ann o'neil"


@pytest.mark.parametrize("text", ["hi there", "http://x.org", "12:30 works", "what I mean is this thing: no", ""])
def test_other_texts_are_spoken_by_their_role(text: str) -> None:
    assert speaker(None, text, "assistant") == "assistant"


def test_a_system_or_a_tool_cannot_be_asked_for_by_role() -> None:
    assert speaker(None, "hi", "system") == speaker(None, "hi", "tool") == ""


def test_a_name_of_a_million_characters_is_cut() -> None:
    assert len(speaker("n" * 1_000_000, "", "user")) <= NAME_CHARS_MAX


def test_a_query_names_speakers_by_whole_words_in_any_case() -> None:
    assert named("What did MELANIE'S sister paint?", {"melanie", "caroline", ""}) == {"melanie"}
    assert named("the melanies", {"melanie"}) == set()


def test_a_first_name_is_enough() -> None:
    assert named("What does John like?", {"john smith", "ann lee"}) == {"john smith"}


def test_a_whole_name_wins_over_a_first_name() -> None:
    assert named("Where is John Smith?", {"john smith", "john doe"}) == {"john smith"}
    assert named("Where is John?", {"john smith", "john doe"}) == {"john smith", "john doe"}


@pytest.mark.parametrize(
    "query", ["When did she go?", "how long have they been friends", "How many weeks ago?", "What date is it?"]
)
def test_a_query_asks_for_a_time(query: str) -> None:
    assert asks_when(query)


@pytest.mark.parametrize("query", ["Where did she go?", "how many children", "whenever", ""])
def test_a_query_asks_for_something_else(query: str) -> None:
    assert not asks_when(query)


@pytest.mark.parametrize(
    "text", ["I went yesterday", "three days ago", "in July", "since 2019", "next week", "on Friday"]
)
def test_a_text_tells_a_time(text: str) -> None:
    assert tells_time(words(text))


@pytest.mark.parametrize("text", ["I may go", "she said 12345", "a lovely walk", ""])
def test_a_text_tells_no_time(text: str) -> None:
    assert not tells_time(words(text))


def test_a_query_asks_what_the_assistant_said() -> None:
    asking = [
        "How did you recommend structuring the work?",
        "Which hotel had you suggested?",
        "Remind me what you called it",
        "In our previous chat there was a recipe",
        "the book you also mentioned",
    ]
    others = ["Can you suggest a hotel?", "What did I tell you?", "Who recommended the book?", "you"]

    assert [query for query in asking if not asks_assistant(query)] == []
    assert [query for query in others if asks_assistant(query)] == []


@pytest.mark.parametrize(
    "query",
    [
        "Wann war ich am See?",
        "Wie lange kennen wir uns?",
        "Quand est-ce que je suis parti ?",
        "Combien de temps ai-je attendu ?",
        "¿Cuándo fui al lago?",
        "cuanto tiempo llevo aqui",
        "Quando é que fui ao lago?",
        "Quanto tempo abbiamo?",
        "Wanneer was ik aan het meer?",
        "När var jag vid sjön?",
        "Hur många veckor var det?",
    ],
)
def test_a_query_in_another_language_asks_for_a_time(query: str) -> None:
    assert asks_when(query)


@pytest.mark.parametrize(
    "query", ["Wo war ich?", "Où est le lac ?", "¿Quién es?", "Chi è?", "Wie is dat?", "Vem är det?"]
)
def test_a_query_in_another_language_asks_for_something_else(query: str) -> None:
    assert not asks_when(query)
    assert not asks_assistant(query)


@pytest.mark.parametrize(
    "query",
    [
        "Welches Hotel hast du mir empfohlen?",
        "Quel hôtel m'as-tu recommandé ? Qu'as-tu dit ?",
        "Qu'est-ce que vous avez proposé ?",
        "¿Qué hotel me recomendaste?",
        "Que hotel você me recomendou?",
        "Quale albergo mi hai consigliato?",
        "Welk hotel heb je me aangeraden?",
        "Vilket hotell föreslog du?",
    ],
)
def test_a_query_in_another_language_asks_what_the_assistant_said(query: str) -> None:
    assert asks_assistant(query)


@pytest.mark.parametrize(
    "text", ["Gestern am See", "en février", "el lunes", "ontem à noite", "la settimana", "vorige maand", "på lördag"]
)
def test_a_text_in_another_language_tells_a_time(text: str) -> None:
    assert tells_time(words(text))


@pytest.mark.parametrize("text", ["er ist hier", "non l'ho mai visto", "the planet mars", "der See ist schön"])
def test_a_word_that_is_a_time_elsewhere_tells_none(text: str) -> None:
    assert not tells_time(words(text))
