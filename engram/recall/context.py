"""Packing: which facts, memories and messages go into a context, so that its text never exceeds the budget.

Pure. Nothing is cut: a piece is shown whole or left out with a reason. What is worth more is placed first:

1. core facts, the newest first;
2. the last exchange of the conversation;
3. memories, in a share of what is left, so that a long conversation cannot push them all out;
4. the rest of the conversation, from the newest back, without gaps;
5. further memories in what is left then, those that the conversation turned out not to show among them.

Where the client says what it asks, its question need not be in the conversation: then memories come before the last
exchange, in a larger share. Memories are taken by what they are worth for what they cost, so that one long answer of an
assistant does not keep out five short messages that say more.

Token counts that were stored with the messages tell almost exactly what a line will cost; the text that comes out is
counted anyway, and if it is over after all, the pieces are chosen again for less.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from engram.projections.rows import FactRow, MessageRow, SessionRow
from engram.recall.explanation import HitExplained
from engram.recall.render import (
    CONVERSATION_HEADING,
    CORE_HEADING,
    LINE_JOINER,
    MEMORIES_HEADING,
    SECTION_JOINER,
    conversation_lines,
    core_lines,
    fact_prefix,
    memories_lines,
    memory_prefix,
    turn_prefix,
)

Reason = Literal["budget", "threshold", "duplicate"]
Section = Literal["core", "memories", "conversation"]
Count = Callable[[str], int]
Lines = Sequence[str]

MEMORIES_SHARE = 1 / 3
"""Of what facts and the last exchange leave: enough for a handful of memories in a small budget."""

ASKED_MEMORIES_SHARE = 9 / 10
"""Of what facts leave, when the client says what it asks: at 2 000 tokens three quarters lose one gold turn in a hundred
more of those that were found (`benchmarks/context_quality.py`)."""

LINE_TOKENS = 20
"""Roughly what a memory costs beside its text, when its worth is weighed against it."""

HOPE_TOKENS = 3
"""How far over the budget a choice may seem to be before it is not even tried: the joints between lines can save so
much, and a context that fits to the token should not lose a piece to an estimate."""

GENEROUS_LINE_TOKENS = 40
"""For what surrounds a text in its line, and its share of the headings. Where everything fits at that rate, nothing is
estimated more closely."""

EDGE_CHARACTERS = 48
"""How far from its ends a text is searched for a place where tokens part."""

RECOUNTED_CHARACTERS_MAX = 4_096
"""A text that does not part near its ends is counted again up to this length, in 0.3 ms."""

_first_parting = re.compile(r".+?(?<=[^\W_])(?=[\W_])", re.DOTALL)
_last_parting = re.compile(r".+(?<=[^\W_])(?=[\W_])", re.DOTALL)
"""Up to behind a word or number: cl100k_base never joins across that, so the parts can be counted one by one."""


class Hit(Protocol):
    """A message that a search found."""

    @property
    def session(self) -> SessionRow:
        """The session it is in."""

    @property
    def message(self) -> MessageRow:
        """The message."""

    @property
    def score(self) -> float:
        """How well it fits the query, from 0 to 1."""

    @property
    def similarity(self) -> float | None:
        """Cosine of query and text; None when the text has no vector yet."""

    @property
    def explained(self) -> HitExplained | None:
        """What each stage of the search said of it; only when asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a context can be made of."""

    facts: Sequence[FactRow]
    """In order of pinning."""
    recent: Sequence[MessageRow]
    """The conversation, oldest first."""
    hits: Sequence[Hit]
    """Best first."""
    asked: MessageRow | None
    """The message that the hits were searched with, if it was one: never a memory of itself."""
    memories_max: int
    """How many hits are shown at most."""
    similarity_threshold: float | None
    """Hits below it, or without a vector, are left out; None: none are."""


class Omitted(NamedTuple):
    """A piece that is not shown, and why."""

    section: Section
    piece: FactRow | MessageRow
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A context that fits."""

    text: str
    tokens: int
    """Exact count of `text`."""
    facts: list[FactRow]
    memories: list[Hit]
    """Oldest first."""
    conversation: list[MessageRow]
    section_tokens: tuple[int, int, int]
    """Of core, memories and conversation, each with the blank line behind it; they add up to `tokens`."""
    omitted: list[Omitted]
    """Each piece of the material is either shown or here, once."""


def pack(material: Material, max_tokens: int, count: Count) -> Packed:
    """Return the context of at most `max_tokens` tokens as `count` counts them."""
    pieces = (material.facts, material.recent, [hit.message for hit in material.hits])
    generous = sum(piece.tokens + GENEROUS_LINE_TOKENS for rows in pieces for piece in rows)
    costs = _Costs(count, is_ample=generous <= max_tokens)
    budget = max_tokens + HOPE_TOKENS if max_tokens > 0 else 0
    while True:
        choice = _choose(material, budget, costs)
        packed = _written(material, choice, count)
        if packed.tokens <= max_tokens:
            return packed
        assert choice.spent > 0, "no choice, no text"
        budget = choice.spent - (packed.tokens - max_tokens)


