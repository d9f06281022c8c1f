"""A write that reaches a node which does not lead: sent to the leader, or refused until there is one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import ClientSession

from engram.api.app import build
from engram.api.redirects import elsewhere
from engram.api.route import Route
from engram.api.routes import ROUTES
from engram.api.server import HttpServer
from engram.errors import NoLeaderError, NotLeaderError
from tests.api.fake_cluster import FakeCluster
from tests.api.node import Node, running_node
from tests.api.wire import exchange, read_answer, request

WRITES = [route for route in ROUTES if route.writes]
READS = [route for route in ROUTES if not (route.writes or route.begins) and route.path != "/cluster/init"]
MESSAGE = {"role": "user", "content": "hello"}
MEBIBYTE = 1024 * 1024


@pytest.fixture
def follower(cluster: FakeCluster) -> FakeCluster:
    cluster.leader_id = 2
    return cluster


def named(route: Route) -> str:
    return route.name


def target(route: Route) -> str:
    return route.path.format(session_id="s%2F1", message_id="m1", fact_id="f1", asset="engram.js")


def test_what_writes_is_every_method_but_get_save_for_search_and_the_forming_of_the_cluster() -> None:
    assert {route.name for route in WRITES} == {
        "create_session",
        "delete_session",
        "put_visibility",
        "add_messages",
        "delete_message",
        "pin_fact",
        "unpin_fact",
        "add_learner",
        "change_membership",
        "transfer_leadership",
        "take_snapshot",
        "import_events",
        "start_reembed",
    }


@pytest.mark.parametrize("route", WRITES, ids=named)
async def test_a_write_is_sent_to_the_leader(
    follower: FakeCluster, server: HttpServer, node: Node, route: Route
) -> None:
    answer = await exchange(server, request(route.method, target(route), headers="X-Request-ID: r1\r\n"))

    assert (answer.status, answer.json()["code"]) == (307, "not_leader")
    assert answer.headers["location"] == f"http://127.0.0.1:3002{target(route)}"
    assert answer.headers["engram-leader"] == "2"
    assert answer.headers["engram-index"] == "0"
    assert answer.headers["x-request-id"] == "r1"
    assert "retry-after" not in answer.headers
    assert (node.entries, follower.done) == ([], [])


async def test_a_node_verifies_itself_whoever_leads(follower: FakeCluster, http: ClientSession) -> None:
    answer = await http.post("/admin/verify", allow_redirects=False)

    assert answer.status == 202
    assert (await answer.json())["what"] == "verify"


async def test_a_node_rebuilds_its_own_whoever_leads(follower: FakeCluster, http: ClientSession) -> None:
    answer = await http.post("/admin/rebuild", json={"what": "lancedb"}, allow_redirects=False)

    assert (answer.status, (await answer.json())["state"]) == (202, "running")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("route", READS, ids=named)
async def test_a_read_is_answered_where_it_is_asked(
    follower: FakeCluster, http: ClientSession, route: Route, method: str
) -> None:
    if route.method == "GET":
        answer = await http.request(method, target(route), allow_redirects=False)
    else:
        answer = await http.post(target(route), json=route.example, allow_redirects=False)

    assert answer.status in {200, 404}
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    ("sent", "location"),
    [
        ("/sessions/a%2fb%20c/messages?x=1&y=%zz&x=2", "/sessions/a%2fb%20c/messages?x=1&y=%zz&x=2"),
        ("/sessions/s1/messages?", "/sessions/s1/messages?"),
        ("/sessions/a'b\"c/messages", "/sessions/a'b\"c/messages"),
        ("http://engram.example:80/sessions/s1/messages?a=b", "/sessions/s1/messages?a=b"),
    ],
)
async def test_the_location_has_path_and_query_as_they_came(
    follower: FakeCluster, server: HttpServer, sent: str, location: str
) -> None:
    answer = await exchange(server, request("POST", sent))

    assert answer.status == 307
    assert answer.headers["location"] == f"http://127.0.0.1:3002{location}"


def test_what_no_url_may_have_in_it_is_escaped_in_the_location(follower: FakeCluster) -> None:
    error = elsewhere(follower, "/sessions/é\udcff%61/messages")

    assert getattr(error, "location", None) == "http://127.0.0.1:3002/sessions/%C3%A9%FF%61/messages"


def test_a_leader_with_an_ipv6_address_is_in_brackets(cluster: FakeCluster) -> None:
    cluster.leader_id = 3

    error = elsewhere(cluster, "/sessions")

    assert getattr(error, "location", None) == "http://[fd00::3]:3003/sessions"


def no_leader(cluster: FakeCluster) -> None:
    cluster.leader_id = 0


def leader_without_address(cluster: FakeCluster) -> None:
    cluster.leader_id, cluster.http[2] = 2, ""


def leader_with_our_address(cluster: FakeCluster) -> None:
    cluster.leader_id, cluster.http[2] = 2, cluster.http[1]


def no_cluster_yet(cluster: FakeCluster) -> None:
    cluster.leader_id, cluster.cluster_id = 0, ""


@pytest.mark.parametrize(
    ("how", "detail"),
    [
        (no_leader, "no leader is known"),
        (leader_without_address, "node 2 leads, but where it serves HTTP is not known"),
        (leader_with_our_address, "node 2 leads, but where it serves HTTP is not known"),
        (no_cluster_yet, "belongs to no cluster yet: POST /cluster/init forms one"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("route", WRITES, ids=named)
async def test_a_write_without_a_leader_to_go_to_is_to_be_tried_again(
    cluster: FakeCluster, server: HttpServer, node: Node, route: Route, how: Callable[[FakeCluster], None], detail: str
) -> None:
    how(cluster)

    answer = await exchange(server, request(route.method, target(route)))

    assert (answer.status, answer.json()["code"], answer.headers["retry-after"]) == (503, "no_leader", "1")
    assert detail in answer.json()["detail"]
    assert "location" not in answer.headers
    assert node.entries == []


async def test_the_leader_writes_itself(cluster: FakeCluster, http: ClientSession, node: Node) -> None:
    assert (await http.post("/sessions/s1/messages", json=MESSAGE, allow_redirects=False)).status == 204
    assert len(node.entries) == 1


async def test_leadership_lost_under_way_sends_the_write_on(
    cluster: FakeCluster, http: ClientSession, node: Node
) -> None:
    def lose(data: bytes) -> None:
        cluster.leader_id = 3
        raise NotLeaderError(3)

    node.log.propose = lose  # type: ignore[method-assign,assignment]
    answer = await http.post("/sessions/s1/messages", json=MESSAGE, allow_redirects=False)

    assert (answer.status, answer.headers["Engram-Leader"]) == (307, "3")
    assert answer.headers["Location"] == "http://[fd00::3]:3003/sessions/s1/messages"


async def test_leadership_lost_and_won_again_under_way_sends_nobody_in_a_circle(
    cluster: FakeCluster, http: ClientSession, node: Node
) -> None:
    node.log.refuse_with = NotLeaderError(2)

    answer = await http.post("/sessions/s1/messages", json=MESSAGE, allow_redirects=False)

    assert (answer.status, (await answer.json())["code"]) == (503, "no_leader")


async def test_a_read_that_needs_a_leader_is_not_sent_to_it(follower: FakeCluster, http: ClientSession) -> None:
    follower.refuse_with = NotLeaderError(2)

    answer = await http.get("/sessions", params={"consistency": "linearizable"}, allow_redirects=False)

    assert (answer.status, (await answer.json())["code"], answer.headers["Retry-After"]) == (503, "no_leader", "1")


def head(length: int, extra: str = "") -> bytes:
    lines = f"POST /sessions/s1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{extra}"
    return f"{lines}Content-Length: {length}\r\n\r\n".encode()


async def test_a_write_is_sent_on_before_its_body_comes(follower: FakeCluster, server: HttpServer) -> None:
    assert (await exchange(server, head(MEBIBYTE))).status == 307


async def test_a_connection_goes_on_behind_the_body_of_a_write_that_was_sent_on(
    follower: FakeCluster, server: HttpServer
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head(MEBIBYTE))
    first = await read_answer(reader)
    writer.write(b" " * MEBIBYTE + request("GET", "/health"))
    second = await read_answer(reader)
    writer.close()

    assert (first.status, second.status) == (307, 200)
    assert "connection" not in first.headers


async def test_pipelined_writes_are_sent_on_one_by_one(follower: FakeCluster, server: HttpServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    body = b'{"role":"user","content":"' + b"a" * 100_000 + b'"}'
    targets = [f"/sessions/s{number}/messages" for number in range(5)]
    writer.write(b"".join(request("POST", target, body) for target in targets) + request("GET", "/health"))
    answers = [await read_answer(reader) for _ in range(6)]
    writer.close()

    assert [answer.status for answer in answers] == [307] * 5 + [200]
    assert [answer.headers["location"] for answer in answers[:5]] == [f"http://127.0.0.1:3002{at}" for at in targets]


async def test_a_client_that_waits_to_continue_is_sent_on_at_once_and_the_connection_ends(
    follower: FakeCluster, server: HttpServer
) -> None:
    answer = await exchange(server, head(MEBIBYTE, "Expect: 100-continue\r\n"))

    assert (answer.status, answer.headers["connection"]) == (307, "close")


async def test_a_body_that_goes_on_for_ever_does_not_hold_the_connection(
    follower: FakeCluster, server: HttpServer
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head(MEBIBYTE))
    assert (await read_answer(reader)).status == 307

    assert await reader.read() == b""
    writer.close()


@pytest.fixture
async def leader(follower: FakeCluster, tmp_path: Path) -> AsyncIterator[Node]:
    """Run the node that leads."""
    (tmp_path / "leader").mkdir()
    async with running_node(tmp_path / "leader") as node:
        node.cluster = FakeCluster()
        server = HttpServer(build(node.services()), host="127.0.0.1", port=0, stop_s=1)
        await server.start()
        follower.http[2] = f"127.0.0.1:{server.port}"
        yield node
        await server.stop()


@pytest.mark.parametrize("expects", [False, True])
async def test_a_client_that_follows_reaches_the_leader_with_its_body(
    leader: Node, http: ClientSession, node: Node, *, expects: bool
) -> None:
    batch = {"messages": [{"role": "user", "content": "a" * 100_000} for _ in range(10)]}

    for _ in range(3):
        assert (await http.post("/sessions/s1/messages", json=batch, expect100=expects)).status == 200

    assert (len(leader.entries), len(node.entries)) == (3, 0)


async def test_a_write_that_asks_to_continue_and_is_wrong_ends_the_connection_too(
    cluster: FakeCluster, server: HttpServer
) -> None:
    lines = "POST /nowhere HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    answer = await exchange(server, lines.encode())

    assert (answer.status, answer.headers["connection"]) == (404, "close")


def test_without_a_cluster_there_is_no_leader_to_go_to() -> None:
    assert isinstance(elsewhere(None, "/sessions"), NoLeaderError)


async def test_a_node_alone_sends_nobody_anywhere(node: Node) -> None:
    server = HttpServer(build(node.services()), host="127.0.0.1", port=0, stop_s=1)
    await server.start()
    node.log.refuse_with = NotLeaderError(2)
    answer = await exchange(server, request("DELETE", "/sessions/s1"))
    await server.stop()

    assert (answer.status, answer.json()["code"]) == (503, "no_leader")
