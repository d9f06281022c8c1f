"""Core memory: the facts pinned into every context of a session."""

import msgspec

from engram import commands
from engram.api.calls import Call
from engram.api.erasure import wait_erased
from engram.api.paths import encode_header
from engram.api.replies import Reply, say
from engram.api.schemas import FactList, NewFact
from engram.api.verdicts import first_index
from engram.api.views import view_fact
from engram.errors import NotFoundError, OverloadedError
from engram.projections.rows import FactRow
from engram.projections.verdicts import Outcome, Verdict

FACT_ID = "Engram-Fact-Id"

PINS_MAX = 5
"""A fact that is there already may be unpinned before its id is known, and is pinned again then."""

_new_fact = msgspec.json.Decoder(NewFact)


async def pin_fact(call: Call) -> Reply:
    """Pin a fact. The same text again changes nothing and answers with the fact that is there."""
    wanted = await call.body(_new_fact)
    commands.check_text("fact", wanted.fact)
    session_id = call.segments[0]
    fact_id = call.services.new_id() if wanted.id is None else wanted.id
    tokens = await call.services.ingest.count_tokens(wanted.fact)
    for _ in range(PINS_MAX):
        verdict = await _pin(call, fact_id, wanted.fact, tokens)
        index = first_index("fact", fact_id, verdict)
        is_new = verdict.outcome is Outcome.ACCEPTED
        fact = None if is_new and not call.wants_representation() else await find_fact(call, session_id, index)
        if fact is not None and call.wants_representation():
            return say(view_fact(fact), log_index=index, headers={FACT_ID: encode_header(fact.fact_id)})
        if fact is not None or is_new:  # one that is new may have been unpinned since: it was pinned all the same
            counts = fact_id if fact is None else fact.fact_id
            return Reply(log_index=index, headers={FACT_ID: encode_header(counts)})
    raise OverloadedError(f"the same fact was unpinned by others {PINS_MAX} times while it was being pinned")


async def _pin(call: Call, fact_id: str, text: str, tokens: int) -> Verdict:
    recorder = call.services.recorder
    receipt = await recorder.record(
        commands.pin_fact(
            session_id=call.segments[0], fact_id=fact_id, text=text, tokens=tokens, at_ms=recorder.stamp_ms()
        )
    )
    return receipt.verdicts[0]


async def list_facts(call: Call) -> Reply:
    """Return the facts of a session in order of pinning."""
    session_id = call.segments[0]
    facts = await call.core.core(session_id, call.tenant)
    if facts is None:
        raise NotFoundError("session", session_id)
    return say(FactList(facts=[view_fact(row) for row in facts]))


async def unpin_fact(call: Call) -> Reply:
    """Take a fact out of core memory and forget it."""
    session_id, fact_id = call.segments
    recorder = call.services.recorder
    receipt = await recorder.record(
        commands.unpin_fact(session_id=session_id, fact_id=fact_id, at_ms=recorder.stamp_ms())
    )
    await wait_erased(call.services, receipt.log_index)
    return Reply(log_index=receipt.log_index)


async def find_fact(call: Call, session_id: str, log_index: int) -> FactRow | None:
    """Return the fact that was pinned at `log_index`; None if it has been unpinned."""
    session = await call.services.reads.session(session_id, call.tenant)
    if session is None:
        return None
    facts = await call.services.reads.facts(session.session_key)
    return next((row for row in facts if row.log_index == log_index), None)
