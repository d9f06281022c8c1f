"""The route table: what the router serves and the OpenAPI document describes."""

from collections.abc import Sequence
from functools import cache
from typing import get_args

from engram.api import cluster, facts, messages, openapi, pages, recollection, sessions
from engram.api.calls import Call
from engram.api.parameters import Choice, Cursor, Flag, Identifier, Integer, Number, Parameter, Time, Words
from engram.api.replies import Reply
from engram.api.route import Route
from engram.api.schemas import (
    INDEX_MAX,
    FactList,
    FactView,
    Health,
    Membership,
    MessageList,
    MessagesDone,
    MessageView,
    NewFact,
    NewLearner,
    NewMessage,
    NewMessages,
    NewSession,
    Ready,
    SearchQuery,
    SearchResults,
    SessionList,
    SessionMade,
    SessionView,
    Transfer,
    VisibilityWanted,
)
from engram.recall.reader import Context, Format, Scope


@cache
def _document(version: str) -> Reply:
    return Reply(openapi.describe(ROUTES, version=version))


async def show_document(call: Call) -> Reply:
    """Return this document."""
    return _document(call.services.version)


READ = (
    Parameter(
        "min_index",
        Integer(0, INDEX_MAX),
        "Wait until reads here have applied this log index: read your own writes.",
        default=0,
        header="Engram-Min-Index",
    ),
    Parameter(
        "consistency",
        Choice(("local", "linearizable")),
        "`local` reads what this node has applied; `linearizable` at least what was acknowledged anywhere.",
        default="local",
        header="Engram-Consistency",
    ),
)
PAGE = (
    Parameter("limit", Integer(1, 200), "Items on a page.", default=50),
    Parameter("cursor", Cursor(), "`next_cursor` of the page before."),
)
CONTEXT = (
    Parameter("max_tokens", Integer(0, 1_000_000), "The budget, in cl100k_base tokens.", default=8000),
    Parameter("similarity_threshold", Number(-1, 1), "Memories of a lower cosine are left out."),
    Parameter("long_term_top_k", Integer(0, 200), "Memories to consider.", default=10),
    Parameter("query", Words(), "What to remember; else the last user message."),
    Parameter("now", Time(), "What `last week` in the query is relative to; else the clock."),
    Parameter("scope", Choice(get_args(Scope)), "Whose sessions memories come from.", default="session"),
    Parameter("explain", Flag(), "Says why a memory is there: its score and similarity.", default=False),
    Parameter("format", Choice(get_args(Format)), "Adds `messages` for a model's API.", default="text"),
)

_WRITE = ("no_leader", "not_ready", "overloaded", "outcome_unknown")
_READ = ("not_ready",)
_SERVICE, _SESSIONS, _MESSAGES, _MEMORY, _FACTS, _CLUSTER = (
    "service", "sessions", "messages", "memory", "core memory", "cluster",
)  # fmt: skip