def exchanges(recent: Sequence[MessageRow]) -> list[Sequence[MessageRow]]:
    """Return the conversation in parts that are shown whole: a user message up to the assistant's answer to it."""
    parts: list[Sequence[MessageRow]] = []
    start = 0
    while start < len(recent):
        end = answer_end(recent, start)
        parts.append(recent[start:end])
        start = end
    return parts


def answer_end(messages: Sequence[MessageRow], start: int) -> int:
    """Return where the exchange that begins at `start` ends: behind the answer to a user message, else behind it."""
    if messages[start].role != "user":
        return start + 1
    for place in range(start + 1, len(messages)):
        if messages[place].role == "assistant":
            return place + 1
        if messages[place].role == "user":
            break
    return start + 1


def _identity(message: MessageRow) -> tuple[int, int]:
    return message.session_key, message.ordinal


class _Costs:
    """What lines cost in tokens, the line break behind them included; each is worked out once."""

    def __init__(self, count: Count, *, is_ample: bool) -> None:
        self._count = count
        self._is_ample = is_ample
        self._known: dict[object, int] = {}
        self.headings = {
            heading: count(heading + "\n") for heading in (CORE_HEADING, MEMORIES_HEADING, CONVERSATION_HEADING)
        }

    def fact(self, fact: FactRow) -> int:
        return self._line(("fact", fact.fact_id), fact_prefix(), fact.text, fact.tokens)

    def memory(self, message: MessageRow) -> int:
        return self._line(("memory", *_identity(message)), memory_prefix(message), message.text, message.tokens)

    def turn(self, message: MessageRow) -> int:
        return self._line(("turn", *_identity(message)), turn_prefix(message), message.text, message.tokens)

    def _line(self, key: object, prefix: str, text: str, tokens: int) -> int:
        if self._is_ample:
            return tokens + 1
        cost = self._known.get(key)
        if cost is None:
            cost = self._known[key] = _line_tokens(self._count, prefix, text, tokens)
        return cost


def _line_tokens(count: Count, prefix: str, text: str, tokens: int) -> int:
    """Return the tokens of `prefix + text` and a line break, where `text` alone has `tokens`.

    Only the ends of a long text are counted again, up to where its tokens part. Of a very long text without such a
    place, as no language has it, the answer is a guess.
    """
    if len(text) <= 2 * EDGE_CHARACTERS:
        return count(f"{prefix}{text}\n")
    first = _first_parting.match(text[:EDGE_CHARACTERS])
    last = _last_parting.match(text[-EDGE_CHARACTERS:])
    if first is None or last is None:
        return count(f"{prefix}{text}\n") if len(text) <= RECOUNTED_CHARACTERS_MAX else max(1, count(prefix) + tokens)
    head, tail = first.group(), text[last.end() - EDGE_CHARACTERS :]
    return max(1, tokens + count(prefix + head) - count(head) + count(tail + "\n") - count(tail))


@dataclass(slots=True, kw_only=True)
class _Choice:
    """What was chosen so far, and what it seems to cost."""

    budget: int
    spent: int = 0
    facts: set[str] = field(default_factory=set)
    turns: set[tuple[int, int]] = field(default_factory=set)
    memories: set[tuple[int, int]] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    """Texts that are shown as a message already, or that were asked."""

    @property
    def room(self) -> int:
        return self.budget - self.spent

    def shows(self, message: MessageRow) -> bool:
        identity = _identity(message)
        return identity in self.turns or identity in self.memories or message.text.strip() in self.texts

    def add_memory(self, message: MessageRow, cost: int) -> None:
        self.spent += cost
        self.memories.add(_identity(message))
        self.texts.add(message.text.strip())

    def add_turns(self, messages: Sequence[MessageRow], cost: int) -> None:
        self.spent += cost
        self.turns.update(map(_identity, messages))
        self.texts.update(message.text.strip() for message in messages)


def _choose(material: Material, budget: int, costs: _Costs) -> _Choice:
    """Return the most valuable choice that seems to cost `budget` tokens at most."""
    choice = _Choice(budget=budget)
    _choose_facts(choice, material.facts, costs)
    parts = exchanges(material.recent)[::-1]
    is_asked = material.asked is None and bool(material.hits)
    shown = is_asked or _choose_turns(choice, parts[:1], costs)
    hits = [hit.message for hit in material.hits if near_enough(hit, material.similarity_threshold)]
    best, others = _by_value(hits[: material.memories_max]), _by_value(hits[material.memories_max :])
    asked = set() if material.asked is None else {material.asked.text.strip()}
    window = asked.union(message.text.strip() for message in material.recent)
    outside = [message for message in best if message.text.strip() not in window]
    share = ASKED_MEMORIES_SHARE if is_asked else MEMORIES_SHARE
    _choose_memories(choice, outside, material.memories_max, int(choice.room * share), costs)
    if shown:
        _choose_turns(choice, parts if is_asked else parts[1:], costs)
    choice.texts |= asked
    _choose_memories(choice, [*best, *others], material.memories_max, choice.room, costs)
    return choice


