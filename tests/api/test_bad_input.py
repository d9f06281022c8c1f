"""Whatever a client gets wrong: a 4xx that names it, the same on every route, and nothing is stored."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from aiohttp import ClientSession

from engram.api.app import build
from engram.api.middleware import PROBLEMS
from engram.api.openapi import problem_codes
from engram.api.route import Route
from engram.api.routes import ROUTES
from engram.api.server import HttpServer
from tests.api.fake_cluster import FakeCluster
from tests.api.node import Node, running_node
from tests.api.wire import exchange, request

WITH_BODY = [route for route in ROUTES if route.request]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Node]:
    """One node for all of them, the leader of a cluster: nothing here changes it."""
    async with running_node(tmp_path_factory.mktemp("node")) as node:
        node.cluster = FakeCluster()
        yield node


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(node: Node) -> AsyncIterator[HttpServer]:
    server = HttpServer(build(node.services()), host="127.0.0.1", port=0, stop_s=1)
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def http(server: HttpServer) -> AsyncIterator[ClientSession]:
    async with ClientSession(server.url) as client:
        yield client


def named(route: Route) -> str:
    return route.name


def target(route: Route, **ids: str) -> str:
    return route.path.format_map({"session_id": "s1", "message_id": "m1", "fact_id": "f1", "asset": "engram.js"} | ids)


class Fault(NamedTuple):
    """A wrong request."""

    route: str
    body: bytes
    status: int
    code: str
    detail: str


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


NOT_JSON: list[tuple[bytes, str]] = [
    (b"{", "it ends too early"),
    (b'{"role":"user","content":"hi"} x', "byte 3"),
    (b"{'role':'user'}", "byte 1"),
    (b'{"role":NaN}', "byte"),
    (b'{"top_k":Infinity,"query":"a"}', "byte"),
    (b'\xef\xbb\xbf{"role":"user"}', "byte 0"),
    (b'{"role":"user","content":"\xff\xfe"}', "not UTF-8 at byte 26"),
    (b'{"unknown":"\xff","role":"user","content":"hi"}', "not UTF-8 at byte 12"),
    (b'{"role":"user","content":"\\ud800"}', "broken escape"),
    (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
]

VALUES: list[tuple[str, Any, str]] = [
    ("add_messages", {}, "role is missing"),
    ("add_messages", {"role": "user"}, "content is missing"),
    ("add_messages", {"role": "user", "content": None}, "content is null; it takes a string"),
    ("add_messages", {"role": "user", "content": ""}, "content must not be blank"),
    ("add_messages", {"role": "user", "content": " \n"}, "content must not be blank"),
    ("add_messages", {"role": "User", "content": "hi"}, "role is 'User'; it takes"),
    ("add_messages", {"role": 1, "content": "hi"}, "role is 1; it takes"),
    ("add_messages", {"role": "user", "content": ["hi"]}, "content is an array; it takes a string"),
    ("add_messages", {"role": "user", "content": "hi", "id": ""}, "id has 0 characters; it takes 1 to 200"),
    ("add_messages", {"role": "user", "content": "hi", "id": "x" * 201}, "id has 201 characters"),
    (
        "add_messages",
        {"role": "user", "content": "hi", "id": "a\nb"},
        "id has the control character U+000A at position 1",
    ),
    ("add_messages", {"role": "user", "content": "hi", "id": "\x85"}, "id has the control character U+0085"),
    ("add_messages", {"role": "user", "content": "hi", "id": 7}, "id is 7; it takes a string"),
    ("add_messages", {"role": "user", "content": "hi", "name": ""}, "name has 0 characters"),
    (
        "add_messages",
        {"role": "user", "content": "hi", "timestamp": "today"},
        "timestamp is 'today'; it takes an RFC 3339",
    ),
    ("add_messages", {"role": "user", "content": "hi", "timestamp": 1.5}, "timestamp is 1.5; it takes a string"),
    ("add_messages", {"role": "user", "content": "hi", "metadata": {"a": {}}}, "metadata['a'] is an object"),
    (
        "add_messages",
        {"role": "user", "content": "hi", "metadata": {"a": 2**63}},
        "metadata 'a' is 9223372036854775808",
    ),
    ("add_messages", {"role": "user", "content": "hi", "metadata": {"\x00": 1}}, "a metadata key has the control"),
    (
        "add_messages",
        {"role": "user", "content": "hi", "metadata": {str(n): n for n in range(65)}},
        "metadata has 65 keys",
    ),
    ("add_messages", {"messages": []}, "messages has 0 items; it takes 1 to 500"),
    ("add_messages", {"messages": [{"role": "user", "content": "hi"}] * 501}, "messages has 501 items"),
    ("add_messages", {"messages": {}}, "messages is an object; it takes an array"),
    ("add_messages", {"messages": ["hi"]}, "messages[0] is 'hi'; it takes an object"),
    ("add_messages", {"messages": [{"role": "user", "content": "hi", "id": "a"}] * 2}, "id 'a' stands twice"),
    ("add_messages", {"messages": [{"role": "user", "content": "hi"}], "role": "user"}, "the body has both"),
    ("create_session", {"session_id": ""}, "session_id has 0 characters"),
    ("create_session", {"session_id": "\x7f"}, "session_id has the control character U+007F"),
    ("create_session", {"agent_id": 3}, "agent_id is 3; it takes a string"),
    ("create_session", {"metadata": []}, "metadata is an array; it takes an object"),
    ("search", {"query": "a"}, "top_k is missing"),
    ("search", {"query": "a", "top_k": 0}, "top_k is 0; it takes a whole number from 1 to 200"),
    ("search", {"query": "a", "top_k": -1}, "top_k is -1"),
    ("search", {"query": "a", "top_k": 201}, "top_k is 201"),
    ("search", {"query": "a", "top_k": 2**64 - 1}, "top_k is 18446744073709551615"),
    ("search", {"query": "a", "top_k": "5"}, "top_k is '5'"),
    ("search", {"query": "a", "top_k": 1.0}, "top_k is 1.0"),
    ("search", {"query": "a", "top_k": True}, "top_k is true"),
    ("search", {"query": " ", "top_k": 1}, "query must not be blank"),
    ("search", {"query": "a", "top_k": 1, "min_score": 1.5}, "min_score is 1.5; it takes a number from 0 to 1"),
    ("search", {"query": "a", "top_k": 1, "scope": "tenant"}, "scope is 'tenant'; it takes"),
    ("search", {"query": "a", "top_k": 1, "now": "now"}, "now is 'now'; it takes an RFC 3339"),
    ("search", {"query": "a", "top_k": 1, "filter": {"since": "x"}}, "filter.since is 'x'; it takes an RFC 3339"),
    ("search", {"query": "a", "top_k": 1, "filter": {"roles": ["boss"]}}, "filter.roles[0] is 'boss'"),
    ("pin_fact", {}, "fact is missing"),
    ("pin_fact", {"fact": "  "}, "fact must not be blank"),
    ("pin_fact", {"fact": "a", "id": "\u0000"}, "id has the control character U+0000"),
    ("put_visibility", {}, "visibility is missing"),
    ("put_visibility", {"visibility": None}, "visibility is null; it takes a string"),
    ("add_learner", {}, "node_id is missing"),
    ("add_learner", {"node_id": 4}, "addr is missing"),
    ("add_learner", {"node_id": 0, "addr": "a:1"}, f"node_id is 0; it takes a whole number from 1 to {2**63 - 1}"),
    ("add_learner", {"node_id": -1, "addr": "a:1"}, "node_id is -1"),
    ("add_learner", {"node_id": 2**63, "addr": "a:1"}, "node_id is 9223372036854775808"),
    ("add_learner", {"node_id": "4", "addr": "a:1"}, "node_id is '4'"),
    ("add_learner", {"node_id": 4, "addr": None}, "addr is null; it takes a string"),
    ("add_learner", {"node_id": 4, "addr": "node-4"}, "addr is 'node-4'; it takes host:port"),
    ("add_learner", {"node_id": 4, "addr": "a:0"}, "addr is 'a:0'; its port must be from 1 to 65535"),
    ("add_learner", {"node_id": 4, "addr": "0.0.0.0:1"}, "addr is '0.0.0.0:1', which tells other nodes nothing"),
    ("add_learner", {"node_id": 4, "addr": "a:1", "http_addr": "http://a:1"}, "http_addr is 'http://a:1'"),
    ("add_learner", {"node_id": 4, "addr": "a:1", "http_addr": 3000}, "http_addr is 3000; it takes a string"),
    ("change_membership", {}, "members is missing"),
    ("change_membership", {"members": []}, "members has 0 items; it takes at least 1"),
    ("change_membership", {"members": {}}, "members is an object; it takes an array"),
    ("change_membership", {"members": ["1"]}, "members[0] is '1'; it takes a whole number"),
    ("change_membership", {"members": [1, 0]}, "members[1] is 0; it takes a whole number"),
    ("change_membership", {"members": [1, 2, 1]}, "members names node 1 twice"),
    (
        "change_membership",
        {"members": [1, 9]},
        "node 9, which is no member: bring it in with POST /cluster/add-learner",
    ),
    ("change_membership", {"members": [1, 9]}, "members are 1, 2, 3, 4"),
    ("change_membership", {"members": [1], "retain": "yes"}, "retain is 'yes'; it takes true or false"),
    ("change_membership", {"members": [1], "remove": [4, 4]}, "remove names node 4 twice"),
    ("change_membership", {"members": [1, 4], "remove": [4]}, "node 4 stands in members and in remove"),
    ("transfer_leadership", {"node_id": 0}, "node_id is 0; it takes a whole number"),
    ("transfer_leadership", {"node_id": "2"}, "node_id is '2'; it takes a whole number"),
    ("transfer_leadership", {"node_id": 4}, "node_id is 4, which is no voter; it takes 1, 2, 3"),
    ("put_visibility", {"visibility": "public"}, "visibility is 'public'; it takes 'Private' or 'Shared'"),
]

HUGE = "9" * 5000

QUERIES: list[tuple[str, str, str, str]] = [
    ("get_context", "max_tokens=-1", "invalid_value", "max_tokens is '-1'; it takes a whole number from 0 to 1000000"),
    ("get_context", "max_tokens=1000001", "invalid_value", "max_tokens is '1000001'"),
    ("get_context", "max_tokens=8e3", "invalid_value", "max_tokens is '8e3'"),
    ("get_context", f"max_tokens={HUGE}", "invalid_value", "max_tokens is '9999"),
    ("get_context", "max_tokens=", "invalid_value", "max_tokens is ''"),
    ("get_context", "max_tokens=1&max_tokens=2", "duplicate_parameter", "'max_tokens' stands twice"),
    ("get_context", "similarity_threshold=nan", "invalid_value", "similarity_threshold is 'nan'"),
    ("get_context", "similarity_threshold=inf", "invalid_value", "similarity_threshold is 'inf'"),
    ("get_context", "similarity_threshold=1.01", "invalid_value", "it takes a number from -1 to 1"),
    ("get_context", "long_term_top_k=201", "invalid_value", "it takes a whole number from 0 to 200"),
    ("get_context", "query=+", "invalid_value", "query must not be blank"),
    ("get_context", "now=2026-05-01", "invalid_value", "now is '2026-05-01'; it takes an RFC 3339 time"),
    ("get_context", "format=xml", "invalid_value", "format is 'xml'; it takes 'text' or 'openai' or 'anthropic'"),
    ("get_context", "scope=global", "invalid_value", "scope is 'global'"),
    ("get_context", "as_off=1", "unknown_parameter", "'as_off' is unknown; it takes max_tokens, "),
    ("list_messages", "limit=0", "invalid_value", "limit is '0'; it takes a whole number from 1 to 200"),
    ("list_messages", "limit=201", "invalid_value", "limit is '201'"),
    ("list_messages", "order=up", "invalid_value", "order is 'up'; it takes 'asc' or 'desc'"),
    ("list_sessions", "cursor=AAAA", "invalid_cursor", "cursor was not given out for this list"),
    ("list_sessions", "cursor=%C3%A9", "invalid_cursor", "cursor was not given out for this list"),
    ("list_sessions", "agent_id=", "invalid_id", "agent_id has 0 characters"),
    ("list_sessions", "agent_id=%00", "invalid_id", "agent_id has the control character U+0000"),
    ("get_session", "consistency=eventual", "invalid_value", "consistency is 'eventual'"),
    ("get_session", f"min_index={2**63}", "invalid_value", "min_index is '9223372036854775808'"),
    ("get_session", "min_index=%ff", "invalid_encoding", "the query is not UTF-8 at byte 0"),
    ("get_session", "min_index=%1", "invalid_encoding", "the query has '%1'"),
]


def faults() -> Iterator[Fault]:
    for route in WITH_BODY:
        for body, detail in NOT_JSON:
            yield Fault(route.name, body, 400, "malformed_json", detail)
        for value in ([], ["user", "hi"], "hi", 7, True, None):
            yield Fault(route.name, encoded(value), 400, "invalid_value", "; it takes an object")
    for name, value, detail in VALUES:
        code = (
            "invalid_id"
            if (" characters" in detail and "name" not in detail) or "control" in detail or "stands twice" in detail
            else "invalid_value"
        )
        yield Fault(name, encoded(value), 400, code, detail)
    too_long = {"role": "user", "content": "a" * (256 * 1024 + 1)}
    detail = "has 262145 bytes; the limit is 262144 bytes"
    yield Fault("add_messages", encoded(too_long), 413, "too_large", f"content {detail}")
    yield Fault("add_messages", encoded({"messages": [too_long]}), 413, "too_large", f"messages[0].content {detail}")
    yield Fault("pin_fact", encoded({"fact": too_long["content"]}), 413, "too_large", f"fact {detail}")
    yield Fault("search", encoded({"query": too_long["content"], "top_k": 1}), 413, "too_large", f"query {detail}")
    wide = "é".encode() * (128 * 1024) + b"a"
    yield Fault("add_messages", b'{"role":"user","content":"' + wide + b'"}', 413, "too_large", f"content {detail}")
    yield Fault(
        "add_messages",
        encoded({"role": "user", "content": "a", "metadata": {"a": "b" * 16384}}),
        413,
        "too_large",
        "metadata has 16385 bytes",
    )
    yield Fault(
        "add_messages",
        b'{"role":"user","content":"a","metadata":{"a":' + HUGE.encode() + b"}}",
        400,
        "invalid_value",
        "out of range",
    )
    yield Fault("search", b'{"query":"a","top_k":1,"min_score":1e999}', 400, "invalid_value", "out of range")


BY_NAME = {route.name: route for route in ROUTES}


async def check(server: HttpServer, node: Node, data: bytes, *, status: int, code: str, detail: str) -> None:
    answer = await exchange(server, data)

    problem = answer.json()
    assert (answer.status, problem["code"]) == (status, code), problem
    assert detail in problem["detail"]
    assert len(problem["detail"]) < 500
    assert set(problem) == {"type", "title", "status", "detail", "code", "request_id"}
    assert (problem["status"], problem["title"]) == (status, PROBLEMS[code].title)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["engram-index"] == "0"
    assert node.entries == []
    assert node.cluster is not None
    assert node.cluster.done == []


FAULTS = [pytest.param(fault, id=f"{fault.route} {number}") for number, fault in enumerate(faults())]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_wrong_body_is_refused(server: HttpServer, node: Node, fault: Fault) -> None:
    route = BY_NAME[fault.route]
    data = request(route.method, target(route), fault.body)

    assert fault.code in problem_codes(route)
    await check(server, node, data, status=fault.status, code=fault.code, detail=fault.detail)


@pytest.mark.parametrize(("name", "query", "code", "detail"), QUERIES)
async def test_a_wrong_query_is_refused(
    server: HttpServer, node: Node, name: str, query: str, code: str, detail: str
) -> None:
    data = request("GET", f"{target(BY_NAME[name])}?{query}")

    assert code in problem_codes(BY_NAME[name])
    await check(server, node, data, status=400, code=code, detail=detail)


@pytest.mark.parametrize("route", ROUTES, ids=named)
async def test_every_route_refuses_a_query_parameter_that_it_does_not_know(
    server: HttpServer, node: Node, route: Route
) -> None:
    data = request(route.method, f"{target(route)}?verbose=1")

    await check(server, node, data, status=400, code="unknown_parameter", detail="query parameter 'verbose' is unknown")


@pytest.mark.parametrize(
    ("segment", "code"),
    [
        ("", "invalid_id"),
        ("%00", "invalid_id"),
        ("a%0Ab", "invalid_id"),
        ("%C2%85", "invalid_id"),
        ("x" * 201, "invalid_id"),
        ("%zz", "invalid_encoding"),
        ("%", "invalid_encoding"),
        ("%ff", "invalid_encoding"),
        ("%ED%A0%80", "invalid_encoding"),
    ],
)
@pytest.mark.parametrize("route", [route for route in ROUTES if "{session_id}" in route.path], ids=named)
async def test_every_route_refuses_a_wrong_id_in_its_path(
    server: HttpServer, node: Node, route: Route, segment: str, code: str
) -> None:
    body = encoded(route.example) if route.example else b""

    last = route.path.rpartition("/")[2].strip("{}")
    for placeholder in {"session_id", last} & {"session_id", "message_id", "fact_id"}:
        assert code in problem_codes(route)
        data = request(route.method, target(route, **{placeholder: segment}), body)
        await check(server, node, data, status=400, code=code, detail="")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "json", "*/*"]
)
@pytest.mark.parametrize("route", WITH_BODY, ids=named)
async def test_every_route_refuses_a_body_of_another_type(
    server: HttpServer, node: Node, route: Route, kind: str
) -> None:
    body = encoded(route.example)
    head = f"{route.method} {target(route)} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"

    data = head.encode() + b"\r\n\r\n" + body
    await check(server, node, data, status=415, code="unsupported_media_type", detail=f"Content-Type is '{kind}'")


@pytest.mark.parametrize("route", WITH_BODY, ids=named)
async def test_every_route_refuses_a_body_of_no_type(server: HttpServer, node: Node, route: Route) -> None:
    body = encoded(route.example)
    head = f"{route.method} {target(route)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"

    data = head.encode() + body
    await check(server, node, data, status=415, code="unsupported_media_type", detail="Content-Type is missing")


@pytest.mark.parametrize("route", [route for route in WITH_BODY if route.body_required], ids=named)
async def test_every_route_that_needs_a_body_refuses_none(server: HttpServer, node: Node, route: Route) -> None:
    head = f"{route.method} {target(route)} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\r\n"

    await check(
        server, node, head.encode(), status=400, code="malformed_json", detail="the body is not JSON: it is empty"
    )


@pytest.mark.parametrize("path", sorted({route.path for route in ROUTES}))
async def test_every_path_refuses_the_methods_that_it_does_not_take(http: ClientSession, node: Node, path: str) -> None:
    known = [route for route in ROUTES if route.path == path]
    taken = {route.method for route in known} | ({"HEAD"} if any(route.method == "GET" for route in known) else set())

    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - taken:
        answer = await http.request(method, target(known[0]))
        assert answer.status == 405
        assert set(answer.headers["Allow"].split(", ")) == taken
    assert node.entries == []


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/sessions/s1/nope", "/sessions/s1/messages/m1/x", "/health/", "/swagger-ui"]
)
async def test_an_unknown_path_is_404(server: HttpServer, node: Node, path: str) -> None:
    await check(server, node, request("GET", path), status=404, code="not_found", detail="no route has this path")
