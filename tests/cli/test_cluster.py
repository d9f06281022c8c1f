"""`engram cluster` against nodes that serve HTTP, with clusters that only write down what they are told."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from engram.api.app import build
from engram.api.server import HttpServer
from engram.errors import CatchUpError, ConflictError
from tests.api.fake_cluster import FakeCluster
from tests.api.node import running_node
from tests.cli.conftest import Output, Run
from tests.cli.data_folder import DataFolder


@dataclass(frozen=True, slots=True)
class Nodes:
    """Two nodes of a cluster that 1 leads, and the command line."""

    leader: FakeCluster
    follower: FakeCluster
    leader_url: str
    follower_url: str
    run: Run

    async def cluster(self, *argv: str, url: str = "") -> Output:
        """Run a command against the follower, or another URL."""
        return await asyncio.to_thread(self.run, "cluster", *argv, "--url", url or self.follower_url)


@pytest.fixture
async def nodes(folder: DataFolder, tmp_path: Path, run: Run) -> AsyncIterator[Nodes]:
    leader, follower = FakeCluster(1), FakeCluster(2)
    servers: list[HttpServer] = []
    async with AsyncExitStack() as stack:
        for number, cluster in enumerate((leader, follower)):
            (tmp_path / f"node-{number}").mkdir()
            node = await stack.enter_async_context(running_node(tmp_path / f"node-{number}"))
            node.cluster = cluster
            server = HttpServer(build(node.services()), host="127.0.0.1", port=0, stop_s=1)
            await server.start()
            stack.push_async_callback(server.stop)
            servers.append(server)
        for cluster in (leader, follower):
            cluster.http |= {1: f"127.0.0.1:{servers[0].port}", 2: f"127.0.0.1:{servers[1].port}"}
        yield Nodes(leader, follower, servers[0].url, servers[1].url, run)


async def test_the_leader_tells_how_far_everyone_is(nodes: Nodes) -> None:
    result = await nodes.cluster("status", url=nodes.leader_url)

    lines = result.out.splitlines()
    assert result.code == 0
    assert lines[:3] == [
        "node 1: Leader in cluster c1, term 3",
        "node 1 leads",
        "log: 8, committed: 7, applied: 0, base: 1",
    ]
    rows = [line.split() for line in lines[3:] if "9001" in line]
    assert rows == [
        ["1", "node-1:9001", nodes.leader.http[1], "voter", "7", "1", "leads"],
        ["2", "node-2:9001", nodes.leader.http[2], "voter", "7", "1", "replicate"],
        ["3", "node-3:9001", "[fd00::3]:3003", "voter", "7", "1", "replicate"],
        ["4", "node-4:9001", "?", "learner", "7", "1", "replicate"],
    ]


async def test_a_follower_tells_what_it_knows_and_whom_it_cannot_talk_to(nodes: Nodes) -> None:
    nodes.follower.refusals = {4: "its disk is [another]"}

    result = await nodes.cluster("status")

    assert result.code == 0
    assert "node 2: Follower in cluster c1, term 3" in result.out
    assert "only the leader knows how far the members are" in result.out
    assert "node 4 and this one refuse each other: its disk is [another]" in result.out


async def test_a_node_that_waits_for_a_cluster_says_so(nodes: Nodes) -> None:
    nodes.follower.cluster_id, nodes.follower.leader_id = "", 0

    result = await nodes.cluster("status")

    assert (result.code, result.out) == (0, "node 2 belongs to no cluster yet\n")


async def test_a_node_that_was_removed_says_so(nodes: Nodes) -> None:
    del nodes.follower.http[2]

    result = await nodes.cluster("status")

    assert (result.code, result.out.splitlines()[1]) == (0, "node 2 is no member any more")


async def test_a_status_in_json_is_the_answer_as_it_came(nodes: Nodes) -> None:
    result = await nodes.cluster("status", "--json")

    shown = json.loads(result.out)
    assert (shown["node_id"], shown["role"], len(shown["members"])) == (2, "Follower", 4)


async def test_the_node_that_is_asked_forms_the_cluster(nodes: Nodes) -> None:
    result = await nodes.cluster("init")

    assert (result.code, nodes.follower.done, nodes.leader.done) == (0, [("initialize",)], [])
    assert result.err == "cluster c1 has nodes 1, 2, 3, 4 (learner); node 1 leads\n"


async def test_a_node_is_added_at_the_leader_and_votes_when_it_has_caught_up(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind: Iterator[Exception | None] = iter([CatchUpError("node 4 has 10 of 90"), CatchUpError("80 of 90"), None])
    add = nodes.leader.add_learner

    async def slowly(node_id: int, address: str, http_address: str | None) -> None:
        nodes.leader.refuse_with = next(behind)
        await add(node_id, address, http_address)

    monkeypatch.setattr(nodes.leader, "add_learner", slowly)
    result = await nodes.cluster("add", "4", "node-4:9001", "--http", "node-4:3000")

    assert nodes.leader.done == [
        ("add_learner", 4, "node-4:9001", "node-4:3000"),
        ("change_membership", [1, 2, 3, 4], False, []),
    ]
    assert (result.code, nodes.follower.done) == (0, [])
    assert result.err.splitlines()[1:4] == [
        "node 4 has 10 of 90",
        "80 of 90",
        "node 4 has caught up and gets a vote",
    ]


async def test_a_learner_is_added_without_a_vote(nodes: Nodes) -> None:
    result = await nodes.cluster("add", "4", "node-4:9001", "--learner")

    assert (result.code, nodes.leader.done) == (0, [("add_learner", 4, "node-4:9001", None)])


async def test_adding_who_votes_already_changes_no_votes(nodes: Nodes) -> None:
    result = await nodes.cluster("add", "3", "node-3:9001")

    assert (result.code, nodes.leader.done) == (0, [("add_learner", 3, "node-3:9001", None)])


@pytest.mark.parametrize(("node_id", "voters"), [(3, [1, 2]), (1, [2, 3]), (4, [1, 2, 3])])
async def test_a_node_is_removed_from_what_the_leader_knows(nodes: Nodes, node_id: int, voters: list[int]) -> None:
    nodes.follower.http.pop(3)  # what a follower knows may be old, and must not throw anybody out

    result = await nodes.cluster("remove", str(node_id))

    assert (result.code, nodes.leader.done) == (0, [("change_membership", voters, False, [node_id])])
    assert result.err.startswith(f"node {node_id} is removed")


async def test_who_is_no_member_is_not_removed(nodes: Nodes) -> None:
    result = await nodes.cluster("remove", "9")

    assert (result.code, nodes.leader.done) == (1, [])
    assert result.err == "engram: node 9 is no member; members are 1, 2, 3, 4 (learner)\n"


async def test_the_last_voter_is_not_removed(nodes: Nodes) -> None:
    nodes.leader.http = {1: nodes.leader.http[1], 4: ""}

    result = await nodes.cluster("remove", "1")

    assert (result.code, nodes.leader.done) == (1, [])
    assert "node 1 is the only one that votes" in result.err


async def test_nobody_is_removed_while_the_leader_is_not_known(nodes: Nodes) -> None:
    nodes.follower.leader_id = 0
    unknown = await nodes.cluster("remove", "3")
    nodes.follower.leader_id, nodes.leader.leader_id = 1, 3
    former = await nodes.cluster("remove", "3")
    nodes.leader.leader_id, nodes.leader.cluster_id = 1, "c2"
    stranger = await nodes.cluster("remove", "3")

    assert (unknown.code, former.code, stranger.code) == (1, 1, 1)
    assert "node 2 knows no leader" in unknown.err
    assert "does not lead any more" in former.err
    assert "does not lead any more" in stranger.err
    assert nodes.leader.done == []


@pytest.mark.parametrize(("argv", "asked", "leader_id"), [(["3"], 3, 3), ([], None, 2)])
async def test_leadership_is_handed_over_by_whoever_has_it(
    nodes: Nodes, argv: list[str], asked: int | None, leader_id: int
) -> None:
    result = await nodes.cluster("transfer", *argv)

    assert (result.code, result.err) == (0, f"node {leader_id} leads\n")
    assert nodes.leader.done == [("transfer_leadership", asked)]


async def test_what_the_node_refuses_is_one_line(nodes: Nodes) -> None:
    nodes.leader.refuse_with = ConflictError("node 5 is being added", code="membership_change_pending")

    result = await nodes.cluster("add", "4", "node-4:9001")

    assert result.code == 1
    assert result.err.splitlines()[-1] == "engram: node 5 is being added (membership_change_pending)"
    assert "Traceback" not in result.err


async def test_nodes_that_send_one_another_the_request_are_left(nodes: Nodes) -> None:
    nodes.leader.leader_id = 2  # each takes the other for the leader

    result = await nodes.cluster("transfer")

    assert (result.code, nodes.leader.done, nodes.follower.done) == (1, [], [])
    assert "send one another the request" in result.err


async def test_a_leader_that_cannot_be_reached_is_named(nodes: Nodes, free_port: int) -> None:
    nodes.follower.http[1] = f"127.0.0.1:{free_port}"

    result = await nodes.cluster("transfer")

    assert result.code == 1
    assert result.err.startswith(
        f"engram: no node answers at http://127.0.0.1:{free_port}/cluster/transfer-leadership: "
    )


@pytest.mark.parametrize("status", [200, 404])
async def test_something_else_that_answers_is_no_node(nodes: Nodes, status: int) -> None:
    async def greet(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, text="<html>")

    runner = web.ServerRunner(web.Server(greet))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    result = await nodes.cluster("status", url=f"127.0.0.1:{site.port}/")
    await runner.cleanup()

    assert (result.code, result.out) == (1, "")
    assert f"what answers at http://127.0.0.1:{site.port}/cluster" in result.err


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("[::]", "[::1]")])
def test_the_node_of_the_settings_is_asked_by_default(
    folder: DataFolder, run: Run, monkeypatch: pytest.MonkeyPatch, free_port: int, host: str, shown: str
) -> None:
    monkeypatch.setenv("ENGRAM_BIND_ADDR", f"{host}:{free_port}")

    result = run("cluster", "status")

    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"engram: no node answers at http://{shown}:{free_port}/cluster: ")


def test_any_free_port_names_no_node(folder: DataFolder, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAM_BIND_ADDR", "127.0.0.1:0")

    result = run("cluster", "status")

    assert result.code == 2
    assert "--url says where the node is" in result.err


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nonsense"],
        ["add", "4"],
        ["add", "four", "node-4:9001"],
        ["add", "0", "node-4:9001"],
        ["remove"],
        ["transfer", "-1"],
        ["status", "--url", "ftp://node-1"],
        ["status", "--url", "http://[::1"],
        ["status", "--url", "http://node-1:0"],
        ["status", "--url", ""],
    ],
)
def test_arguments_that_make_no_sense_are_refused(folder: DataFolder, run: Run, argv: list[str]) -> None:
    result = run("cluster", *argv)

    assert (result.code, result.out) == (2, "")
    assert "error: " in result.err


async def test_a_standalone_node_has_no_cluster_to_show(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    async with running_node(tmp_path / "alone") as node:
        server = HttpServer(build(node.services()), host="127.0.0.1", port=0, stop_s=1)
        await server.start()
        result = await nodes.cluster("status", url=server.url)
        await server.stop()

    assert result.code == 1
    assert result.err.endswith("NODE_ID and RAFT_ADDR make it part of a cluster (not_clustered)\n")
