"""Moving a running node, and a cluster, to another embedder: nothing is away, nothing is lost, whoever dies in between."""

import asyncio
import json
import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web

from engram.inference.builtin import DIMENSION, MODEL
from engram.projections.lance_store import LanceError, LanceStore
from tests.cluster.asking import ask, ask_json
from tests.cluster.cluster_process import Cluster, Plan
from tests.cluster.waiting import wait_until
from tests.fake_openai import FakeOpenAI
from tests.server_process import ServerProcess
from tests.test_node import samples

BATCH = 128
"""Messages of one request to an embedder."""

WIDTH = 384
NEW = "new-model"
WITHIN_S = 30.0

pytestmark = pytest.mark.timeout(120)


class Gate:
    """Lets queries, single messages and so many batches through, and holds the rest until it is opened."""

    def __init__(self, batches: int) -> None:
        self._batches = batches
        self.opened = asyncio.Event()

    async def __call__(self, server: FakeOpenAI, request: web.Request, texts: Sequence[str]) -> web.StreamResponse:
        if len(texts) > 1:
            self._batches -= 1
            if self._batches < 0:
                await self.opened.wait()
        return server.answer(texts)


class Found(NamedTuple):
    """The best hit of a search."""

    message_id: str
    similarity: float | None
    degraded: bool


def text(number: int) -> str:
    return f"note {number} says word{number}"


async def told(port: int, method: str, path: str, body: object = None) -> dict[str, Any]:
    answer = await ask(port, method, path, body, timeout_s=20)
    assert answer is not None
    assert answer.status < 300, answer.body
    content: dict[str, Any] = json.loads(answer.body) if answer.body else {}
    return content


async def refused(port: int, body: object) -> tuple[int, str, str]:
    """Return the status, the code and the words of a refused move."""
    answer = await ask(port, "POST", "/admin/reembed", body, timeout_s=20)
    assert answer is not None
    problem = json.loads(answer.body)
    return answer.status, problem["code"], problem["detail"]


async def write(port: int, numbers: Sequence[int]) -> None:
    messages = [{"id": f"m{number}", "role": "user", "content": text(number)} for number in numbers]
    await told(port, "POST", "/sessions/s1/messages", {"messages": messages})


async def search(port: int, number: int) -> Found:
    answer = await told(port, "POST", "/sessions/s1/search", {"query": text(number), "top_k": 1, "explain": True})
    (hit,) = answer["results"]
    return Found(hit["id"], hit["explain"].get("similarity"), answer.get("degraded", False))


async def move(port: int) -> dict[str, Any]:
    return await told(port, "GET", "/admin/reembed")


async def is_embedded(port: int, number: int) -> None:
    async def is_done() -> bool:
        return bool((await told(port, "GET", f"/sessions/s1/messages/m{number}"))["embedding"] == "done")

    await wait_until(is_done, f"message {number} has vectors", within_s=WITHIN_S)


async def is_moved(port: int) -> dict[str, Any]:
    async def is_over() -> bool:
        answer = await ask_json(port, "/admin/reembed")
        return answer is not None and answer["state"] != "running" and not answer["others"]

    await wait_until(is_over, "the move is over", within_s=WITHIN_S)
    return await move(port)


async def knows_both(port: int) -> None:
    async def does() -> bool:
        answer = await ask_json(port, "/admin/reembed")
        return answer is not None and (answer["model"], answer["others"]) == (NEW, [MODEL])

    await wait_until(does, "the node searches by both models", within_s=WITHIN_S)


def wanted(server: FakeOpenAI) -> dict[str, object]:
    return {"embedder": "openai", "model": NEW, "dimension": server.dimension, "base_url": server.url}


async def all_found(port: int, numbers: Sequence[int]) -> None:
    """See each of the messages found first, by a vector of whoever has read it."""
    for number in numbers:
        found = await search(port, number)
        assert found.message_id == f"m{number}"
        assert not found.degraded
        assert found.similarity is not None
        assert found.similarity > 0.5


async def long_term(folder: Path, model: str, dimension: int, count: int) -> None:
    """See LanceDB hold so many vectors of a model, and none of another."""
    lance = LanceStore(str(folder / "data" / "lancedb"), model=model, dimension=dimension)

    async def holds() -> bool:
        with suppress(LanceError):  # it may be made anew at this moment
            return await lance.look() is None and await lance.count() == count
        return False

    await wait_until(holds, f"LanceDB holds {count} vectors of {model}", within_s=WITHIN_S)
    await lance.stop()


async def begun(port: int, server: FakeOpenAI) -> None:
    """Begin a move that stops behind its first batch; write a message while it does."""
    began = await told(port, "POST", "/admin/reembed", wanted(server))
    await write(port, [200])
    await is_embedded(port, 200)

    assert (began["state"], began["done"], began["total"], began["others"]) == ("running", BATCH, 200, [MODEL])
    assert (await refused(port, wanted(server)))[:2] == (409, "reembedding_running")
    await all_found(port, [0, BATCH - 1, BATCH, 199, 200])
    metrics = await ask(port, "GET", "/metrics")
    assert metrics is not None
    assert samples(metrics.body.decode())["engram_reembedding_remaining"] == 200 - BATCH


