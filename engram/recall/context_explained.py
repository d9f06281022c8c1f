"""Why a context holds what it holds: what became of each message that the search offered. Pure."""

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct

from engram.recall.context import Count, Hit, Material, Packed, near_enough
from engram.recall.explanation import HitExplained, ScopeExplained
from engram.recall.render import memory_prefix

Outcome = Literal["memory", "conversation", "asked", "repeats", "threshold", "top_k", "budget"]


class CandidateExplained(Struct, frozen=True, kw_only=True):
    """A message that the search offered as a memory."""

    id: str
    session_id: str
    outcome: Annotated[
        Outcome,
        Meta(
            description="`memory`: shown as one; `conversation`: the conversation shows it; `asked`: it is the question; "
            "`repeats`: a shown message says the same; `threshold`: too dissimilar; `top_k`: there are as many memories "
            "as asked for; `budget`: it did not fit"
        ),
    ]
    tokens: Annotated[int, Meta(ge=0, description="what it costs as a memory, its line included")]
    tokens_left: Annotated[int, Meta(ge=0, description="of the budget, when all was packed")]
    score: float
    search: HitExplained | None


class ContextExplained(Struct, frozen=True, kw_only=True):
    """How a context came about."""

    query: Annotated[str, Meta(description="what memories are searched for by; null: nobody asked")] | None
    candidates: Annotated[list[CandidateExplained], Meta(description="best first")]
    search: (
        Annotated[ScopeExplained, Meta(description="null when there was nothing to search for, or no room for it")]
        | None
    )
    took_ms: Annotated[dict[str, float], Meta(description="`read` of the session, `search`, `pack`")]


def explain_candidates(material: Material, packed: Packed, tokens_left: int, count: Count) -> list[CandidateExplained]:
    """Return what became of each hit of `material`, which was packed with so many tokens to spare."""
    return [
        CandidateExplained(
            id=hit.message.message_id,
            session_id=hit.session.session_id,
            outcome=outcome,
            tokens=hit.message.tokens + count(memory_prefix(hit.message)),
            tokens_left=tokens_left,
            score=hit.score,
            search=hit.explained,
        )
        for hit, outcome in _outcomes(material, packed)
    ]


def _outcomes(material: Material, packed: Packed) -> Iterator[tuple[Hit, Outcome]]:
    memories = {(hit.message.session_key, hit.message.ordinal) for hit in packed.memories}
    spoken = {(message.session_key, message.ordinal) for message in packed.conversation}
    said = {hit.message.text.strip() for hit in packed.memories}
    said.update(message.text.strip() for message in packed.conversation)
    asked = None if material.asked is None else material.asked.text.strip()
    is_full = len(packed.memories) >= material.memories_max
    for hit in material.hits:
        identity, text = (hit.message.session_key, hit.message.ordinal), hit.message.text.strip()
        reasons: tuple[tuple[bool, Outcome], ...] = (
            (identity in memories, "memory"),
            (identity in spoken, "conversation"),
            (text == asked, "asked"),
            (text in said, "repeats"),
            (not near_enough(hit, material.similarity_threshold), "threshold"),
            (is_full, "top_k"),
        )
        yield hit, next((outcome for holds, outcome in reasons if holds), "budget")
