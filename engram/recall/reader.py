"""Reading a context: what a session knows, searched, packed into the budget and put into the form asked for."""

import asyncio
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol, assert_never

import msgspec

from engram.clock import Clock, SystemClock
from engram.errors import NotFoundError
from engram.events import Role
from engram.projections.rows import FactRow, MessageRow, SessionRow
from engram.recall.context import Count, Hit, Material, Omitted, Packed, Reason, Section, answer_end, pack
from engram.recall.context_explained import ContextExplained, explain_candidates
from engram.recall.explanation import ScopeExplained
from engram.recall.render import Turn, anthropic_messages, background, openai_messages, timestamp

Scope = Literal["session", "agent", "user"]
Format = Literal["text", "openai", "anthropic"]

INLINE_TOKENS_MAX = 16_000
"""Counting this many takes about 5 ms; more is counted in a thread, away from the event loop."""

QUERY_EDGE_CHARACTERS = 4_096
"""A message can be a whole document. What it asks stands at its beginning or end, so that is searched for."""

LOOK_BACK_MESSAGES = 4
"""How far before the conversation a question is looked for whose answer is its first message, tool calls included."""


class Conversation(Protocol):
    """A session with its latest messages."""

    @property
    def session(self) -> SessionRow:
        """The session."""

    @property
    def recent(self) -> Sequence[MessageRow]:
        """Its latest messages, oldest first."""

    @property
    def facts(self) -> Sequence[FactRow]:
        """Its pinned facts, in order of pinning."""


class Reads(Protocol):
    """The part of the primary store that a context is read from."""

    @property
    def applied_index(self) -> int:
        """Index of the last log entry that reads see."""

    async def conversation(self, session_id: str, tenant: str, limit: int) -> Conversation | None:
        """Return a session with its last `limit` messages; None when it is unknown."""

    async def scope(self, tenant: str, *, agent_id: str | None = None, user_id: str | None = None) -> list[SessionRow]:
        """Return every session of an agent or user."""


class Found(Protocol):
    """What a search found."""

    @property
    def hits(self) -> Sequence[Hit]:
        """The messages, best first."""

    @property
    def degraded(self) -> bool:
        """True when no vectors could be used."""

    @property
    def explained(self) -> ScopeExplained | None:
        """What became of the scope; only when asked for."""


class Searches(Protocol):
    """The part of the searcher that a context needs."""

    async def search(
        self,
        scope: Sequence[SessionRow],
        query: str,
        *,
        top_k: int,
        now_ms: int | None,
        explain: bool,
    ) -> Found:
        """Return the messages of `scope` that fit `query` best."""


class Tokens(Protocol):
    """The token counter."""

    def count_once(self, text: str) -> int:
        """Return the cl100k_base tokens of `text`; any thread may call it."""


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece that is shown, and where it comes from. `tokens` counts its text alone."""

    id: str
    tokens: int
    session_id: str
    index: int
    timestamp: str
    role: Role | None = None
    name: str | None = None
    score: float | None = None
    similarity: float | None = None


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A section of the text. `tokens` counts it as it stands there; all of them add up to the context's."""

    name: Section
    tokens: int
    items: list[Item]


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A piece that is not shown."""

    id: str
    section: Section
    tokens: int
    reason: Reason


class Context(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer. The budget holds for `context`; the other forms say the same with other words around it."""

    context: str
    tokens: int
    max_tokens: int
    sections: list[Part]
    omitted: list[LeftOut]
    index: int
    system: str | None = None
    """With `format=anthropic`: what goes beside the messages."""
    messages: list[Turn] | None = None
    degraded: bool = False
    """No vectors could be used: words and time alone decided."""
    explain: ContextExplained | None = None


class _Nothing(NamedTuple):
    hits: Sequence[Hit] = ()
    degraded: bool = False
    explained: ScopeExplained | None = None


NOTHING_FOUND: Final = _Nothing()


class _Watch:
    """Notes how long each stage took."""

    def __init__(self, clock: Clock) -> None:
        self.took_ms: dict[str, float] = {}
        self._clock = clock
        self._began_s = clock.monotonic_s()

    def lap(self, stage: str) -> None:
        now_s = self._clock.monotonic_s()
        self.took_ms[stage] = round(1000 * (now_s - self._began_s), 3)
        self._began_s = now_s


class _Query(NamedTuple):
    text: str
    asked: MessageRow | None


