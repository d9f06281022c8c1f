"""Cluster administration over HTTP, and reads that need more than what this node has."""

from typing import Any

import pytest
from aiohttp import ClientSession

from engram.errors import (
    CatchUpError,
    ConflictError,
    EngramError,
    InvalidError,
    NoLeaderError,
    NotReadyError,
    TimedOutError,
    TransferError,
)
from engram.events import SessionCreated, encode
from engram.projections.digests import Digests
from tests.api.fake_cluster import FakeCluster
from tests.api.node import Node


async def test_the_cluster_is_told_as_this_node_knows_it(cluster: FakeCluster, http: ClientSession, node: Node) -> None:
    node.digests = Digests(1, {"messages": "ab12"})
    cluster.refusals = {9: "it has another cluster id", 4: "its disk is another"}
    await http.post("/sessions/s1/messages", json={"role": "user", "content": "hello"})

    answer = await http.get("/cluster")

    shown = await answer.json()
    assert (answer.status, answer.headers["Engram-Index"]) == (200, "1")
    members = shown.pop("members")
    assert shown == {
        "digests": {"index": 1, "models": {"messages": "ab12"}},
        "node_id": 1,
        "cluster_id": "c1",
        "role": "Leader",
        "leader_id": 1,
        "term": 3,
        "commit_index": 7,
        "last_log_index": 8,
        "last_applied_index": 1,
        "base_index": 1,
        "is_joint": False,
        "refusals": [
            {"node_id": 4, "reason": "its disk is another"},
            {"node_id": 9, "reason": "it has another cluster id"},
        ],
    }
    assert [member["id"] for member in members] == [1, 2, 3, 4]
    assert members[1] == {
        "id": 2,
        "addr": "node-2:9001",
        "http_addr": "127.0.0.1:3002",
        "voter": True,
        "last_log_index": 7,
        "active": True,
        "state": "replicate",
    }
    assert (members[3]["http_addr"], members[3]["voter"]) == (None, False)


async def test_what_only_the_leader_knows_is_null_on_a_follower(cluster: FakeCluster, http: ClientSession) -> None:
    cluster.leader_id = 2

    shown = await (await http.get("/cluster", allow_redirects=False)).json()

    assert (shown["role"], shown["leader_id"]) == ("Follower", 2)
    assert {member["last_log_index"] for member in shown["members"]} == {None}


async def test_a_node_without_a_cluster_has_no_members_and_no_leader(cluster: FakeCluster, http: ClientSession) -> None:
    cluster.cluster_id, cluster.leader_id = "", 0

    shown = await (await http.get("/cluster")).json()

    assert (shown["cluster_id"], shown["leader_id"], shown["members"]) == (None, None, [])


async def test_the_cluster_is_formed_by_whichever_node_is_asked(cluster: FakeCluster, http: ClientSession) -> None:
    for leader_id, cluster_id in ((0, ""), (1, "c1"), (2, "c1")):
        cluster.leader_id, cluster.cluster_id = leader_id, cluster_id
        answer = await http.post("/cluster/init", allow_redirects=False)
        assert (answer.status, (await answer.json())["node_id"]) == (200, 1)

    assert cluster.done == [("initialize",)] * 3


ADDRESSES = ["node-4:9001", "10.0.0.4:1", "[fd00::4]:65535", "a_b.example:9001"]


@pytest.mark.parametrize("address", ADDRESSES)
async def test_a_learner_is_brought_in_at_any_address(cluster: FakeCluster, http: ClientSession, address: str) -> None:
    for body in (
        {"node_id": 4, "addr": address},
        {"node_id": 4, "addr": address, "http_addr": None, "whatever": 1},
        {"node_id": 4, "addr": address, "http_addr": address},
    ):
        answer = await http.post("/cluster/add-learner", json=body)
        assert (answer.status, (await answer.json())["leader_id"]) == (200, 1)

    assert cluster.done == [
        ("add_learner", 4, address, None),
        ("add_learner", 4, address, None),
        ("add_learner", 4, address, address),
    ]


@pytest.mark.parametrize(
    ("body", "done"),
    [
        ({"members": [1, 2, 3]}, ([1, 2, 3], False, [])),
        ({"members": [4, 1], "retain": True, "unknown": {}}, ([4, 1], True, [])),
        ({"members": [1, 2, 3], "remove": [4, 17]}, ([1, 2, 3], False, [4, 17])),
    ],
)
async def test_the_voters_are_set(
    cluster: FakeCluster, http: ClientSession, body: dict[str, Any], done: tuple[object, ...]
) -> None:
    answer = await http.post("/cluster/change-membership", json=body)

    assert (answer.status, (await answer.json())["is_joint"]) == (200, False)
    assert cluster.done == [("change_membership", *done)]


@pytest.mark.parametrize(
    ("body", "asked", "leader_id"),
    [(None, None, 2), ({}, None, 2), ({"node_id": None}, None, 2), ({"node_id": 3}, 3, 3)],
)
async def test_leadership_is_handed_over(
    cluster: FakeCluster, http: ClientSession, body: object, asked: int | None, leader_id: int
) -> None:
    sent = {} if body is None else {"json": body}
    answer = await http.post("/cluster/transfer-leadership", **sent)  # type: ignore[arg-type]

    assert (answer.status, await answer.json()) == (200, {"leader_id": leader_id})
    assert cluster.done == [("transfer_leadership", asked)]


