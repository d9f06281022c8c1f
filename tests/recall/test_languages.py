"""Languages: real sentences are found by other forms of their words, in scripts of all kinds, and English stays English."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.recall.languages import ENGLISH, SMALL_WORDS, language_of
from engram.recall.rank import rank, understand
from engram.recall.terms import counted, query_terms, terms, words
from tests.recall.conversation import DAY_MS, START_MS, index_of, said

# A message, others of its language beside it, and a question with other forms of its words.
TALKS = {
    "German": (
        "Ich habe gestern zwei Hunde und viele Bücher gekauft",
        ["Wir fahren morgen mit dem Zug nach Berlin", "Das Wetter ist heute sehr schön"],
        "Welchen Hund habe ich mit dem Buch gekauft?",
    ),
    "French": (
        "Nous avons acheté une petite maison près de la rivière",
        ["Le chat dort sur le canapé", "Je voudrais apprendre la guitare avec mon frère"],
        "Quelles maisons avons nous dans la région des rivières ?",
    ),
    "Spanish": (
        "Mis hermanas trabajan en un hospital y son enfermeras",
        ["El perro está en el jardín", "Compré los libros para la escuela"],
        "¿Dónde trabaja mi hermana, que es enfermera?",
    ),
    "Russian": (
        "Моя сестра купила новые книги про путешествия",
        ["Вчера мы ходили в кино", "Сегодня очень холодная погода"],
        "Какую книгу купил мой брат, про путешествие?",
    ),
    "Chinese": (
        "我昨天在北京买了一只黑色的猫",
        ["今天的天气非常好", "我们明天去上海看电影"],
        "北京的猫是什么颜色?",
    ),
    "Japanese": (
        "妹は京都で日本語を教えています",
        ["昨日は雨が降りました", "新しい車を買いました"],
        "京都で何を教えている?",
    ),
    "Thai": (
        "ฉันเลี้ยงแมวสีดำที่บ้าน",
        ["วันนี้อากาศร้อนมาก", "พรุ่งนี้เราจะไปทะเล"],
        "แมวสีอะไร",
    ),
    "Korean": (
        "저는 고양이를 두 마리 키워요",
        ["오늘은 날씨가 좋아요", "내일 서울에 갑니다"],
        "고양이가 몇 마리예요?",
    ),
    "Hindi": (
        "मेरी बहन दिल्ली में किताबें बेचती है",
        ["आज मौसम बहुत अच्छा है", "कल हम फिल्म देखने जाएंगे"],
        "दिल्ली में किताब कौन बेचता है?",
    ),
    "Arabic": (
        "اشتريت كتابا جديدا عن تاريخ بغداد",
        ["الطقس جميل اليوم", "سنذهب غدا الى البحر"],
        "ما هو الكتاب عن تاريخ بغداد؟",
    ),
}


@pytest.mark.parametrize("language", TALKS)
def test_a_message_is_found_by_other_forms_of_its_words(language: str) -> None:
    message, others, question = TALKS[language]
    index = index_of([said(n, text, when_ms=n * DAY_MS) for n, text in enumerate([*others, message])])

    first, second = rank([index], understand(question, START_MS), lambda _: None, 2)

    assert first.ordinal == len(others)
    assert first.score > second.score


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("das Café in Zürich", "cafe zurich"),
        ("Straße", "strasse"),
        ("L'hôtel est fermé", "hotel"),
        ("cafe\u0301", "café"),
        ("ＡＢＣ会社", "abc"),
        ("ёлка", "елка"),
        ("猫が好き", "猫"),
        ("ភាសាខ្មែរ", "ខ្មែរ"),
        ("ພາສາລາວ", "ລາວ"),
        ("မြန်မာစာ", "မြန်မာ"),
    ],
)
def test_accents_widths_and_missing_spaces_do_not_matter(text: str, query: str) -> None:
    assert set(query_terms(query, words_max=99).values()) & set(counted(words(text), []).counts)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Wo habe ich meine Schlüssel verloren?", "german"),
        ("Où sont les clés que nous avons perdues ?", "french"),
        ("¿Dónde están mis llaves?", "spanish"),
        ("Onde estão as minhas chaves? Eu não sei", "portuguese"),
        ("Dove sono le mie chiavi della macchina?", "italian"),
        ("Waar heb ik mijn sleutels en het boek?", "dutch"),
        ("Var är mina nycklar och hur var det?", "swedish"),
        ("Where are my keys in Los Angeles and Des Moines?", ENGLISH),
        ("He said der Mann, and she did not know what that was", ENGLISH),
        ("the hat on the war, so die in it", ENGLISH),
        ("", ENGLISH),
    ],
)
def test_a_text_is_taken_for_the_language_of_its_small_words(text: str, language: str) -> None:
    assert language_of(words(text), 2) == language


def test_one_foreign_word_in_a_query_changes_nothing() -> None:
    assert query_terms("Los Angeles trips", words_max=9)["angeles"] == terms(["angeles"])[0]


def test_a_row_keeps_its_english_forms_and_its_length_in_any_language() -> None:
    found = words("Ich habe gestern zwei Hunde gekauft")

    row = counted(found, [])

    assert set(terms(found)) <= set(row.counts)
    assert row.length == len(terms(found))
    assert set(terms(["gekauft", "hunde"], "german")) <= set(row.counts)


def test_small_words_of_the_querys_language_are_no_terms() -> None:
    assert set(query_terms("Wo habe ich meine Schlüssel verloren?", words_max=9)) == {"schlüssel", "verloren"}


def test_every_list_has_words_of_its_own() -> None:
    assert [name for name, small in SMALL_WORDS.items() if language_of(sorted(small), 2) != name] == []


@given(st.text())
def test_any_text_is_cut_the_same_way_each_time_and_into_short_words(text: str) -> None:
    found = words(text)

    assert found == words(text)
    assert all(word and not word.isspace() for word in found)
    assert all(0 <= term < 2**32 for term in counted(found, []).counts)
