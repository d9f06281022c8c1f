"""The document says what the router does: every route, no other, with examples that work."""

import re
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from aiohttp import ClientSession

from engram.api.middleware import PROBLEMS
from engram.api.openapi import describe, problem_codes
from engram.api.route import Route
from engram.api.routes import ROUTES
from engram.api.schemas import NOT_BLANK
from engram.api.server import HttpServer
from tests.api.fake_cluster import FakeCluster
from tests.api.wire import exchange


@pytest.fixture
async def document(http: ClientSession) -> Any:
    return await (await http.get("/api-docs/openapi.json")).json()


def operation(document: Any, route: Route) -> Any:
    return document["paths"][route.path][route.method.lower()]


async def test_the_document_and_the_router_have_the_same_routes(document: Any) -> None:
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}

    assert described == {(route.method, route.path) for route in ROUTES}
    assert document["openapi"] == "3.1.0"


async def test_the_published_routes_are_all_there(document: Any) -> None:
    published = """
        GET /health|GET /ready|GET /metrics|GET /api-docs/openapi.json|GET /swagger-ui/|POST /sessions|GET /sessions
        GET /sessions/{session_id}|DELETE /sessions/{session_id}|POST /sessions/{session_id}/messages
        GET /sessions/{session_id}/messages|GET /sessions/{session_id}/messages/{message_id}
        DELETE /sessions/{session_id}/messages/{message_id}|GET /sessions/{session_id}/context
        POST /sessions/{session_id}/search|PUT /sessions/{session_id}/core-memory
        GET /sessions/{session_id}/core-memory|DELETE /sessions/{session_id}/core-memory/{fact_id}
        PUT /sessions/{session_id}/visibility|GET /cluster|POST /cluster/init|POST /cluster/add-learner
        POST /cluster/change-membership|POST /cluster/transfer-leadership|POST /cluster/snapshot
    """
    for line in published.replace("\n", "|").split("|"):
        if line.strip():
            method, path = line.split()
            assert method.lower() in document["paths"][path]


async def test_every_route_the_document_names_is_served(http: ClientSession, document: Any) -> None:
    for path, methods in document["paths"].items():
        target = path.format(session_id="s1", message_id="m1", fact_id="f1", asset="engram.js")
        for method in methods:
            answer = await http.request(method, target)
            text = await answer.text(errors="replace")  # a backup is no text
            assert answer.status != 405
            assert '"code":"not_found"' not in text


