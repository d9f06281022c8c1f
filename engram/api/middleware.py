"""From replies and errors to HTTP responses. The only place that knows status codes."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from aiohttp import hdrs, web

from engram.api.errors import MethodError, RedirectError, UnreadyError
from engram.api.replies import Reply
from engram.api.schemas import Problem
from engram.errors import EngramError

PROBLEM_TYPE = "application/problem+json"
COMPLETE_STATUS = 200
BEGUN_STATUS = 202
EMPTY_STATUS = 204
FAILED_STATUS = 500
SERVER = "engram"
REQUEST_ID = "X-Request-ID"
INDEX = "Engram-Index"
LEADER = "Engram-Leader"


class Kind(NamedTuple):
    """What a problem code means."""

    status: int
    title: str
    retry_after_s: int | None = None


PROBLEMS: Mapping[str, Kind] = {
    "not_leader": Kind(307, "Another node leads"),
    "duplicate_parameter": Kind(400, "A query parameter stands twice"),
    "invalid_cursor": Kind(400, "The cursor was not given out for this list"),
    "invalid_encoding": Kind(400, "The percent-encoding is wrong"),
    "invalid_id": Kind(400, "An id is malformed"),
    "invalid_value": Kind(400, "A value is missing, malformed or out of range"),
    "malformed_json": Kind(400, "The body is not JSON"),
    "malformed_request": Kind(400, "The request is not HTTP"),
    "unknown_parameter": Kind(400, "A query parameter is unknown"),
    "read_only": Kind(403, "Nothing can be written here: this is the past"),
    "fact_not_found": Kind(404, "The fact is unknown"),
    "message_not_found": Kind(404, "The message is unknown"),
    "not_found": Kind(404, "The path is unknown"),
    "session_not_found": Kind(404, "The session is unknown"),
    "method_not_allowed": Kind(405, "The path does not take this method"),
    "request_timeout": Kind(408, "The body did not arrive in time"),
    "already_clustered": Kind(409, "A node belongs to a cluster already"),
    "embedder_in_use": Kind(409, "The embedder is in use already"),
    "fact_conflict": Kind(409, "The fact id is taken by another fact"),
    "job_running": Kind(409, "A verification or a rebuild is under way"),
    "member_conflict": Kind(409, "The node id is taken by another member"),
    "membership_change_pending": Kind(409, "Another change of the membership is under way"),
    "message_conflict": Kind(409, "The message id is taken by another message"),
    "message_deleted": Kind(409, "The message was deleted"),
    "reembedding_running": Kind(409, "Memory is being moved to an embedder"),
    "session_conflict": Kind(409, "The session id is taken by another session"),
    "too_large": Kind(413, "Something is too large"),
    "unsupported_media_type": Kind(415, "The body is not JSON in UTF-8"),
    "expectation_failed": Kind(417, "The expectation cannot be met"),
    "headers_too_large": Kind(431, "The head of the request is too large"),
    "internal": Kind(FAILED_STATUS, "The server failed"),
    "embedder_unavailable": Kind(503, "The embedder is away", 1),
    "no_leader": Kind(503, "No leader is known", 1),
    "not_clustered": Kind(503, "The node runs standalone"),
    "not_ready": Kind(503, "The node is not ready", 1),
    "overloaded": Kind(503, "The node has too much to do", 1),
    "transfer_failed": Kind(503, "The node that was to lead did not take over", 1),
    "unavailable": Kind(503, "The node cannot serve this now", 1),
    "catch_up_pending": Kind(504, "The learner has joined, but has not caught up; retrying waits on"),
    "outcome_unknown": Kind(504, "The outcome is unknown; retrying with the same id is safe"),
}
"""Every code, published and stable."""

_CLOSES = frozenset({408, 413})
"""The rest of the body would have to be read before the connection could go on."""

_encoder = msgspec.json.Encoder()


def respond(reply: Reply, *, request_id: str, read_index: int) -> web.Response:
    """Return the response for an answer that went well."""
    index = read_index if reply.log_index is None else reply.log_index
    headers = {**reply.headers, INDEX: str(index), REQUEST_ID: request_id, hdrs.SERVER: SERVER}
    if reply.body is None:
        return web.Response(status=EMPTY_STATUS, reason="No Content", headers=headers)
    headers[hdrs.CONTENT_TYPE] = reply.content_type
    if reply.is_begun:
        return web.Response(status=BEGUN_STATUS, reason="Accepted", body=reply.body, headers=headers)
    return web.Response(status=COMPLETE_STATUS, reason="OK", body=reply.body, headers=headers)


def respond_problem(error: EngramError, *, request_id: str, applied_index: int | None) -> web.Response:
    """Return the response for an error."""
    kind = PROBLEMS.get(error.code, PROBLEMS["internal"])
    known = kind.status != FAILED_STATUS
    body = Problem(
        type=f"urn:engram:problem:{error.code if known else 'internal'}",
        title=kind.title,
        status=kind.status,
        detail=_clean(str(error)) if known else "the server failed; the request id finds the reason in its log",
        code=error.code if known else "internal",
        request_id=request_id,
        dependencies=error.dependencies if isinstance(error, UnreadyError) else (),
    )
    headers = {hdrs.CONTENT_TYPE: PROBLEM_TYPE, REQUEST_ID: request_id, hdrs.SERVER: SERVER}
    if applied_index is not None:
        headers[INDEX] = str(applied_index)
    if kind.retry_after_s is not None:
        headers[hdrs.RETRY_AFTER] = str(kind.retry_after_s)
    if isinstance(error, MethodError):
        headers[hdrs.ALLOW] = ", ".join(error.allowed)
    if isinstance(error, RedirectError):
        headers[hdrs.LOCATION] = error.location
        headers[LEADER] = str(error.leader_id)
    response = web.Response(status=kind.status, body=_encoder.encode(body), headers=headers)
    if kind.status in _CLOSES:
        response.force_close()
    return response


def served_by_failing(response: web.Response) -> bool:
    """Return whether a response says that the server is at fault."""
    return response.status == FAILED_STATUS


def _clean(detail: str) -> str:
    return detail.encode("utf-8", "backslashreplace").decode()
