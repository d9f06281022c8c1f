"""The route table: what the router serves and the OpenAPI document describes."""

from collections.abc import Sequence
from functools import cache
from typing import get_args

from engram.api import cluster, differences, facts, messages, openapi, pages, recollection, sessions
from engram.api.admin import admin_routes
from engram.api.as_of import AS_OF, SPAN
from engram.api.calls import Call
from engram.api.copy_routes import copy_routes
from engram.api.event_routes import event_routes
from engram.api.imports import import_route
from engram.api.parameters import (
    LINEARIZABLE,
    Choice,
    Cursor,
    Flag,
    Identifier,
    Integer,
    Number,
    Parameter,
    Time,
    Words,
)
from engram.api.reembedding import reembed_routes
from engram.api.replies import Reply
from engram.api.route import Route
from engram.api.schemas import (
    INDEX_MAX,
    ClusterView,
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
    SnapshotTaken,
    Transfer,
    Transferred,
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
        Choice(("local", LINEARIZABLE)),
        "`local` reads what this node has applied; `linearizable` at least what was acknowledged anywhere.",
        default="local",
        header="Engram-Consistency",
    ),
)
PAST = (AS_OF, *READ)
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

_WRITE = ("not_ready", "overloaded", "outcome_unknown")
_READ = ("no_leader", "not_ready")
_MEMBERSHIP = ("membership_change_pending", "not_ready", "outcome_unknown")
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
        parameters=PAST,
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
        parameters=[*PAGE, Parameter("order", Choice(("asc", "desc")), "Log order.", default="asc"), *PAST],
        problems=["invalid_cursor", "session_not_found", *_READ],
    ),
    Route(
        method="GET",
        path="/sessions/{session_id}/messages/{message_id}",
        handler=messages.get_message,
        name="get_message",
        tag=_MESSAGES,
        answer=MessageView,
        parameters=PAST,
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
        path="/sessions/{session_id}/diff",
        handler=differences.get_difference,
        name="get_difference",
        tag=_SESSIONS,
        answer=differences.DifferenceView,
        parameters=[*SPAN, *READ],
        problems=["session_not_found", *_READ],
    ),
    Route(
        method="GET",
        path="/sessions/{session_id}/context",
        handler=recollection.get_context,
        name="get_context",
        tag=_MEMORY,
        answer=Context,
        parameters=[*CONTEXT, *PAST],
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
        parameters=PAST,
        anywhere=True,
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
        parameters=PAST,
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
    *copy_routes(problems=_READ),
    *admin_routes(),
    *reembed_routes(),
    import_route(problems=_WRITE),
    *event_routes(page=PAGE, read=READ, problems=_READ),
    Route(
        method="GET",
        path="/cluster",
        handler=cluster.get_cluster,
        name="get_cluster",
        tag=_CLUSTER,
        answer=ClusterView,
        problems=["not_clustered"],
    ),
    Route(
        method="POST",
        path="/cluster/init",
        handler=cluster.init_cluster,
        name="init_cluster",
        tag=_CLUSTER,
        anywhere=True,
        answer=ClusterView,
        problems=["not_clustered", "already_clustered", "invalid_value", "no_leader", "catch_up_pending", *_MEMBERSHIP],
    ),
    Route(
        method="POST",
        path="/cluster/add-learner",
        handler=cluster.add_learner,
        name="add_learner",
        tag=_CLUSTER,
        request=[NewLearner],
        answer=ClusterView,
        problems=["not_clustered", "already_clustered", "member_conflict", "catch_up_pending", *_MEMBERSHIP],
        example={"node_id": 4, "addr": "node-4:9001", "http_addr": "node-4:3000"},
    ),
    Route(
        method="POST",
        path="/cluster/change-membership",
        handler=cluster.change_membership,
        name="change_membership",
        tag=_CLUSTER,
        request=[Membership],
        answer=ClusterView,
        problems=["not_clustered", "catch_up_pending", *_MEMBERSHIP],
        example={"members": [1, 2, 3]},
    ),
    Route(
        method="POST",
        path="/cluster/transfer-leadership",
        handler=cluster.transfer_leadership,
        name="transfer_leadership",
        tag=_CLUSTER,
        request=[Transfer],
        body_required=False,
        answer=Transferred,
        problems=["not_clustered", "transfer_failed"],
        example={"node_id": 2},
    ),
    Route(
        method="POST",
        path="/cluster/snapshot",
        handler=cluster.take_snapshot,
        name="take_snapshot",
        tag=_CLUSTER,
        answer=SnapshotTaken,
        problems=["not_clustered"],
    ),
)
