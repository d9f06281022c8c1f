"""Reading a context from a session."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import pytest

from engram.errors import NotFoundError
from engram.projections.rows import FactRow, MessageRow, SessionRow
from engram.recall.reader import QUERY_EDGE_CHARACTERS, Context, ContextReader, Format, Scope, conversation_of
from tests.recall.rows import TOKENS, Found, fact, hit, message, session


class Conversation(NamedTuple):
    session: SessionRow
    recent: list[MessageRow]
    facts: list[FactRow]


class Memory:
    """Sessions in memory; a search finds what it was given, and remembers what it was asked."""

    applied_index = 42

    def __init__(
        self, recent: Sequence[MessageRow] = (), facts: Sequence[FactRow] = (), hits: Sequence[Found] = ()
    ) -> None:
        self.sessions = [session(1, session_id="s1", agent_id="a"), session(2, session_id="s2", agent_id="a")]
        self.recent = list(recent)
        self.facts = list(facts)
        self.hits = list(hits)
        self.degraded = False
        self.explained = None
        self.asked: list[tuple[list[str], str, int, int | None]] = []

    async def conversation(self, session_id: str, tenant: str, limit: int) -> Conversation | None:
        known = next((row for row in self.sessions if (row.session_id, row.tenant) == (session_id, tenant)), None)
        return None if known is None else Conversation(known, self.recent[-limit:], self.facts)

    async def scope(self, tenant: str, *, agent_id: str | None = None, user_id: str | None = None) -> list[SessionRow]:
        return [row for row in self.sessions if row.agent_id == agent_id and row.user_id == user_id]

    async def search(
        self, scope: Sequence[SessionRow], query: str, *, top_k: int, now_ms: int | None, explain: bool
    ) -> "Memory":
        self.asked.append(([row.session_id for row in scope], query, top_k, now_ms))
        return self


async def read(
    memory: Memory,
    session_id: str = "s1",
    *,
    max_tokens: int = 8000,
    top_k: int = 10,
    query: str | None = None,
    scope: Scope = "session",
    form: Format = "text",
    short_term_count: int = 20,
    threshold: float | None = None,
    explain: bool = False,
) -> Context:
    return await ContextReader(memory, memory, TOKENS, short_term_count=short_term_count).read(
        session_id,
        tenant="default",
        max_tokens=max_tokens,
        similarity_threshold=threshold,
        long_term_top_k=top_k,
        query=query,
        now_ms=7,
        scope=scope,
        format=form,
        explain=explain,
    )


async def test_an_unknown_session_is_not_found() -> None:
    with pytest.raises(NotFoundError) as caught:
        await read(Memory(), "nobody")

    assert caught.value.code == "session_not_found"


async def test_a_session_without_content_has_an_empty_context() -> None:
    context = await read(Memory())

    assert (context.context, context.tokens, context.omitted, context.index) == ("", 0, [], 42)
    assert [(part.name, part.tokens, part.items) for part in context.sections] == [
        ("core", 0, []),
        ("memories", 0, []),
        ("conversation", 0, []),
    ]


async def test_every_item_says_where_it_comes_from() -> None:
    other = message(3, "I like tea", session_key=2, name="Ann")
    memory = Memory(
        [message(9, "What do I like?")], [fact(1, "Lives in Oslo")], [hit(other, score=0.9, similarity=0.7)]
    )

    context = await read(memory)

    core, memories, conversation = msgspec.to_builtins(context.sections)
    when = "2026-05-01T12:00:00.000Z"
    assert core["items"] == [{"id": "f1", "tokens": 4, "session_id": "s1", "index": 1, "timestamp": when}]
    assert memories["items"] == [
        {
            "id": "m3",
            "tokens": 3,
            "session_id": "s1",
            "index": 5,
            "timestamp": when,
            "role": "user",
            "name": "Ann",
            "score": 0.9,
            "similarity": 0.7,
        }
    ]
    assert [item["id"] for item in conversation["items"]] == ["m9"]
    assert context.tokens == TOKENS.count(context.context) == sum(part.tokens for part in context.sections)


async def test_what_is_left_out_is_listed_with_the_reason() -> None:
    recent = [message(9, "What do I like?")]

    context = await read(Memory(recent, hits=[hit(recent[0])]))

    assert msgspec.to_builtins(context.omitted) == [
        {"id": "m9", "section": "memories", "tokens": 5, "reason": "duplicate"}
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [("tea", "tea"), (None, "the last question"), (" \n", "the last question")],
)
async def test_the_query_is_what_was_asked_else_the_last_user_message(query: str | None, expected: str) -> None:
    memory = Memory([message(1, "before"), message(2, "the last question"), message(3, "an answer", "assistant")])

    await read(memory, query=query, top_k=5)

    assert memory.asked == [(["s1"], expected, 5 + 3, 7)]


async def test_without_a_user_message_the_last_message_is_the_query() -> None:
    memory = Memory([message(1, "one", "assistant"), message(2, "two", "tool")])

    await read(memory)

    assert memory.asked[0][1] == "two"


async def test_a_document_is_searched_for_by_its_ends() -> None:
    memory = Memory([message(1, "a" * 5_000 + "b" * 100_000 + "c" * 5_000)])

    await read(memory)

    assert memory.asked[0][1] == "a" * QUERY_EDGE_CHARACTERS + "\n" + "c" * QUERY_EDGE_CHARACTERS


@pytest.mark.parametrize(("max_tokens", "top_k"), [(0, 10), (8000, 0)])
async def test_nothing_is_searched_that_could_not_be_shown(max_tokens: int, top_k: int) -> None:
    memory = Memory([message(1, "hello")])

    await read(memory, max_tokens=max_tokens, top_k=top_k)

    assert memory.asked == []


async def test_a_session_with_facts_only_is_not_searched_without_a_query() -> None:
    memory = Memory(facts=[fact(1, "Lives in Oslo")])

    assert (await read(memory)).context == "Core memories:\n- Lives in Oslo"
    assert memory.asked == []


async def test_the_conversation_uses_up_no_places_of_memories() -> None:
    recent = [message(place, f"number {place}") for place in range(10, 13)]
    older = [message(place, f"number {place}") for place in range(4)]
    memory = Memory(recent, hits=[hit(row) for row in (*recent[:2], *older[:2], recent[2], *older[2:])])

    context = await read(memory, top_k=3)

    _, memories, _ = context.sections
    assert [item.id for item in memories.items] == ["m0", "m1", "m2"]
    assert [left_out.id for left_out in context.omitted] == ["m10", "m11", "m12"]


async def test_the_scope_of_an_agent_is_all_its_sessions() -> None:
    memory = Memory()

    await read(memory, query="tea", scope="agent")
    await read(memory, query="tea", scope="user")

    assert [asked[0] for asked in memory.asked] == [["s1", "s2"], ["s1"]]


async def test_a_search_without_vectors_is_said_to_be_degraded() -> None:
    memory = Memory([message(1, "hello")])
    memory.degraded = True

    assert (await read(memory)).degraded


@pytest.mark.parametrize("form", ["openai", "anthropic"])
async def test_the_other_forms_hold_the_same_pieces(form: Format) -> None:
    memory = Memory(
        [message(8, "What do I like?"), message(9, "Tea.", "assistant")],
        [fact(1, "Lives in Oslo")],
        [hit(message(1, "I like tea"))],
    )

    context = msgspec.to_builtins(await read(memory, form=form))

    system = "Core memories:\n- Lives in Oslo\n\nMemories:\n- [2026-05-01] user: I like tea"
    turns = [{"role": "user", "content": "What do I like?"}, {"role": "assistant", "content": "Tea."}]
    if form == "openai":
        assert context["messages"] == [{"role": "system", "content": system}, *turns]
        assert "system" not in context
    else:
        assert (context["system"], context["messages"]) == (system, turns)
    assert context["context"].startswith(system + "\n\nConversation:\n")


async def test_the_text_form_has_no_messages() -> None:
    context = msgspec.to_builtins(await read(Memory([message(1, "hello")])))

    assert set(context) == {"context", "tokens", "max_tokens", "sections", "omitted", "index"}


async def test_a_very_long_context_is_packed_beside_the_loop() -> None:
    memory = Memory([message(place, f"{place} word" * 20_000) for place in range(3)])

    context = await read(memory, max_tokens=1_000_000)

    assert context.tokens > 100_000
    assert context.omitted == []


async def test_the_conversation_is_the_last_messages() -> None:
    memory = Memory([message(place, f"number {place}") for place in range(30)])

    context = await read(memory, short_term_count=3, top_k=0)

    assert context.context == "Conversation:\nuser: number 27\nuser: number 28\nuser: number 29"


async def test_an_answer_without_its_question_is_not_shown() -> None:
    memory = Memory([message(1, "one"), message(2, "an answer", "assistant"), message(3, "two")])

    context = await read(memory, short_term_count=2, top_k=0)

    assert context.context == "Conversation:\nuser: two"


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [3, 4, 5]), (2, [3, 4, 5]), (3, [3, 4, 5]), (4, [3, 4, 5]), (5, [1, 2, 3, 4, 5]), (6, [0, 1, 2, 3, 4, 5])],
)
def test_the_count_does_not_part_a_question_from_its_answer(count: int, expected: list[int]) -> None:
    recent = [
        message(0, "welcome", "assistant"),
        message(1, "one"),
        message(2, "answer", "assistant"),
        message(3, "two"),
        message(4, "looked up", "tool"),
        message(5, "answer", "assistant"),
    ]

    assert [row.ordinal for row in conversation_of(recent, count)] == expected


async def test_an_explained_context_says_what_became_of_each_candidate() -> None:
    recent = [message(8, "hello there"), message(9, "What do I like?")]
    long = message(5, "a word " * 200)
    memory = Memory(
        recent,
        hits=[
            hit(recent[1]),
            hit(message(1, "I like tea")),
            hit(message(2, "I like tea")),
            hit(recent[0]),
            hit(message(3, "a far cry"), similarity=0.1),
            hit(long),
            hit(message(4, "I like rye")),
            hit(message(6, "I like oats")),
        ],
    )

    context = await read(memory, max_tokens=100, top_k=6, threshold=0.2, explain=True)

    assert context.explain is not None
    assert [(each.id, each.outcome) for each in context.explain.candidates] == [
        ("m9", "conversation"),
        ("m1", "memory"),
        ("m2", "repeats"),
        ("m8", "conversation"),
        ("m3", "threshold"),
        ("m5", "budget"),
        ("m4", "memory"),
        ("m6", "memory"),
    ]
    assert context.explain.query == "What do I like?"
    assert {each.tokens_left for each in context.explain.candidates} == {100 - context.tokens}
    assert context.explain.candidates[5].tokens > 100 - context.tokens
    assert context.explain.took_ms.keys() == {"read", "search", "pack"}


async def test_an_explained_context_says_that_there_are_enough_memories() -> None:
    recent = [message(8, "number 8"), message(9, "a word " * 200)]
    memory = Memory(recent, hits=[hit(recent[0]), hit(message(1, "number 1"))])

    context = await read(memory, max_tokens=100, query="numbers", top_k=1, explain=True)

    assert context.explain is not None
    assert [(each.id, each.outcome) for each in context.explain.candidates] == [("m8", "memory"), ("m1", "top_k")]


async def test_nothing_is_explained_unless_asked() -> None:
    assert (await read(Memory([message(1, "hello")], hits=[hit(message(0, "tea"))]))).explain is None
    nothing = (await read(Memory(), explain=True)).explain
    assert nothing is not None
    assert (nothing.query, nothing.candidates, nothing.search) == (None, [], None)


async def test_an_explained_context_tells_the_question_from_other_candidates() -> None:
    question = message(9, "What do I like? " * 20)

    context = await read(Memory([question], hits=[hit(question)]), max_tokens=30, explain=True)

    assert context.explain is not None
    assert [each.outcome for each in context.explain.candidates] == ["asked"]
