"""The fold of facts: pinned once, whatever the id; unpinned and forgotten."""

from engram.events import FactPinned, FactUnpinned
from engram.projections.erasures import Kind, fact_subject
from engram.projections.lives import FactState, Life, View
from engram.projections.slots import log_index_of
from engram.projections.verdicts import Outcome, Verdict


def same_text(life: Life, text: str) -> FactState | None:
    """Return the pinned fact with that text, of those that the batch knows of."""
    return next((fact for fact in life.facts.values() if fact.text == text), None)


def pin(view: View, event: FactPinned) -> Verdict:
    """Pin a fact into a session, which begins here when it is unknown.

    The same text again is a duplicate. Another text under a pinned fact's id was refused before.
    """
    life = view.open(event)
    first = same_text(life, event.text)
    if first is not None:
        view.trace(life, fact_subject(first.fact_id))
        return Verdict(Outcome.DUPLICATE, log_index_of(first.slot))
    fact = FactState(view.take_slot(), event.fact_id, event.text, event.tokens, event.at_ms)
    life.facts[event.fact_id] = life.new_facts[event.fact_id] = fact
    life.fact_count += 1
    view.touch(life, event)
    return Verdict(Outcome.ACCEPTED, view.log_index)


def unpin(view: View, event: FactUnpinned) -> Verdict:
    """Take a fact out of its session. An unknown one is noted in the timeline, as where a fact was erased."""
    life = view.find(event)
    if life is None:
        return Verdict(Outcome.UNKNOWN, 0)
    fact = life.facts.pop(event.fact_id, None)
    view.touch(life, event)
    if fact is None:
        return Verdict(Outcome.UNKNOWN, 0)
    life.fact_count -= 1
    if life.new_facts.pop(event.fact_id, None) is None:
        life.gone_facts.append(fact.slot)
    else:
        view.brief_facts.append(fact)
    view.traces.append((life.key, fact_subject(event.fact_id), log_index_of(fact.slot)))
    view.erase(event, Kind.FACT, event.fact_id, life, fact.slot)
    return Verdict(Outcome.ACCEPTED, view.log_index)
