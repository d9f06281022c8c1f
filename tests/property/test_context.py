"""Whatever clients wrote: a context stays inside its budget, whole, complete and the same every time."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.events import Role
from engram.recall.context import Material, Packed, exchanges, pack
from engram.recall.render import conversation_lines, core_section, memories_section, memory_prefix, turn_prefix
from tests.recall.rows import DAY_MS, NOON_MS, TOKENS, Found, fact, message, session

NASTY = [
    "<|endoftext|>",
    "<|fim_prefix|><|endofprompt|>",
    "🎉👩‍👩‍👧‍👦🏳️‍🌈",
    "漢字。仮名、かな",
    "\n\n",
    "\r\n\t \n",
    "  \u2028\u00a0",
    "Conversation:\nuser: x",
    "e\u0301²Ⅷ_'s'LL",
    "a" * 300,
    "!" * 300,
    " " * 300,
    "12345",
    "don't we've \"said.\"",
    " ordinary words of a sentence, and more of them.",
]

texts = (
    st.lists(st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=8)
    .map("".join)
    .filter(str.strip)
)
roles = st.sampled_from(get_args(Role))
names = st.none() | st.sampled_from(["Melanie", "漢", "🎉 "])


@st.composite
def materials(draw: st.DrawFn) -> Material:
    recent = [
        message(100 + place, text, role, name=name)
        for place, (text, role, name) in enumerate(
            draw(st.lists(st.tuples(texts, st.sampled_from(["user", "assistant"]) | roles, names), max_size=8))
        )
    ]
    older = [
        message(place, text, role, name=name, at_ms=NOON_MS + day * DAY_MS)
        for place, (text, role, name, day) in enumerate(
            draw(st.lists(st.tuples(texts, roles, names, st.integers(-700_000, 2_000_000)), max_size=6))
        )
    ]
    other = [message(place, text, session_key=2) for place, text in enumerate(draw(st.lists(texts, max_size=2)))]
    found = draw(st.permutations([*older, *other, *draw(st.permutations(recent))[:4]]))
    similarities = st.none() | st.floats(-1, 1)
    return Material(
        facts=[fact(number, text) for number, text in enumerate(draw(st.lists(texts, max_size=4)))],
        recent=recent,
        hits=[Found(session(row.session_key), row, draw(st.floats(0, 1)), draw(similarities)) for row in found],
        asked=draw(st.none() | st.sampled_from(recent)) if recent else None,
        memories_max=draw(st.integers(0, 12)),
        similarity_threshold=draw(st.none() | st.floats(-1, 1)),
    )


@st.composite
def budgets(draw: st.DrawFn, material: Material) -> int:
    """Any budget, among them the smallest ones and those that nearly fit everything."""
    whole = pack(material, 1_000_000, TOKENS.count).tokens
    near = st.integers(max(0, whole - 4), whole + 1)
    return draw(st.integers(0, 3) | st.integers(0, whole + 10) | near)


@given(st.data())
def test_a_context_never_exceeds_its_budget(data: st.DataObject) -> None:
    material = data.draw(materials())
    max_tokens = data.draw(budgets(material))

    packed = pack(material, max_tokens, TOKENS.count)

    assert TOKENS.count(packed.text) <= max_tokens
    assert packed.tokens == TOKENS.count(packed.text)
    assert sum(packed.section_tokens) == packed.tokens


@given(st.data())
def test_wrong_stored_counts_cannot_break_the_budget(data: st.DataObject) -> None:
    material = data.draw(materials())
    wrong = Material(
        facts=[row._replace(tokens=data.draw(st.integers(0, 50))) for row in material.facts],
        recent=[row._replace(tokens=data.draw(st.integers(0, 50))) for row in material.recent],
        hits=[Found(found.session, found.message._replace(tokens=0)) for found in material.hits],
        asked=material.asked,
        memories_max=12,
        similarity_threshold=None,
    )
    max_tokens = data.draw(budgets(material))

    packed = pack(wrong, max_tokens, TOKENS.count)

    assert packed.tokens == TOKENS.count(packed.text) <= max_tokens


@given(st.data())
def test_every_piece_is_shown_whole_or_left_out_with_a_reason_exactly_once(data: st.DataObject) -> None:
    material = data.draw(materials())

    packed = pack(material, data.draw(budgets(material)), TOKENS.count)

    left_out: list[tuple[str, int]] = [(omitted.section, id(omitted.piece)) for omitted in packed.omitted]
    shown: list[tuple[str, int]] = [
        *(("core", id(row)) for row in packed.facts),
        *(("memories", id(found.message)) for found in packed.memories),
        *(("conversation", id(row)) for row in packed.conversation),
    ]
    assert sorted(shown + left_out) == sorted(
        [
            *(("core", id(row)) for row in material.facts),
            *(("memories", id(found.message)) for found in material.hits),
            *(("conversation", id(row)) for row in material.recent),
        ]
    )
    assert packed.text == "\n\n".join(filter(None, rendered(packed)))


def rendered(packed: Packed) -> tuple[str, str, str]:
    return (
        core_section(packed.facts),
        memories_section(found.message for found in packed.memories),
        "\n".join(conversation_lines(packed.conversation)),
    )


@given(st.data())
def test_pairs_stay_together_and_the_conversation_has_no_gaps(data: st.DataObject) -> None:
    material = data.draw(materials())

    packed = pack(material, data.draw(budgets(material)), TOKENS.count)

    kept = len(packed.conversation)
    assert packed.conversation == list(material.recent)[len(material.recent) - kept :]
    for part in exchanges(material.recent):
        assert len({row in packed.conversation for row in part}) == 1


@given(st.data())
def test_memories_repeat_neither_the_conversation_nor_each_other_nor_what_was_asked(data: st.DataObject) -> None:
    material = data.draw(materials())

    packed = pack(material, data.draw(budgets(material)), TOKENS.count)

    asked = [] if material.asked is None else [material.asked.text.strip()]
    memories = [found.message.text.strip() for found in packed.memories]
    spoken = [row.text.strip() for row in packed.conversation]
    assert len(set(memories)) == len(memories) <= material.memories_max
    assert not set(memories) & {*spoken, *asked}
    times = [found.message.when_ms for found in packed.memories]
    assert times == sorted(times)


@given(st.data())
def test_a_reason_is_true(data: st.DataObject) -> None:
    material = data.draw(materials())
    threshold = material.similarity_threshold
    packed = pack(material, data.draw(budgets(material)), TOKENS.count)
    near = {id(found.message): found.similarity for found in material.hits}
    asked = [] if material.asked is None else [material.asked.text.strip()]
    shown = {row.text.strip() for row in [*packed.conversation, *(found.message for found in packed.memories)]}

    for section, piece, reason in packed.omitted:
        if section != "memories":
            assert reason == "budget"
            continue
        similarity = near[id(piece)]
        passes = threshold is None or (similarity is not None and similarity >= threshold)
        repeats = piece.text.strip() in {*shown, *asked}
        assert reason == ("duplicate" if repeats else "budget" if passes else "threshold")


@given(st.data())
def test_the_same_material_gives_the_same_context(data: st.DataObject) -> None:
    material = data.draw(materials())
    max_tokens = data.draw(budgets(material))

    assert pack(material, max_tokens, TOKENS.count) == pack(material, max_tokens, TOKENS.count)


@given(materials())
def test_a_budget_of_just_what_everything_needs_loses_nothing(material: Material) -> None:
    whole = pack(material, 1_000_000, TOKENS.count)

    exact = pack(material, whole.tokens, TOKENS.count)

    # Memories have to wait for their share of a small budget, so which of two equal texts is shown may change.
    assert exact.tokens <= whole.tokens
    assert exact.facts == whole.facts
    if not whole.memories:
        assert exact == whole


@pytest.mark.parametrize("text", ["🎉" * 5_000, "漢" * 5_000, "<|endoftext|>" * 1_000, "a" * 20_000, "\n x" * 5_000])
@pytest.mark.parametrize("max_tokens", [0, 1, 2, 100, 3_000, 6_000])
def test_long_hostile_texts_fit_or_are_left_out(text: str, max_tokens: int) -> None:
    rows = [message(place, f"{place}{text}") for place in range(3)]
    material = Material(
        facts=[fact(1, text)], recent=rows, hits=[], asked=rows[-1], memories_max=9, similarity_threshold=None
    )

    packed = pack(material, max_tokens, TOKENS.count)

    assert packed.tokens == TOKENS.count(packed.text) <= max_tokens
    for row in packed.conversation:
        assert turn_prefix(row) + row.text in packed.text
    assert all(memory_prefix(found.message) in packed.text for found in packed.memories)
