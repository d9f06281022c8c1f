"""What goes into a context, and what is left out of it."""

from collections.abc import Sequence

from engram.projections.rows import FactRow, MessageRow
from engram.recall.context import Material, Omitted, Packed, exchanges, pack
from tests.recall.rows import DAY_MS, NOON_MS, TOKENS, Found, fact, hit, message

WORDS = " ".join(["a sentence of seven plain words more"] * 10)


def material(
    *,
    facts: Sequence[FactRow] = (),
    recent: Sequence[MessageRow] = (),
    hits: Sequence[Found] = (),
    asked: MessageRow | None = None,
    memories_max: int = 10,
    similarity_threshold: float | None = None,
) -> Material:
    return Material(
        facts=facts,
        recent=recent,
        hits=hits,
        asked=asked,
        memories_max=memories_max,
        similarity_threshold=similarity_threshold,
    )


def packed(wanted: Material, max_tokens: int = 8000) -> Packed:
    return pack(wanted, max_tokens, TOKENS.count)


def test_sections_stand_in_order_apart_by_a_blank_line() -> None:
    wanted = material(
        facts=[fact(1, "Lives in Oslo"), fact(2, "Has a dog")],
        recent=[message(8, "hello"), message(9, "hi there", "assistant")],
        hits=[
            hit(message(3, "later", at_ms=NOON_MS + DAY_MS)),
            hit(message(2, "sooner", name="Melanie", at_ms=NOON_MS)),
        ],
    )

    assert packed(wanted).text == (
        "Core memories:\n- Lives in Oslo\n- Has a dog\n\n"
        "Memories:\n- [2026-05-01] Melanie: sooner\n- [2026-05-02] user: later\n\n"
        "Conversation:\nuser: hello\nassistant: hi there"
    )


def test_an_empty_section_is_left_out() -> None:
    assert packed(material(recent=[message(1, "hello")])).text == "Conversation:\nuser: hello"
    assert packed(material()).text == ""
    assert packed(material()).tokens == 0


def test_a_budget_of_nothing_shows_nothing_and_names_everything() -> None:
    wanted = material(facts=[fact(1, "x")], recent=[message(9, "y")], hits=[hit(message(1, "z"))])

    nothing = packed(wanted, 0)

    assert nothing.text == ""
    assert [omitted.reason for omitted in nothing.omitted] == ["budget"] * 3


def test_the_newest_core_facts_are_left_out_last() -> None:
    facts = [fact(number, f"{WORDS} {number}") for number in range(4)]

    some = packed(material(facts=facts), 3 * facts[0].tokens)

    assert some.facts == facts[2:]
    assert some.omitted == [Omitted("core", row, "budget") for row in facts[:2]]


def test_a_core_fact_that_can_never_fit_does_not_keep_out_the_others() -> None:
    facts = [fact(1, "Lives in Oslo"), fact(2, WORDS * 20), fact(3, "Has a dog")]

    assert packed(material(facts=facts), 100).facts == [facts[0], facts[2]]


def test_the_conversation_is_trimmed_from_the_oldest() -> None:
    recent = [message(ordinal, f"{WORDS} {ordinal}") for ordinal in range(10)]

    assert packed(material(recent=recent), 4 * recent[0].tokens).conversation == recent[7:]


def test_a_question_and_its_answer_are_dropped_together() -> None:
    recent = [
        message(0, WORDS),
        message(1, f"{WORDS} 1", "assistant"),
        message(2, f"{WORDS} 2"),
        message(3, f"{WORDS} 3", "assistant"),
    ]

    assert packed(material(recent=recent), 4 * recent[0].tokens).conversation == recent[2:]


def test_what_tools_said_in_between_belongs_to_the_answer() -> None:
    recent = [
        message(0, "question"),
        message(1, "looked up", "tool"),
        message(2, "answer", "assistant"),
        message(3, "an afterthought", "assistant"),
        message(4, "first half"),
        message(5, "second half"),
        message(6, "answer to both", "assistant"),
    ]

    assert [[row.ordinal for row in part] for part in exchanges(recent)] == [[0, 1, 2], [3], [4], [5, 6]]


def test_a_memory_is_not_what_the_conversation_shows() -> None:
    recent = [message(9, "I like tea")]
    hits = [hit(recent[0]), hit(message(3, "I like tea ")), hit(message(4, "I like rye"))]

    shown = packed(material(recent=recent, hits=hits))

    assert shown.memories == [hits[2]]
    assert shown.omitted == [Omitted("memories", found.message, "duplicate") for found in hits[:2]]


def test_a_memory_is_shown_once_however_often_it_was_said() -> None:
    hits = [hit(message(3, "I like tea")), hit(message(1, "I like tea"))]

    shown = packed(material(hits=hits))

    assert shown.memories == hits[:1]
    assert shown.omitted == [Omitted("memories", hits[1].message, "duplicate")]


def test_what_was_asked_is_no_memory_even_when_the_conversation_has_no_room_for_it() -> None:
    question, answer = message(8, "What do I like?"), message(9, WORDS * 10, "assistant")

    shown = packed(material(recent=[question, answer], hits=[hit(question)], asked=question), 100)

    assert shown.text == ""
    assert shown.omitted[0] == Omitted("memories", question, "duplicate")


def test_a_message_that_the_conversation_has_no_room_for_can_be_a_memory() -> None:
    recent = [message(1, "My sister is Ann"), message(2, WORDS * 3), message(3, "Who is my sister?")]

    shown = packed(material(recent=recent, hits=[hit(recent[0])], asked=recent[2]), 150)

    assert shown.conversation == recent[2:]
    assert [found.message for found in shown.memories] == recent[:1]