async def test_every_schema_is_valid_and_every_reference_leads_somewhere(document: Any) -> None:
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate({**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"})

    for reference in references(document):
        found = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [reference for item in value for reference in references(item)]
    if not isinstance(value, dict):
        return []
    here = [value["$ref"]] if "$ref" in value else []
    return here + [reference for item in value.values() for reference in references(item)]


def test_the_pattern_for_blank_text_and_the_check_agree() -> None:
    shown = re.compile(NOT_BLANK)

    for code in range(0x3100):
        assert bool(shown.search(chr(code))) == bool(chr(code).strip()), hex(code)


async def test_operation_ids_are_unique_and_every_operation_is_explained(document: Any) -> None:
    operations = [operation(document, route) for route in ROUTES]

    assert len({each["operationId"] for each in operations}) == len(operations)
    assert all(len(each["summary"]) > 10 for each in operations)
    assert {tag for each in operations for tag in each["tags"]} == {tag["name"] for tag in document["tags"]}


async def test_every_problem_code_is_described_where_it_can_happen(document: Any) -> None:
    said = {code for route in ROUTES for code in problem_codes(route)}

    for route in ROUTES:
        responses = operation(document, route)["responses"]
        for code in problem_codes(route):
            response = responses[str(PROBLEMS[code].status)]
            assert f"`{code}`" in response["description"]
            assert "application/problem+json" in response["content"]
    assert set(PROBLEMS) - said == {
        "fact_not_found",
        "headers_too_large",
        "internal",
        "method_not_allowed",
        "unavailable",
    }


@pytest.mark.parametrize("route", [route for route in ROUTES if route.example], ids=lambda route: route.name)
async def test_an_example_fits_its_schema_and_works(
    cluster: FakeCluster, http: ClientSession, document: Any, route: Route
) -> None:
    media = operation(document, route)["requestBody"]["content"]["application/json"]
    schema = {**media["schema"], "components": document["components"]}

    assert jsonschema_rs.is_valid(schema, media["example"])
    answer = await http.request(route.method, route.path.format(session_id="s1"), json=media["example"])
    assert answer.status in {200, 204}


async def test_answers_fit_their_schemas(cluster: FakeCluster, http: ClientSession, document: Any) -> None:
    await http.post("/sessions/s1/messages", json={"role": "user", "content": "my cat Tom", "id": "m1"})
    await http.put("/sessions/s1/core-memory", json={"fact": "likes cats", "id": "f1"})
    search = await http.post("/sessions/s1/search", json={"query": "cat", "top_k": 5, "explain": True})
    answers = {("POST", "/sessions/{session_id}/search"): await search.json()}
    cluster.refusals = {9: "it has another cluster id"}
    for route in ROUTES:
        if route.tag == "cluster" and route.method == "POST":
            answers["POST", route.path] = await (await http.post(route.path, json=route.example or {})).json()
    for route in ROUTES:
        if route.method == "GET" and route.answer is not None:
            target = route.path.format(session_id="s1", message_id="m1", fact_id="f1")
            answers[route.method, route.path] = await (await http.get(target)).json()

    assert len(answers) == 21
    for (method, path), answer in answers.items():
        good = document["paths"][path][method.lower()]["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema_rs.validate({**good, "components": document["components"]}, answer)


async def test_a_problem_fits_its_schema(cluster: FakeCluster, http: ClientSession, document: Any) -> None:
    unknown = await http.get("/nowhere")
    cluster.leader_id = 2
    elsewhere = await http.delete("/sessions/s1", allow_redirects=False)

    schema = {"$ref": "#/components/schemas/Problem", "components": document["components"]}
    for answer, status in ((unknown, 404), (elsewhere, 307)):
        assert answer.status == status
        jsonschema_rs.validate(schema, await answer.json())


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_what_only_the_leader_answers_is_told_to_be_sent_on(route: Route) -> None:
    told = msgspec.json.decode(describe([route], version="0"))["paths"][route.path][route.method.lower()]["responses"]

    assert ("307" in told) == route.writes
    if route.writes:
        assert {"Location", "Engram-Leader", "Engram-Index", "X-Request-ID"} <= told["307"]["headers"].keys()
        assert "`no_leader`" in told["503"]["description"]


async def test_the_document_is_readable_json_of_moderate_size(http: ClientSession) -> None:
    answer = await http.get("/api-docs/openapi.json")
    body = await answer.read()

    assert answer.headers["Content-Type"] == "application/json"
    assert len(body) < 240_000
    assert msgspec.json.decode(body)["info"]["title"] == "engram"


async def test_the_page_needs_no_other_host(http: ClientSession) -> None:
    page = await http.get("/swagger-ui/")
    html = await page.text()

    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert "//" not in html
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "engram.js"):
        assert f'"{name}"' in html
        asset = await http.get(f"/swagger-ui/{name}")
        assert (asset.status, len(await asset.read()) > 100) == (200, True)
    assert "//" not in await (await http.get("/swagger-ui/engram.js")).text()
    assert (await http.get("/swagger-ui/index.html")).status == 404
    assert (await http.get("/swagger-ui/..%2Fservices.py")).status == 404


@pytest.mark.parametrize("route", [route for route in ROUTES if route.example], ids=lambda route: route.name)
async def test_every_route_takes_json_in_utf_8_however_it_is_announced(
    cluster: FakeCluster, server: HttpServer, route: Route
) -> None:
    body = msgspec.json.encode(route.example)
    for kind in ('application/json; charset="UTF-8"', "Application/JSON", "application/json;charset=utf-8"):
        head = f"{route.method} {route.path.format(session_id='s1')} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"

        assert (await exchange(server, head.encode() + b"\r\n\r\n" + body)).status in {200, 204}
