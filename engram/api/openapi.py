"""The OpenAPI 3.1 document, made from the route table and the structs: what is served is what is described."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from engram.api.middleware import (
    BEGUN_STATUS,
    COMPLETE_STATUS,
    EMPTY_STATUS,
    INDEX,
    LEADER,
    PROBLEM_TYPE,
    PROBLEMS,
    REQUEST_ID,
)
from engram.api.pages import ASSET_NAMES
from engram.api.parameters import Identifier, Integer, Parameter
from engram.api.replies import JSON
from engram.api.route import Route
from engram.api.schemas import INDEX_MAX, Problem

Json = dict[str, Any]

_REF = "#/components/schemas/{name}"
_ABOUT = (
    "A memory service for LLM agents. Errors are RFC 9457 problem details with a stable `code`. Every answer carries "
    "`Engram-Index`: the log index of the write, or the one that a read saw."
)
_REQUEST_HEADERS: Mapping[str, Json] = {
    "Idempotency-Key": {
        "description": "The same key leads to the same session, however often it is sent.",
        "schema": Identifier().schema(),
    },
    "Last-Event-ID": {
        "description": "The id of the last event that was seen: a stream goes on behind it.",
        "schema": {"type": "string"},
    },
    "Prefer": {
        "description": "`return=representation` answers with the resource (RFC 7240).",
        "schema": {"type": "string"},
        "example": "return=representation",
    },
}
_ANSWER_HEADERS: Mapping[str, Json] = {
    INDEX: {"description": "Log index.", "schema": Integer(0, INDEX_MAX).schema()},
    REQUEST_ID: {"description": "The request's id, sent or made.", "schema": {"type": "string"}},
    "Engram-Message-Id": {
        "description": "The message's id, percent-encoded where needed.",
        "schema": {"type": "string"},
    },
    "Engram-Fact-Id": {"description": "The fact's id, percent-encoded where needed.", "schema": {"type": "string"}},
    "Location": {"description": "The same path and query on the leader.", "schema": {"type": "string"}},
    LEADER: {"description": "The leader's node id.", "schema": Integer(1, INDEX_MAX).schema()},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
}
_TAGS: Mapping[str, str] = {
    "sessions": "A session is one conversation, made on the first write to it.",
    "messages": "What was said; the raw material of every memory.",
    "memory": "Reading: the right memories inside an exact token budget.",
    "core memory": "Facts that stand in every context of their session.",
    "events": "The log itself: everything that happened, in order, and as it happens.",
    "cluster": "Administration; a standalone node answers 503.",
    "service": "The node itself.",
}


def describe(routes: Sequence[Route], *, version: str) -> bytes:
    """Return the document as JSON."""
    structs = [*{id(struct): struct for route in routes for struct in _structs(route)}.values(), Problem]
    _, schemas = msgspec.json.schema_components(structs, ref_template=_REF)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "engram",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "paths": _paths(routes),
        "components": {
            "schemas": schemas,
            "headers": _ANSWER_HEADERS,
            "parameters": _shared_parameters(routes),
        },
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1)


def problem_codes(route: Route) -> list[str]:
    """Return every code that a route can answer with, but for those that any HTTP server has."""
    codes = {*route.problems, "invalid_encoding", "unknown_parameter"}
    if "{" in route.path:
        codes.add("invalid_id")
    if route.path.endswith("{asset}"):
        codes.add("not_found")
    if route.parameters:
        codes |= {"invalid_value", "duplicate_parameter"}
    if route.writes:
        codes |= {"not_leader", "no_leader", "read_only"}
    if route.request:
        codes |= {
            "malformed_json", "malformed_request", "invalid_value", "invalid_id", "too_large",
            "unsupported_media_type", "request_timeout", "expectation_failed",
        }  # fmt: skip
    if "Idempotency-Key" in route.request_headers or any(
        isinstance(parameter.kind, Identifier) for parameter in route.parameters
    ):
        codes.add("invalid_id")
    return sorted(codes)


def _structs(route: Route) -> Iterable[Any]:
    return (struct for struct in (*route.request, route.answer, route.representation) if struct is not None)


def _paths(routes: Sequence[Route]) -> Json:
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return paths


def _operation(route: Route) -> Json:
    operation: Json = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": route.about or (inspect.getdoc(route.handler) or "").partition("\n")[0],
        "parameters": [
            *_path_parameters(route),
            *({"$ref": f"#/components/parameters/{name}"} for name in _parameter_names(route)),
        ],
        "responses": _responses(route),
    }
    if route.request:
        media: Json = {"schema": _any_of(route.request)}
        if route.example is not None:
            media["example"] = route.example
        operation["requestBody"] = {"required": route.body_required, "content": {JSON: media}}
    if route.request_type is not None:
        operation["requestBody"] = {"required": True, "content": {route.request_type: {"schema": {"type": "string"}}}}
    return operation


def _path_parameters(route: Route) -> Iterable[Json]:
    for segment in route.path.split("/"):
        if segment.startswith("{"):
            schema = {"type": "string", "enum": list(ASSET_NAMES)} if segment == "{asset}" else Identifier().schema()
            yield {"name": segment[1:-1], "in": "path", "required": True, "schema": schema}


def _parameter_names(route: Route) -> Iterable[str]:
    for parameter in route.parameters:
        yield parameter.name
        if parameter.header is not None:
            yield parameter.header
    yield from (REQUEST_ID, *route.request_headers)


def _shared_parameters(routes: Sequence[Route]) -> Json:
    shared: Json = {
        REQUEST_ID: {
            "name": REQUEST_ID,
            "in": "header",
            "description": "Echoed, and in the log; one is made when it is missing or not printable ASCII.",
            "schema": {"type": "string"},
        }
    }
    for name, about in _REQUEST_HEADERS.items():
        shared[name] = {"name": name, "in": "header", **about}
    for parameter in (parameter for route in routes for parameter in route.parameters):
        shared[parameter.name] = _described(parameter, parameter.name, "query")
        if parameter.header is not None:
            shared[parameter.header] = _described(parameter, parameter.header, "header")
    return shared


def _described(parameter: Parameter, name: str, place: str) -> Json:
    schema = dict(parameter.kind.schema())
    if parameter.default is not None:
        schema["default"] = parameter.default
    return {"name": name, "in": place, "description": parameter.about, "schema": schema}


def _responses(route: Route) -> Json:
    responses = dict(_good_responses(route))
    by_status: dict[int, list[str]] = {}
    for code in problem_codes(route):
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    for status, codes in sorted(by_status.items()):
        moved = ["Location", LEADER] if "not_leader" in codes else []
        retry = any(PROBLEMS[code].retry_after_s is not None for code in codes)
        responses[str(status)] = {
            "description": "; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in codes),
            "headers": _headers([INDEX, REQUEST_ID, *(["Retry-After"] if retry else []), *moved]),
            "content": {PROBLEM_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
        }
    return responses


def _good_responses(route: Route) -> Iterable[tuple[str, Json]]:
    headers = _headers([INDEX, REQUEST_ID, *route.answer_headers])
    if route.answer_type is not None:
        content: Json = {route.answer_type: {"schema": {} if route.answer_type == JSON else {"type": "string"}}}
        yield str(COMPLETE_STATUS), {"description": "As asked.", "headers": headers, "content": content}
        return
    bodies = [struct for struct in (route.answer, route.representation) if struct is not None]
    if bodies:
        about = (
            "As asked."
            if route.representation is None
            else "As asked; the resource with `Prefer: return=representation`."
        )
        content = {JSON: {"schema": _any_of(bodies)}}
        if route.stream_type is not None:
            content[route.stream_type] = {"schema": {"type": "string"}}
        status = BEGUN_STATUS if route.begins else COMPLETE_STATUS
        yield str(status), {"description": about, "headers": headers, "content": content}
    if route.may_be_empty:
        yield str(EMPTY_STATUS), {"description": "Done; there is nothing to say.", "headers": headers}


def _headers(names: Iterable[str]) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _any_of(structs: Sequence[Any]) -> Json:
    refs = [{"$ref": _REF.format(name=struct.__name__)} for struct in structs]
    return refs[0] if len(refs) == 1 else {"anyOf": refs}