ROUTES: Sequence[Route] = (
    Route(method="GET", path="/health", handler=pages.health, name="health", tag=_SERVICE, answer=Health),
    Route(
        method="GET",
        path="/ready",
        handler=pages.ready,
        name="ready",
        tag=_SERVICE,
        answer=Ready,
        problems=["not_ready"],
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=pages.metrics,
        name="metrics",
        tag=_SERVICE,
        answer_type="text/plain",
    ),
    Route(
        method="GET",
        path="/api-docs/openapi.json",
        handler=show_document,
        name="openapi",
        tag=_SERVICE,
        answer_type="application/json",
    ),
    Route(
        method="GET",
        path="/swagger-ui/",
        handler=pages.swagger_page,
        name="swagger_page",
        tag=_SERVICE,
        answer_type="text/html",
    ),
    Route(
        method="GET",
        path="/swagger-ui/{asset}",
        handler=pages.swagger_asset,
        name="swagger_asset",
        tag=_SERVICE,
        answer_type="*/*",
    ),
    Route(
        method="POST",
        path="/sessions",
        handler=sessions.create_session,
        name="create_session",
        tag=_SESSIONS,
        request=[NewSession],
        body_required=False,
        answer=SessionMade,
        representation=SessionView,
        request_headers=["Idempotency-Key", "Prefer"],
        problems=["session_conflict", *_WRITE],
        example={"agent_id": "assistant-1", "user_id": "ann"},
    ),
    Route(
        method="GET",
        path="/sessions",
        handler=sessions.list_sessions,
        name="list_sessions",
        tag=_SESSIONS,
        answer=SessionList,
        parameters=[
            Parameter("agent_id", Identifier(), "Only sessions of this agent."),
            Parameter("user_id", Identifier(), "Only sessions of this user."),
            *PAGE,
            *READ,
        ],
        problems=["invalid_cursor", *_READ],
    ),
    Route(
        method="GET",
        path="/sessions/{session_id}",
        handler=sessions.get_session,
        name="get_session",
        tag=_SESSIONS,
        answer=SessionView,
        parameters=READ,
        problems=["session_not_found", *_READ],
    ),
    Route(
        method="DELETE",
        path="/sessions/{session_id}",
        handler=sessions.delete_session,
        name="delete_session",
        tag=_SESSIONS,
        problems=_WRITE,
    ),
    Route(
        method="PUT",
        path="/sessions/{session_id}/visibility",
        handler=sessions.put_visibility,
        name="put_visibility",
        tag=_SESSIONS,
        request=[VisibilityWanted],
        representation=SessionView,
        request_headers=["Prefer"],
        problems=_WRITE,
        example={"visibility": "Shared"},
    ),
    Route(
        method="POST",
        path="/sessions/{session_id}/messages",
        handler=messages.add_messages,
        name="add_messages",
        tag=_MESSAGES,
        request=[NewMessage, NewMessages],
        answer=MessagesDone,
        representation=MessageView,
        request_headers=["Prefer"],
        answer_headers=["Engram-Message-Id"],
        problems=["message_conflict", "message_deleted", *_WRITE],
        example={"role": "user", "content": "I moved to Oslo last week.", "id": "m-1"},
    ),
    Route(
        method="GET",
        path="/sessions/{session_id}/messages",
        handler=messages.list_messages,
        name="list_messages",
        tag=_MESSAGES,
        answer=MessageList,
        parameters=[*PAGE, Parameter("order", Choice(("asc", "desc")), "Log order.", default="asc"), *READ],
        problems=["invalid_cursor", "session_not_found", *_READ],
    ),
    Route(
        method="GET",
        path="/sessions/{session_id}/messages/{message_id}",
        handler=messages.get_message,
        name="get_message",
        tag=_MESSAGES,
        answer=MessageView,
        parameters=READ,
        problems=["session_not_found", "message_not_found", *_READ],
    ),
    Route(
        method="DELETE",
        path="/sessions/{session_id}/messages/{message_id}",
        handler=messages.delete_message,
        name="delete_message",
        tag=_MESSAGES,
        problems=_WRITE,
    ),
    Route(
        method="GET",
        path="/sessions/{session_id}/context",
        handler=recollection.get_context,
        name="get_context",
        tag=_MEMORY,
        answer=Context,
        parameters=[*CONTEXT, *READ],
        problems=["session_not_found", *_READ],
    ),
    Route(
        method="POST",
        path="/sessions/{session_id}/search",
        handler=recollection.search,
        name="search",
        tag=_MEMORY,
        request=[SearchQuery],
        answer=SearchResults,
        parameters=READ,
        problems=_READ,
        example={"query": "where does Ann live?", "top_k": 5},
    ),
    Route(
        method="PUT",
        path="/sessions/{session_id}/core-memory",
        handler=facts.pin_fact,
        name="pin_fact",
        tag=_FACTS,
        request=[NewFact],
        representation=FactView,
        request_headers=["Prefer"],
        answer_headers=["Engram-Fact-Id"],
        problems=["fact_conflict", *_WRITE],
        example={"fact": "Ann is allergic to peanuts."},
    ),
    Route(
        method="GET",
        path="/sessions/{session_id}/core-memory",
        handler=facts.list_facts,
        name="list_facts",
        tag=_FACTS,
        answer=FactList,
        parameters=READ,
        problems=["session_not_found", *_READ],
    ),
    Route(
        method="DELETE",
        path="/sessions/{session_id}/core-memory/{fact_id}",
        handler=facts.unpin_fact,
        name="unpin_fact",
        tag=_FACTS,
        problems=_WRITE,
    ),
    *(
        Route(
            method=method,
            path=path,
            handler=cluster.not_clustered,
            name=name,
            tag=_CLUSTER,
            about=about,
            request=request,
            body_required=False,
            problems=["not_clustered"],
        )
        for method, path, name, request, about in (
            ("GET", "/cluster", "get_cluster", [], "Return who is in the cluster and who leads."),
            ("POST", "/cluster/init", "init_cluster", [], "Form the cluster of the configured peers."),
            ("POST", "/cluster/add-learner", "add_learner", [NewLearner], "Bring a node in as a learner."),
            ("POST", "/cluster/change-membership", "change_membership", [Membership], "Set who votes."),
            ("POST", "/cluster/transfer-leadership", "transfer_leadership", [Transfer], "Hand leadership over."),
            ("POST", "/cluster/snapshot", "take_snapshot", [], "Move the base of the log up to what is applied."),
        )
    ),
)
