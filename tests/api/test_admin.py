"""Verifying and rebuilding over HTTP: a job is begun, and looked at."""

from pathlib import Path

import aiohttp
import pytest

from engram.database import Database
from tests.api.node import Node

MESSAGE = {"role": "user", "content": "Ann moved to Oslo", "id": "m1"}


async def ended(http: aiohttp.ClientSession, path: str) -> dict[str, object]:
    """Return a job when it is over."""
    while True:
        async with http.get(path) as answer:
            job: dict[str, object] = await answer.json()
        if job["state"] != "running":
            return job


async def test_before_the_first_job_there_is_none(http: aiohttp.ClientSession) -> None:
    async with http.get("/admin/verify") as answer:
        job = await answer.json()

    assert (answer.status, job["state"], job["what"]) == (200, "none", None)


async def test_a_verification_is_begun_and_ends(http: aiohttp.ClientSession) -> None:
    async with http.post("/sessions/s1/messages", json=MESSAGE):
        pass
    async with http.post("/admin/verify") as answer:
        begun = await answer.json()

    job = await ended(http, "/admin/verify")

    assert (answer.status, begun["state"], begun["what"]) == (202, "running", "verify")
    assert (job["state"], job["findings"], job["error"], job["index"]) == ("done", [], None, 1)


async def test_another_job_is_refused_meanwhile(http: aiohttp.ClientSession, node: Node) -> None:
    node.upkeep.start("verify")

    async with http.post("/admin/rebuild", json={"what": "lancedb"}) as answer:
        problem = await answer.json()

    assert (answer.status, problem["code"]) == (409, "job_running")
    assert "verify is under way" in problem["detail"]


@pytest.mark.parametrize("body", [{}, {"what": "everything"}, {"what": "redis"}])
async def test_what_cannot_be_rebuilt_is_refused(http: aiohttp.ClientSession, body: dict[str, str]) -> None:
    async with http.post("/admin/rebuild", json=body) as answer:
        problem = await answer.json()

    assert (answer.status, problem["code"]) == (400, "invalid_value")


async def test_searches_find_what_the_log_says_once_the_read_models_are_built_again(
    http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async def found(query: str) -> list[str]:
        async with http.post("/sessions/s1/search", json={"query": query, "top_k": 1}) as answer:
            return [hit["text"] for hit in (await answer.json())["results"]]

    async with http.post("/sessions/s1/messages", json=MESSAGE):
        pass
    database = await Database.open(tmp_path / "projections.db", ())
    await database.run(lambda connection: connection.execute("UPDATE contents SET text = 'Ann moved to Rome'"))
    await database.close()
    assert await found("Rome") == ["Ann moved to Rome"]

    async with http.post("/admin/rebuild", json={"what": "projections"}) as answer:
        begun = await answer.json()
    job = await ended(http, "/admin/rebuild")

    assert (answer.status, begun["what"]) == (202, "projections")
    assert (job["state"], job["error"], job["index"]) == ("done", None, 1)
    assert await found("Oslo") == ["Ann moved to Oslo"]