async def resumed(port: int) -> None:
    """See the move under way after a kill, as far as it was."""
    await knows_both(port)
    now = await move(port)

    assert (now["state"], now["done"], now["total"]) == ("running", BATCH + 1, 201)
    await all_found(port, [0, BATCH - 1, BATCH, 199, 200])


async def test_a_running_node_moves_there_and_back_through_a_kill(tmp_path: Path, free_port: int) -> None:
    server = ServerProcess(tmp_path, free_port)
    async with FakeOpenAI(WIDTH) as openai:
        openai.always = first = Gate(batches=1)
        await asyncio.to_thread(server.start)
        try:
            await write(free_port, range(200))
            await long_term(tmp_path, MODEL, DIMENSION, 200)

            await begun(free_port, openai)
            await long_term(tmp_path, MODEL, DIMENSION, 200)  # it stays with what it has until all is moved
            server.kill()
            first.opened.set()
            openai.always = second = Gate(batches=0)
            await asyncio.to_thread(server.start)
            await resumed(free_port)
            second.opened.set()
            done = await is_moved(free_port)
            await write(free_port, [201])
            await is_embedded(free_port, 201)
            await all_found(free_port, [0, BATCH - 1, BATCH, 199, 200, 201])
            await long_term(tmp_path, NEW, WIDTH, 202)

            assert (done["done"], done["total"], done["refused"], done["error"]) == (201, 201, 0, None)

            await told(free_port, "POST", "/admin/reembed", {"embedder": "builtin"})
            back = await is_moved(free_port)
            await all_found(free_port, [0, 199, 201])
            await long_term(tmp_path, MODEL, DIMENSION, 202)

            assert (back["model"], back["done"], back["total"]) == (MODEL, 202, 202)
            assert not (tmp_path / "data" / "embedder.json").exists()
            assert await asyncio.to_thread(server.stop) == 0
        finally:
            server.kill()


@pytest.mark.thorough
async def test_after_a_move_the_old_settings_carry_on_and_other_ones_stop_the_start(
    tmp_path: Path, free_port: int
) -> None:
    async with FakeOpenAI(8) as openai:
        server = ServerProcess(tmp_path, free_port)
        await asyncio.to_thread(server.start)
        try:
            await write(free_port, range(3))
            await told(free_port, "POST", "/admin/reembed", wanted(openai))
            await is_moved(free_port)
            assert await asyncio.to_thread(server.stop) == 0

            await asyncio.to_thread(server.start)
            ready = await told(free_port, "GET", "/ready")
            await all_found(free_port, [1])
            assert await asyncio.to_thread(server.stop) == 0
        finally:
            server.kill()
        (embedder,) = [each["detail"] for each in ready["dependencies"] if each["name"] == "embedder"]
        assert embedder == f"{NEW}, 8 dimensions"
        assert "memory was moved to another embedder than the settings name" in server.log

        agreed = {"EMBEDDER": "openai", "OPENAI_BASE_URL": openai.url, "EMBEDDING_MODEL": NEW}
        agreeing = ServerProcess(tmp_path, free_port, {**agreed, "EMBEDDING_DIMENSION": "8"})
        await asyncio.to_thread(agreeing.start)
        try:
            await all_found(free_port, [1])
            assert await asyncio.to_thread(agreeing.stop) == 0
        finally:
            agreeing.kill()
        other = ServerProcess(tmp_path, free_port, {**agreed, "EMBEDDING_MODEL": "third", "EMBEDDING_DIMENSION": "8"})
        try:
            with pytest.raises(
                Exception, match=r"exit code 2[\s\S]*new-model with 8 dimensions[\s\S]*`engram reembed`"
            ):
                await asyncio.to_thread(other.start)
        finally:
            other.kill()


