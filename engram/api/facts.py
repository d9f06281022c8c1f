"""Core memory: the facts pinned into every context of a session."""

import msgspec

from engram import commands
from engram.api.calls import Call
from engram.api.erasure import wait_erased
from engram.api.paths import encode_header
from engram.api.replies import Reply, say
from engram.api.schemas import FactList, NewFact
from engram.api.sessions import find_session
from engram.api.verdicts import first_index
from engram.api.views import view_fact
from engram.errors import NotFoundError
from engram.projections.rows import FactRow
from engram.projections.verdicts import Outcome

FACT_ID = "Engram-Fact-Id"

_new_fact = msgspec.json.Decoder(NewFact)


async def pin_fact(call: Call) -> Reply:
    """Pin a fact. The same text again changes nothing and answers with the fact that is there."""
    wanted = await call.body(_new_fact)
    commands.check_text("fact", wanted.fact)
    session_id = call.segments[0]
    fact_id = call.services.new_id() if wanted.id is None else wanted.id
    recorder = call.services.recorder
    tokens = await call.services.ingest.count_tokens(wanted.fact)
    receipt = await recorder.record(
        commands.pin_fact(
            session_id=session_id, fact_id=fact_id, text=wanted.fact, tokens=tokens, at_ms=recorder.stamp_ms()
        )
    )
    verdict = receipt.verdicts[0]
    index = first_index("fact", fact_id, verdict)
    if verdict.outcome is Outcome.ACCEPTED and not call.wants_representation():
        return Reply(log_index=index, headers={FACT_ID: encode_header(fact_id)})
    fact = await _fact_at(call, session_id, index)
    headers = {FACT_ID: encode_header(fact.fact_id)}
    if call.wants_representation():
        return say(view_fact(fact), log_index=index, headers=headers)
    return Reply(log_index=index, headers=headers)


async def list_facts(call: Call) -> Reply:
    """Return the facts of a session in order of pinning."""
    session = await find_session(call, call.segments[0])
    facts = await call.services.reads.facts(session.session_key)
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


async def _fact_at(call: Call, session_id: str, log_index: int) -> FactRow:
    session = await find_session(call, session_id)
    for row in await call.services.reads.facts(session.session_key):
        if row.log_index == log_index:
            return row
    raise NotFoundError("fact", f"pinned at {log_index}")