def test_a_memory_that_does_not_fit_makes_way_for_the_next() -> None:
    hits = [hit(message(1, WORDS * 10)), hit(message(2, "I like tea"))]

    shown = packed(material(hits=hits), 100)

    assert shown.memories == hits[1:]
    assert shown.omitted == [Omitted("memories", hits[0].message, "budget")]


def test_no_more_memories_are_shown_than_asked_for() -> None:
    hits = [hit(message(ordinal, f"number {ordinal}")) for ordinal in range(4)]

    shown = packed(material(hits=hits, memories_max=3))

    assert shown.memories == hits[:3]
    assert shown.omitted == [Omitted("memories", hits[3].message, "budget")]


def test_a_long_conversation_leaves_memories_their_share() -> None:
    recent = [message(100 + ordinal, f"{WORDS} {ordinal}") for ordinal in range(20)]
    hits = [hit(message(ordinal, f"I like number {ordinal}")) for ordinal in range(5)]

    shown = packed(material(recent=recent, hits=hits), 600)

    assert len(shown.memories) == 5
    assert recent[-1] in shown.conversation


def test_the_last_exchange_goes_before_memories() -> None:
    recent = [message(8, WORDS), message(9, "Understood.", "assistant")]
    budget = packed(material(recent=recent)).tokens

    shown = packed(material(recent=recent, hits=[hit(message(1, "I like tea"))], asked=recent[0]), budget)

    assert shown.conversation == recent
    assert shown.memories == []


def test_memories_go_before_the_last_exchange_when_the_client_says_what_it_asks() -> None:
    recent = [message(8, WORDS), message(9, "Understood.", "assistant")]
    hits = [hit(message(1, "I like tea"))]

    shown = packed(material(recent=recent, hits=hits), packed(material(recent=recent)).tokens)

    assert shown.memories == hits
    assert shown.conversation == []


def test_a_long_conversation_has_a_tenth_at_least_when_the_client_says_what_it_asks() -> None:
    recent = [message(100 + place, f"{WORDS} {place}") for place in range(20)]
    hits = [hit(message(place, f"{WORDS}, {place}")) for place in range(20)]

    shown = packed(material(recent=recent, hits=hits, memories_max=20), 1300)

    assert [row.ordinal for row in shown.conversation] == [118, 119]


def test_one_long_memory_does_not_keep_out_short_ones_that_were_found_behind_it() -> None:
    long = hit(message(0, WORDS * 5))
    hits = [long, *(hit(message(place, f"I like number {place}")) for place in range(1, 10))]
    budget = long.message.tokens + 70

    assert packed(material(hits=hits), budget).memories == hits[1:]
    assert packed(material(hits=hits[:1]), budget).memories == [long]


def test_of_memories_that_cost_the_same_the_best_are_taken() -> None:
    hits = [hit(message(place, f"{WORDS} {place}")) for place in range(9, 0, -1)]

    shown = packed(material(hits=hits), 3 * hits[0].message.tokens + 60)

    assert sorted(row.message.ordinal for row in shown.memories) == [7, 8, 9]


def test_a_good_hit_in_the_conversation_keeps_its_place_when_the_conversation_has_no_room_for_it() -> None:
    recent = [message(100, "My sister is Ann"), *(message(101 + place, f"{WORDS} {place}") for place in range(4))]
    hits = [hit(recent[0]), *(hit(message(place, f"number {place}")) for place in range(3))]

    shown = packed(material(recent=recent, hits=hits, memories_max=2), 2 * recent[1].tokens + 60)

    assert [row.message for row in shown.memories] == [hits[1].message, recent[0]]


def test_a_threshold_leaves_out_hits_below_it_and_those_without_a_vector() -> None:
    hits = [
        hit(message(1, "near"), similarity=0.6),
        hit(message(2, "far"), similarity=0.4),
        hit(message(3, "unknown"), similarity=None),
    ]

    assert packed(material(hits=hits)).memories == hits
    strict = packed(material(hits=hits, similarity_threshold=0.6))
    assert strict.memories == hits[:1]
    assert [omitted.reason for omitted in strict.omitted] == ["threshold", "threshold"]


def test_an_estimate_that_was_too_low_costs_no_more_than_it_has_to() -> None:
    recent = [message(ordinal, f"{WORDS} {ordinal}") for ordinal in range(5)]
    whole = packed(material(recent=recent)).tokens
    recent[3] = recent[3]._replace(tokens=recent[3].tokens - 20)

    assert packed(material(recent=recent), whole - 10).conversation == recent[1:]


def test_when_the_last_message_has_no_room_the_conversation_is_not_shown_without_it() -> None:
    recent = [message(0, "hello"), message(1, WORDS * 10)]

    assert packed(material(recent=recent), 100).conversation == []


def test_text_of_ordinary_words_is_counted_once() -> None:
    recent = [message(100 + place, f"{WORDS} {place}") for place in range(20)]
    hits = [hit(message(place, f"{WORDS}, {place}")) for place in range(10)]
    long_texts: list[str] = []

    def count(text: str) -> int:
        if len(text) > 1000:
            long_texts.append(text)
        return TOKENS.count(text)

    for max_tokens in (1000, 2000, 8000):
        long_texts.clear()
        shown = pack(material(recent=recent, hits=hits), max_tokens, count)
        assert sum(map(len, long_texts)) <= len(shown.text) + 2


def test_a_context_that_fits_to_the_token_is_whole() -> None:
    recent = [message(place, f"{WORDS} {place}{end}") for place, end in enumerate([".", "", "!\n", "?"])]
    wanted = material(facts=[fact(1, "x"), fact(2, WORDS)], recent=recent)
    whole = packed(wanted)

    assert packed(wanted, whole.tokens) == whole
    assert packed(wanted, whole.tokens - 1).omitted != []