async def test_what_cannot_be_moved_to_is_refused_and_nothing_changes(tmp_path: Path, free_port: int) -> None:
    server = ServerProcess(tmp_path, free_port)
    async with FakeOpenAI(8) as openai:
        await asyncio.to_thread(server.start)
        try:
            await write(free_port, range(3))
            right = wanted(openai)

            assert (await refused(free_port, {"embedder": "word2vec"}))[:2] == (400, "invalid_value")
            assert (await refused(free_port, {**right, "api_key": "sk-1"}))[:2] == (400, "invalid_value")
            assert await refused(free_port, {"embedder": "builtin", "model": "x"}) == (
                400,
                "invalid_value",
                "model is given, but the embedder 'builtin' has one model, in the node",
            )
            assert "base_url here, or OPENAI_API_KEY" in (await refused(free_port, {**right, "base_url": None}))[2]
            assert "dimension must be given" in (await refused(free_port, {**right, "dimension": None}))[2]
            assert (
                "secrets belong into the settings"
                in (await refused(free_port, {**right, "base_url": "http://me:secret@127.0.0.1:1"}))[2]
            )
            assert await refused(free_port, {**right, "dimension": 9}) == (
                400,
                "invalid_value",
                "the embedder sends vectors of 8 numbers; the dimension is set to 9",
            )
            assert await refused(free_port, {**right, "base_url": "http://127.0.0.1:1"}) == (
                503,
                "embedder_unavailable",
                "the embedder cannot be reached",
            )
            assert (await refused(free_port, {"embedder": "builtin"}))[:2] == (409, "embedder_in_use")

            unchanged = await move(free_port)
            await all_found(free_port, [0, 1, 2])
            assert (unchanged["state"], unchanged["model"], unchanged["done"]) == ("none", MODEL, 3)
            assert not (tmp_path / "data" / "embedder.json").exists()
            assert all("Authorization" not in request.headers for request in openai.requests)
        finally:
            server.kill()


@pytest.mark.thorough
async def test_the_key_of_the_settings_goes_to_their_server_only(tmp_path: Path, free_port: int) -> None:
    async with FakeOpenAI(8) as ours, FakeOpenAI(8) as theirs:
        environ = {"EMBEDDER": "builtin", "OPENAI_BASE_URL": ours.url, "OPENAI_API_KEY": "sk-secret"}
        server = ServerProcess(tmp_path, free_port, environ)
        await asyncio.to_thread(server.start)
        try:
            await write(free_port, range(3))
            await told(free_port, "POST", "/admin/reembed", {"embedder": "openai", "model": "ours", "dimension": 8})
            await is_moved(free_port)
            await told(free_port, "POST", "/admin/reembed", wanted(theirs))
            await is_moved(free_port)
        finally:
            server.kill()

        assert {request.headers["Authorization"] for request in ours.requests} == {"Bearer sk-secret"}
        assert theirs.requests
        assert all("Authorization" not in request.headers for request in theirs.requests)
        assert "sk-secret" not in server.log
        assert "sk-secret" not in (tmp_path / "data" / "embedder.json").read_text()


@pytest.mark.thorough
async def test_every_node_of_a_cluster_searches_by_both_and_the_next_leader_goes_on(tmp_path: Path) -> None:
    async with FakeOpenAI(8) as openai:
        openai.always = gate = Gate(batches=1)
        environ = {"EMBEDDER": "builtin", "OPENAI_BASE_URL": openai.url}
        plan = Plan(heartbeat_ms=50, election_ms=300, environ=environ)
        async with Cluster.running(tmp_path, plan, random.Random(7)) as cluster:
            leader = await cluster.find_leader()
            followers = sorted(cluster.ports.keys() - {leader})
            await write(cluster.ports[leader], range(150))

            await told(
                cluster.ports[leader],
                "POST",
                "/admin/reembed",
                {"embedder": "openai", "model": NEW, "dimension": 8},
            )
            for node_id in followers:
                await knows_both(cluster.ports[node_id])
                await all_found(cluster.ports[node_id], [0, BATCH - 1, BATCH, 149])

            await cluster.nodes[leader].kill_now()
            gate.opened.set()
            openai.always = None
            await cluster.find_leader(followers)
            for node_id in followers:
                done = await is_moved(cluster.ports[node_id])
                await all_found(cluster.ports[node_id], [0, BATCH - 1, BATCH, 149])
                assert (done["model"], done["done"], done["total"]) == (NEW, 150, 150)


@pytest.mark.thorough
async def test_a_leader_that_lacks_the_new_embedder_takes_nothing_back(tmp_path: Path) -> None:
    async with FakeOpenAI(8) as openai:
        openai.always = gate = Gate(batches=1)
        plan = Plan(heartbeat_ms=50, election_ms=300, environ={"EMBEDDER": "builtin"})
        async with Cluster.running(tmp_path, plan, random.Random(8)) as cluster:
            leader = await cluster.find_leader()
            followers = sorted(cluster.ports.keys() - {leader})
            await write(cluster.ports[leader], range(150))
            await told(cluster.ports[leader], "POST", "/admin/reembed", wanted(openai))  # its address is the leader's

            await cluster.nodes[leader].kill_now()
            gate.opened.set()
            port = cluster.ports[await cluster.find_leader(followers)]
            await write(port, [150])
            found = await search(port, 149)
            waiting = await told(port, "GET", "/sessions/s1/messages/m150")
            refusal = await refused(port, {"embedder": "builtin"})
            state = await move(port)

            assert (found.message_id, found.degraded) == ("m149", True)
            assert waiting["embedding"] == "pending"
            assert refusal[:2] == (503, "not_ready")
            assert (state["model"], state["others"], state["done"], state["total"]) == (MODEL, [NEW], 22, 150)