class ContextReader:
    """Reads contexts. Changes nothing, holds no state."""

    def __init__(
        self, reads: Reads, searcher: Searches, tokens: Tokens, *, short_term_count: int, clock: Clock | None = None
    ) -> None:
        self._clock = clock if clock is not None else SystemClock()
        self._reads = reads
        self._searcher = searcher
        self._count: Count = tokens.count_once
        self._short_term_count = short_term_count

    async def read(
        self,
        session_id: str,
        *,
        tenant: str,
        max_tokens: int,
        similarity_threshold: float | None,
        long_term_top_k: int,
        query: str | None,
        now_ms: int | None,
        scope: Scope,
        format: Format,  # noqa: A002 - the published name of the parameter
        explain: bool = False,
    ) -> Context:
        """Return the context of a session: `max_tokens` at most, as cl100k_base counts its text.

        Raises:
            NotFoundError: The session is unknown.
        """
        watch = _Watch(self._clock)
        index = self._reads.applied_index
        known = await self._reads.conversation(session_id, tenant, self._short_term_count + LOOK_BACK_MESSAGES)
        if known is None:
            raise NotFoundError("session", session_id)
        recent = conversation_of(known.recent, self._short_term_count)
        wanted = _query(query, recent)
        watch.lap("read")
        found: Found = NOTHING_FOUND
        if wanted is not None and long_term_top_k > 0 and max_tokens > 0:
            sessions, top_k = await self._sessions(known.session, scope), long_term_top_k + len(recent)
            found = await self._searcher.search(sessions, wanted.text, top_k=top_k, now_ms=now_ms, explain=explain)
        watch.lap("search")
        material = Material(
            facts=known.facts,
            recent=recent,
            hits=candidates(found.hits, recent, long_term_top_k),
            asked=wanted and wanted.asked,
            memories_max=long_term_top_k,
            similarity_threshold=similarity_threshold,
        )
        packed = await self._pack(material, max_tokens)
        watch.lap("pack")
        context = _context(packed, known.session, max_tokens, index, degraded=found.degraded, form=format)
        if explain:
            candidates_told = explain_candidates(material, packed, max_tokens - packed.tokens, self._count)
            told = ContextExplained(
                query=wanted and wanted.text, candidates=candidates_told, search=found.explained, took_ms=watch.took_ms
            )
            return msgspec.structs.replace(context, explain=told)
        return context

    async def _sessions(self, session: SessionRow, scope: Scope) -> Sequence[SessionRow]:
        """Return the sessions to search; a session without agent or user is a scope of its own."""
        if scope == "agent" and session.agent_id is not None:
            return await self._reads.scope(session.tenant, agent_id=session.agent_id)
        if scope == "user" and session.user_id is not None:
            return await self._reads.scope(session.tenant, user_id=session.user_id)
        return [session]

    async def _pack(self, material: Material, max_tokens: int) -> Packed:
        material_tokens = (
            sum(fact.tokens for fact in material.facts)
            + sum(message.tokens for message in material.recent)
            + sum(hit.message.tokens for hit in material.hits)
        )
        if min(max_tokens, material_tokens) <= INLINE_TOKENS_MAX:
            return pack(material, max_tokens, self._count)
        return await asyncio.to_thread(pack, material, max_tokens, self._count)


def conversation_of(messages: Sequence[MessageRow], count: int) -> Sequence[MessageRow]:
    """Return the last `count` messages, without an answer at their head whose question lies before them.

    When nothing would be left, the whole last exchange is returned instead.
    """
    start = max(0, len(messages) - count)
    for earlier in range(start):
        end = answer_end(messages, earlier)
        if start < end:
            return messages[earlier:] if end == len(messages) else messages[end:]
    return messages[start:]


def candidates(hits: Sequence[Hit], recent: Sequence[MessageRow], count: int) -> list[Hit]:
    """Return the best `count` hits outside the conversation, and those inside that are better than the last of them.

    The conversation is often its own best hit: it must not use up the places of what lies further back.
    """
    inside = {(message.session_key, message.ordinal) for message in recent}
    wanted: list[Hit] = []
    room = count
    for hit in hits:
        if (hit.message.session_key, hit.message.ordinal) not in inside:
            if room == 0:
                break
            room -= 1
        wanted.append(hit)
    return wanted


def _query(query: str | None, recent: Sequence[MessageRow]) -> _Query | None:
    """Return what to search for: what was asked, else the last user message, else the last message."""
    if query is not None and query.strip():
        return _Query(_ends(query), None)
    if not recent:
        return None
    asked = next((message for message in reversed(recent) if message.role == "user"), recent[-1])
    return _Query(_ends(asked.text), asked)


def _ends(text: str) -> str:
    if len(text) <= 2 * QUERY_EDGE_CHARACTERS:
        return text
    return f"{text[:QUERY_EDGE_CHARACTERS]}\n{text[-QUERY_EDGE_CHARACTERS:]}"


def _context(
    packed: Packed, session: SessionRow, max_tokens: int, index: int, *, degraded: bool, form: Format
) -> Context:
    core, memories, conversation = packed.section_tokens
    system, messages = _messages(packed, form)
    return Context(
        context=packed.text,
        tokens=packed.tokens,
        max_tokens=max_tokens,
        sections=[
            Part(name="core", tokens=core, items=[_fact_item(fact, session) for fact in packed.facts]),
            Part(name="memories", tokens=memories, items=[_memory_item(hit) for hit in packed.memories]),
            Part(
                name="conversation",
                tokens=conversation,
                items=[_message_item(message, session.session_id) for message in packed.conversation],
            ),
        ],
        omitted=[_left_out(omitted) for omitted in packed.omitted],
        index=index,
        system=system,
        messages=messages,
        degraded=degraded,
    )


def _messages(packed: Packed, form: Format) -> tuple[str | None, list[Turn] | None]:
    if form == "text":
        return None, None
    system = background(packed.facts, [hit.message for hit in packed.memories])
    match form:
        case "openai":
            return None, openai_messages(system, packed.conversation)
        case "anthropic":
            return system, anthropic_messages(packed.conversation)
        case _:
            assert_never(form)


def _fact_item(fact: FactRow, session: SessionRow) -> Item:
    return Item(
        id=fact.fact_id,
        tokens=fact.tokens,
        session_id=session.session_id,
        index=fact.log_index,
        timestamp=timestamp(fact.at_ms),
    )


def _message_item(message: MessageRow, session_id: str) -> Item:
    return Item(
        id=message.message_id,
        tokens=message.tokens,
        session_id=session_id,
        index=message.log_index,
        timestamp=timestamp(message.when_ms),
        role=message.role,
        name=message.name,
    )


def _memory_item(hit: Hit) -> Item:
    return msgspec.structs.replace(
        _message_item(hit.message, hit.session.session_id), score=hit.score, similarity=hit.similarity
    )


def _left_out(omitted: Omitted) -> LeftOut:
    piece = omitted.piece
    return LeftOut(
        id=piece.fact_id if isinstance(piece, FactRow) else piece.message_id,
        section=omitted.section,
        tokens=piece.tokens,
        reason=omitted.reason,
    )
