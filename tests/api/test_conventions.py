"""What holds for every answer: its index, its request id, its metrics, and the words of what went wrong."""

import asyncio
from collections.abc import Iterator

import pytest
from aiohttp import ClientSession

from engram.api.app import build
from engram.api.errors import MediaTypeError, MethodError, UnreadyError
from engram.api.middleware import PROBLEMS
from engram.api.server import HttpServer
from engram.api.services import Dependency
from engram.errors import (
    CorruptionError,
    EngramError,
    FatalError,
    NoLeaderError,
    NotClusteredError,
    NotReadyError,
    OverloadedError,
    RequestError,
    TimedOutError,
)
from engram.events import SessionCreated, encode
from engram.inference.embedder import EmbedderError
from tests.api.node import Node
from tests.api.wire import exchange

MESSAGE = {"role": "user", "content": "hello"}

REFUSALS: list[tuple[EngramError, int, str | None]] = [
    (NoLeaderError("an election is under way"), 503, "1"),
    (OverloadedError("64 MiB wait to be committed"), 503, "1"),
    (NotReadyError("2 entries behind"), 503, "1"),
    (EmbedderError("away", permanent=False), 503, "1"),
    (TimedOutError("entry 7 was not applied within 5 s"), 504, None),
]


@pytest.mark.parametrize(("error", "status", "retry_after"), REFUSALS, ids=str)
async def test_an_error_below_becomes_its_problem(
    http: ClientSession, node: Node, error: EngramError, status: int, retry_after: str | None
) -> None:
    node.log.refuse_with = error

    answer = await http.post("/sessions/s1/messages", json=MESSAGE)

    problem = await answer.json()
    assert (answer.status, problem["code"], problem["detail"]) == (status, error.code, str(error))
    assert problem["type"] == f"urn:engram:problem:{error.code}"
    assert answer.headers.get("Retry-After") == retry_after


