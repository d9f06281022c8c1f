"""Over HTTP: queries that nobody should send are answered, explained, and kept within the budget of a context."""

import pytest
from aiohttp import ClientSession

from engram.commands import TEXT_BYTES_MAX
from tests.recall.test_hostile_queries import HOSTILE, TALK

QUERIES = {name: query for name, query in HOSTILE.items() if query.strip() and len(query.encode()) <= TEXT_BYTES_MAX}
URL_CHARACTERS_MAX = 800
"""An ideograph takes nine bytes of a URL."""


@pytest.fixture(autouse=True)
async def told(http: ClientSession) -> None:
    messages = [{"role": "user", "content": text} for text in TALK if text.strip()]
    assert (await http.post("/sessions/talk/messages", json={"messages": messages})).status == 200


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
async def test_every_query_is_answered_and_explained(http: ClientSession, query: str) -> None:
    for top_k in (1, 200):
        answer = await http.post("/sessions/talk/search", json={"query": query, "top_k": top_k, "explain": True})

        assert answer.status == 200
        found = await answer.json()
        assert 1 <= len(found["results"]) <= top_k
        assert [hit["explain"]["rank"] for hit in found["results"]] == list(range(1, len(found["results"]) + 1))
        assert found["explain"]["beyond_top_k"] + len(found["results"]) == found["explain"]["messages"]


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
async def test_a_context_for_any_query_stays_within_its_budget(http: ClientSession, query: str) -> None:
    for max_tokens in (0, 60, 1000):
        asked = {"query": query[:URL_CHARACTERS_MAX], "max_tokens": max_tokens, "explain": "true"}
        answer = await http.get("/sessions/talk/context", params=asked)

        assert answer.status == 200
        assert (await answer.json())["tokens"] <= max_tokens


async def test_a_query_that_is_longer_than_any_message_is_refused(http: ClientSession) -> None:
    answer = await http.post("/sessions/talk/search", json={"query": "x" * (TEXT_BYTES_MAX + 1), "top_k": 1})

    assert answer.status == 413
    assert (await answer.json())["code"] == "too_large"
    assert str(TEXT_BYTES_MAX) in (await answer.json())["detail"]


@pytest.mark.parametrize("top_k", [0, -1, 201, 10**30, 1.5, True, "5", None])
async def test_a_top_k_outside_its_limits_is_refused(http: ClientSession, top_k: object) -> None:
    answer = await http.post("/sessions/talk/search", json={"query": "lake", "top_k": top_k})

    assert answer.status == 400
    assert "top_k" in (await answer.json())["detail"]


@pytest.mark.parametrize("query", ["", " \t\n\u3000"])
async def test_an_empty_query_is_refused(http: ClientSession, query: str) -> None:
    searched = await http.post("/sessions/talk/search", json={"query": query, "top_k": 1})
    packed = await http.get("/sessions/talk/context", params={"query": query})

    for answer in (searched, packed):
        assert answer.status == 400
        assert "query" in (await answer.json())["detail"]