def _by_value(hits: Sequence[MessageRow]) -> list[MessageRow]:
    """Return hits, which come best first, by worth for cost: the worth falls with the rank, the cost counts half.

    It is rank times the root of the cost, squared so that whole numbers are compared.
    """
    ranked = sorted(enumerate(hits, start=1), key=lambda pair: pair[0] ** 2 * (pair[1].tokens + LINE_TOKENS))
    return [message for _, message in ranked]


def near_enough(hit: Hit, threshold: float | None) -> bool:
    """Return whether a hit passes the threshold; one without a vector passes none."""
    return threshold is None or (hit.similarity is not None and hit.similarity >= threshold)


def _choose_facts(choice: _Choice, facts: Sequence[FactRow], costs: _Costs) -> None:
    for fact in reversed(facts):
        if fact.tokens > choice.room:
            continue
        cost = costs.fact(fact) + (0 if choice.facts else costs.headings[CORE_HEADING])
        if cost <= choice.room:
            choice.spent += cost
            choice.facts.add(fact.fact_id)


def _choose_turns(choice: _Choice, parts: Iterable[Sequence[MessageRow]], costs: _Costs) -> bool:
    """Add the parts of the conversation, the newest first, up to the first that does not fit; return if all did."""
    for part in parts:
        if sum(message.tokens for message in part) > choice.room:
            return False
        cost = sum(map(costs.turn, part)) + (0 if choice.turns else costs.headings[CONVERSATION_HEADING])
        if cost > choice.room:
            return False
        choice.add_turns(part, cost)
    return True


def _choose_memories(
    choice: _Choice, messages: Iterable[MessageRow], memories_max: int, room: int, costs: _Costs
) -> None:
    """Add the memories that fit into `room`, in their order, and that are not shown yet."""
    for message in messages:
        if len(choice.memories) == memories_max:
            return
        if message.tokens > room or choice.shows(message):
            continue
        cost = costs.memory(message) + (0 if choice.memories else costs.headings[MEMORIES_HEADING])
        if cost <= room:
            room -= cost
            choice.add_memory(message, cost)


def _written(material: Material, choice: _Choice, count: Count) -> Packed:
    facts = [fact for fact in material.facts if fact.fact_id in choice.facts]
    conversation = [message for message in material.recent if _identity(message) in choice.turns]
    memories, omitted_hits = _memories(material, choice)
    sections = (
        core_lines(facts),
        memories_lines(hit.message for hit in memories),
        conversation_lines(conversation),
    )
    section_tokens = _section_tokens(sections, count)
    omitted = [Omitted("core", fact, "budget") for fact in material.facts if fact.fact_id not in choice.facts]
    omitted += omitted_hits
    omitted += (
        Omitted("conversation", message, "budget")
        for message in material.recent
        if _identity(message) not in choice.turns
    )
    return Packed(
        text=SECTION_JOINER.join(filter(None, map(LINE_JOINER.join, sections))),
        tokens=sum(section_tokens),
        facts=facts,
        memories=memories,
        conversation=conversation,
        section_tokens=section_tokens,
        omitted=omitted,
    )


def _memories(material: Material, choice: _Choice) -> tuple[list[Hit], list[Omitted]]:
    """Return the hits that are shown, oldest first, and the others with the reason, best first."""
    shown: list[Hit] = []
    omitted: list[Omitted] = []
    waiting = set(choice.memories)
    for hit in material.hits:
        identity = _identity(hit.message)
        if identity in waiting:
            waiting.remove(identity)
            shown.append(hit)
        elif choice.shows(hit.message):
            omitted.append(Omitted("memories", hit.message, "duplicate"))
        elif not near_enough(hit, material.similarity_threshold):
            omitted.append(Omitted("memories", hit.message, "threshold"))
        else:
            omitted.append(Omitted("memories", hit.message, "budget"))
    shown.sort(key=lambda hit: (hit.message.when_ms, hit.message.log_index, *_identity(hit.message)))
    return shown, omitted


def _section_tokens(sections: tuple[Lines, Lines, Lines], count: Count) -> tuple[int, int, int]:
    """Return the tokens of each section as it stands in the text, the joiner to the next one included.

    cl100k_base never joins a line break with what is not white space behind it, and every line begins with a letter or a
    dash: so the lines, each with the break behind it, add up to the tokens of the whole text. What a line has is not
    asked of what is stored, which may be wrong; it has been counted before when it stood in another context.
    """
    last = max((place for place, lines in enumerate(sections) if lines), default=-1)
    core, memories, conversation = (
        sum(count(line + LINE_JOINER) for line in lines[:-1])
        + (count(lines[-1] + ("" if place == last else SECTION_JOINER)) if lines else 0)
        for place, lines in enumerate(sections)
    )
    return core, memories, conversation