@pytest.mark.parametrize("error", [CorruptionError("entry 7: secret"), RuntimeError("secret"), KeyError("secret")])
async def test_a_failure_of_ours_is_500_and_keeps_its_reason_to_itself(
    http: ClientSession, node: Node, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    node.log.refuse_with = error

    answer = await http.post("/sessions/s1/messages", json=MESSAGE, headers={"X-Request-ID": "r1"})

    assert (answer.status, (await answer.json())["code"]) == (500, "internal")
    assert "secret" not in await answer.text()
    assert "Traceback" not in await answer.text()
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.__dict__["request_id"] == "r1"


async def test_a_standalone_node_says_so_before_it_looks_at_anything_else(http: ClientSession) -> None:
    for method, path in (
        ("GET", "/cluster"),
        ("POST", "/cluster/init"),
        ("POST", "/cluster/add-learner"),
        ("POST", "/cluster/change-membership"),
        ("POST", "/cluster/transfer-leadership"),
        ("POST", "/cluster/snapshot"),
    ):
        answer = await http.request(method, path, data=b"not json")
        assert (answer.status, (await answer.json())["code"]) == (503, "not_clustered")
        assert "Retry-After" not in answer.headers


def errors_of(base: type[EngramError]) -> Iterator[type[EngramError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from errors_of(kind)


def test_every_code_of_an_error_that_a_client_can_cause_is_published() -> None:
    unpublished = {
        kind.code
        for kind in errors_of(EngramError)
        if not issubclass(kind, FatalError) and kind is not RequestError and kind.code not in PROBLEMS
    }

    assert unpublished <= {"invalid_request"}
    assert {NotClusteredError, MethodError, MediaTypeError, UnreadyError} <= set(errors_of(EngramError))


@pytest.mark.parametrize("sent", ["r1", "x" * 128, "a b/c:d"])
async def test_a_request_id_is_echoed(http: ClientSession, sent: str) -> None:
    for path in ("/health", "/nowhere"):
        assert (await http.get(path, headers={"X-Request-ID": sent})).headers["X-Request-ID"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 129, "é"])
async def test_a_useless_request_id_is_replaced(http: ClientSession, sent: str) -> None:
    made = [(await http.get("/health", headers={"X-Request-ID": sent})).headers["X-Request-ID"] for _ in range(2)]

    assert sent not in made
    assert made[0] != made[1]


async def test_every_answer_carries_the_index_it_was_given_at(http: ClientSession) -> None:
    await http.post("/sessions/s1/messages", json=MESSAGE)

    for path in ("/health", "/metrics", "/sessions/s1", "/nowhere", "/cluster", "/swagger-ui/"):
        assert (await http.get(path)).headers["Engram-Index"] == "1"


async def test_a_read_does_not_promise_what_was_written_while_it_ran(http: ClientSession, node: Node) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()
    read = node.store.session

    async def slow(session_id: str, tenant: str) -> object:
        asked.set()
        await go_on.wait()
        return await read(session_id, tenant)

    await http.post("/sessions/s1/messages", json=MESSAGE)
    node.store.session = slow  # type: ignore[method-assign,assignment]
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(http.get("/sessions/s1"))
        await asked.wait()
        await http.post("/sessions/s1/messages", json=MESSAGE)
        go_on.set()

    assert reading.result().headers["Engram-Index"] == "1"


@pytest.mark.parametrize("path", ["/sessions", "/sessions/s1", "/sessions/s1/messages", "/sessions/s1/context"])
async def test_a_read_waits_for_the_index_it_needs(http: ClientSession, path: str) -> None:
    await http.post("/sessions/s1/messages", json=MESSAGE)

    assert (await http.get(path, params={"min_index": "1", "consistency": "linearizable"})).status == 200
    early = await http.get(path, headers={"Engram-Min-Index": "2", "Engram-Consistency": "local"})
    assert (early.status, (await early.json())["code"]) == (503, "not_ready")


async def test_nothing_is_denied_or_taken_while_what_was_acknowledged_is_still_being_folded(node: Node) -> None:
    node.floor_index = 2
    server = HttpServer(build(node.services()), host="127.0.0.1", port=0, stop_s=1)
    await server.start()
    async with ClientSession(server.url) as http:
        early = [
            await http.get("/sessions"),
            await http.get("/sessions/s1/context"),
            await http.post("/sessions/s1/search", json={"query": "tea", "top_k": 1}),
            await http.post("/sessions/s1/messages", json=MESSAGE),
            await http.delete("/sessions/s1"),
        ]
        alive = await http.get("/health")
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(http.get("/sessions/s1"))
            for _ in range(2):
                node.log.propose(encode([SessionCreated(session_id="s1", at_ms=1)]))
        later = waiting.result()
    await server.stop()

    assert [(answer.status, (await answer.json())["code"]) for answer in early] == [(503, "not_ready")] * len(early)
    assert (alive.status, later.status, later.headers["Engram-Index"]) == (200, 200, "2")


async def test_head_is_get_without_the_body(http: ClientSession) -> None:
    await http.post("/sessions/s1/messages", json=MESSAGE)

    for path in ("/health", "/sessions/s1", "/swagger-ui/swagger-ui.css"):
        head, get = await http.head(path), await http.get(path)
        assert (head.status, await head.read()) == (200, b"")
        assert head.headers["Content-Length"] == str(len(await get.read()))


async def test_requests_are_counted_by_template_and_never_by_path(http: ClientSession) -> None:
    await http.post("/sessions/secret-1/messages", json=MESSAGE)
    await http.get("/sessions/secret-1")
    await http.get("/secret-2")
    await http.request("PROPFIND", "/sessions")
    await http.patch("/sessions/secret-3")

    shown = await (await http.get("/metrics")).text()
    for labels in (
        'method="POST",route="/sessions/{session_id}/messages",status="204"',
        'method="GET",route="/sessions/{session_id}",status="200"',
        'method="GET",route="unmatched",status="404"',
        'method="other",route="/sessions",status="405"',
        'method="other",route="/sessions/{session_id}",status="405"',
    ):
        assert f"engram_http_requests_total{{{labels}}} 1.0" in shown
    assert 'engram_http_request_duration_seconds_count{method="GET",route="unmatched"} 1.0' in shown
    assert "secret" not in shown


async def test_what_is_no_request_is_counted_too(server: HttpServer, http: ClientSession) -> None:
    await exchange(server, b"\x16\x03\x01\r\n\r\n")

    shown = await (await http.get("/metrics")).text()
    assert 'engram_http_requests_total{method="other",route="unmatched",status="400"} 1.0' in shown


async def test_metrics_come_in_openmetrics_when_asked_for(http: ClientSession) -> None:
    plain = await http.get("/metrics")
    asked = await http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert plain.headers["Content-Type"].startswith("text/plain; version=")
    assert asked.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert (await asked.text()).endswith("# EOF\n")


async def test_a_node_that_lacks_what_it_needs_is_not_ready_and_says_what(http: ClientSession, node: Node) -> None:
    node.dependencies = [
        Dependency("log", ready=True, detail="index 7"),
        Dependency("lancedb", ready=False, detail="away", required=False),
    ]
    assert (await http.get("/ready")).status == 200

    node.dependencies.append(Dependency("projections", ready=False, detail="9 entries behind"))
    answer = await http.get("/ready")

    problem = await answer.json()
    assert (answer.status, problem["code"], problem["detail"]) == (503, "not_ready", "not ready: projections")
    assert [(each["name"], each["ready"]) for each in problem["dependencies"]] == [
        ("log", True),
        ("lancedb", False),
        ("projections", False),
    ]
    assert (await http.get("/health")).status == 200