async def test_a_snapshot_says_where_the_log_begins_now(cluster: FakeCluster, http: ClientSession) -> None:
    answer = await http.post("/cluster/snapshot")

    assert (answer.status, await answer.json()) == (200, {"base_index": 7})
    assert cluster.done == [("snapshot",)]


REFUSALS: list[tuple[str, EngramError, int, str | None]] = [
    ("init", ConflictError("node 2 belongs to cluster c9", code="already_clustered"), 409, None),
    ("init", NotReadyError("node 2 at node-2:9001 cannot be reached"), 503, "1"),
    ("add-learner", CatchUpError("node 4 is a learner and has 70 of 100 entries"), 504, None),
    ("add-learner", ConflictError("node 4 is a member at node-4:9001", code="member_conflict"), 409, None),
    ("add-learner", ConflictError("node 5 is being added", code="membership_change_pending"), 409, None),
    ("change-membership", ConflictError("node 5 is being added", code="membership_change_pending"), 409, None),
    ("change-membership", InvalidError("node 3 is no member any more"), 400, None),
    ("change-membership", TimedOutError("not committed within 5 s"), 504, None),
    ("transfer-leadership", TransferError("node 2 did not take over within 0.3 s"), 503, "1"),
    ("snapshot", NoLeaderError("leadership was lost"), 503, "1"),
]
BODIES = {"add-learner": {"node_id": 4, "addr": "node-4:9001"}, "change-membership": {"members": [1, 2]}}


@pytest.mark.parametrize(("route", "error", "status", "retry_after"), REFUSALS)
async def test_what_the_cluster_refuses_is_told_with_its_reason(
    cluster: FakeCluster, http: ClientSession, route: str, error: EngramError, status: int, retry_after: str | None
) -> None:
    cluster.refuse_with = error

    answer = await http.post(f"/cluster/{route}", json=BODIES.get(route, {}))

    problem = await answer.json()
    assert (answer.status, problem["code"], problem["detail"]) == (status, error.code, str(error))
    assert answer.headers.get("Retry-After") == retry_after


LINEARIZABLE = [{"params": {"consistency": "linearizable"}}, {"headers": {"Engram-Consistency": "linearizable"}}]


@pytest.mark.parametrize("how", LINEARIZABLE)
async def test_a_linearizable_read_waits_for_what_the_leader_says_and_sees_it(
    cluster: FakeCluster, http: ClientSession, node: Node, how: dict[str, Any]
) -> None:
    cluster.leader_id, cluster.readable_at = 2, 1

    early = await http.get("/sessions/s1", **how)
    node.log.propose(encode([SessionCreated(session_id="s1", at_ms=1)]))
    later = await http.get("/sessions/s1", **how)

    assert (early.status, (await early.json())["code"], early.headers["Retry-After"]) == (503, "not_ready", "1")
    assert (later.status, later.headers["Engram-Index"]) == (200, "1")
    assert cluster.done == [("read_index",)] * 2


async def test_a_linearizable_search_asks_the_leader_too(cluster: FakeCluster, http: ClientSession) -> None:
    cluster.leader_id = 2
    answer = await http.post(
        "/sessions/s1/search?consistency=linearizable", json={"query": "tea", "top_k": 1}, allow_redirects=False
    )

    assert (answer.status, cluster.done) == (200, [("read_index",)])


async def test_a_linearizable_read_needs_a_leader_and_a_local_one_does_not(
    cluster: FakeCluster, http: ClientSession
) -> None:
    cluster.leader_id, cluster.refuse_with = 0, NoLeaderError("an election is under way")

    linearizable = await http.get("/sessions", params={"consistency": "linearizable"})
    local = await http.get("/sessions", params={"consistency": "local"})

    assert (linearizable.status, linearizable.headers["Retry-After"]) == (503, "1")
    assert (await linearizable.json())["code"] == "no_leader"
    assert local.status == 200


async def test_a_node_that_lags_behind_the_index_that_is_asked_for_says_both(
    cluster: FakeCluster, http: ClientSession, node: Node
) -> None:
    cluster.leader_id = 2
    for number in range(3):
        node.log.propose(encode([SessionCreated(session_id=f"s{number}", at_ms=1)]))

    answer = await http.get("/sessions", params={"min_index": "5"})

    assert (answer.status, answer.headers["Retry-After"], answer.headers["Engram-Index"]) == (503, "1", "3")
    assert (await answer.json())["detail"] == "entry 5 was not applied here within 0.2 s; entry 3 was"


async def test_min_index_wins_over_an_older_index_of_the_leader(
    cluster: FakeCluster, http: ClientSession, node: Node
) -> None:
    cluster.readable_at = 1
    node.log.propose(encode([SessionCreated(session_id="s1", at_ms=1)]))

    answer = await http.get("/sessions", params={"min_index": "2", "consistency": "linearizable"})

    assert answer.status == 503
