"""Reading memory: the context inside a token budget, and the search behind it. Neither changes anything."""

from collections.abc import Sequence
from typing import cast

import msgspec

from engram.api.calls import Call
from engram.api.conditions import condition_of
from engram.api.replies import Reply, say
from engram.api.schemas import HitView, SearchQuery, SearchResults
from engram.api.times import format_time, parse_time
from engram.commands import check_text
from engram.projections.rows import SessionRow
from engram.recall.reader import Context, Format, Scope
from engram.recall.search import Hit

_search_query = msgspec.json.Decoder(SearchQuery)


async def get_context(call: Call) -> Reply:
    """Return the right memories of a session inside an exact token budget."""
    metrics, clock = call.services.metrics, call.services.clock
    metrics.context_requests_total.inc()
    started_s = clock.monotonic_s()
    context = await call.contexts.read(
        call.segments[0],
        tenant=call.tenant,
        max_tokens=call.whole("max_tokens"),
        similarity_threshold=call.number("similarity_threshold"),
        long_term_top_k=call.whole("long_term_top_k"),
        query=call.text("query"),
        now_ms=call.now_ms(),
        scope=cast(Scope, call.text("scope")),
        format=cast(Format, call.text("format")),
        explain=bool(call.whole("explain")),
    )
    metrics.context_duration_seconds.observe(clock.monotonic_s() - started_s)
    return say(context if call.whole("explain") else _unexplained(context), log_index=context.index)


async def search(call: Call) -> Reply:
    """Return the messages that fit a query best; none for an unknown session."""
    wanted = await call.body(_search_query)
    check_text("query", wanted.query)
    now_ms = call.present_ms() if wanted.now is None else parse_time("now", wanted.now)
    where = condition_of(wanted.filter)
    scope = await _scope(call, call.segments[0], wanted.scope)
    found = await call.searches.search(
        scope,
        wanted.query,
        top_k=wanted.top_k,
        now_ms=now_ms,
        min_score=wanted.min_score,
        where=where,
        explain=wanted.explain,
    )
    results = [_view(hit) for hit in found.hits]
    return say(
        SearchResults(
            results=results,
            degraded=found.degraded,
            sessions_left_out=found.sessions_left_out,
            explain=found.explained,
        )
    )


async def _scope(call: Call, session_id: str, scope: Scope) -> Sequence[SessionRow]:
    reads = call.reads
    session = await reads.session(session_id, call.tenant)
    if session is None:
        return ()
    if scope == "agent" and session.agent_id is not None:
        return await reads.scope(call.tenant, agent_id=session.agent_id)
    if scope == "user" and session.user_id is not None:
        return await reads.scope(call.tenant, user_id=session.user_id)
    return (session,)


def _view(hit: Hit) -> HitView:
    message = hit.message
    return HitView(
        text=message.text,
        score=hit.score,
        id=message.message_id,
        session_id=hit.session.session_id,
        role=message.role,
        timestamp=format_time(message.when_ms),
        index=message.log_index,
        explain=hit.explained,
    )


def _unexplained(context: Context) -> Context:
    """Return the context without the numbers behind its memories."""
    sections = [
        msgspec.structs.replace(
            part, items=[msgspec.structs.replace(item, score=None, similarity=None) for item in part.items]
        )
        if part.name == "memories"
        else part
        for part in context.sections
    ]
    return msgspec.structs.replace(context, sections=sections)
