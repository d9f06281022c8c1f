import pytest
from aiohttp import ClientSession

from engram.api import facts
from engram.api.calls import Call
from engram.projections.rows import FactRow

URL = "/sessions/s1/core-memory"


async def test_a_fact_is_pinned_and_listed(http: ClientSession) -> None:
    pinned = await http.put(URL, json={"fact": "Ann lives in Oslo", "id": "f1"})

    assert (pinned.status, pinned.headers["Engram-Fact-Id"], pinned.headers["Engram-Index"]) == (204, "f1", "1")
    assert await (await http.get(URL)).json() == {
        "facts": [
            {
                "id": "f1",
                "fact": "Ann lives in Oslo",
                "tokens": 4,
                "index": 1,
                "pinned_at": "2026-05-01T00:00:00.000Z",
            }
        ]
    }


async def test_the_same_fact_again_answers_with_the_one_that_is_there(http: ClientSession) -> None:
    await http.put(URL, json={"fact": "Ann lives in Oslo", "id": "f1"})
    await http.put(URL, json={"fact": "Ann has a cat", "id": "f2"})

    again = await http.put(URL, json={"fact": "Ann lives in Oslo"})

    assert (again.status, again.headers["Engram-Fact-Id"], again.headers["Engram-Index"]) == (204, "f1", "1")


async def test_a_fact_id_taken_by_another_fact_is_a_conflict(http: ClientSession) -> None:
    await http.put(URL, json={"fact": "Ann lives in Oslo", "id": "f1"})

    answer = await http.put(URL, json={"fact": "Ann lives in Bergen", "id": "f1"})

    assert (answer.status, (await answer.json())["code"]) == (409, "fact_conflict")


async def test_a_representation_is_the_fact(http: ClientSession) -> None:
    answer = await http.put(URL, json={"fact": "Ann lives in Oslo"}, headers={"Prefer": "return=representation"})

    assert (answer.status, (await answer.json())["fact"]) == (200, "Ann lives in Oslo")


async def test_a_fact_is_unpinned_once_or_twice(http: ClientSession) -> None:
    await http.put(URL, json={"fact": "Ann lives in Oslo", "id": "f1"})

    assert (await http.delete(f"{URL}/f1")).status == 204
    assert await (await http.get(URL)).json() == {"facts": []}
    assert (await http.delete(f"{URL}/f1")).status == 204


async def test_a_fact_that_is_unpinned_while_it_is_pinned_again_is_pinned(
    http: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    await http.put(URL, json={"fact": "Ann lives in Oslo", "id": "f1"})
    look = facts.find_fact
    looks: list[int] = []

    async def unpin_and_look(call: Call, session_id: str, log_index: int) -> FactRow | None:
        looks.append(log_index)
        if len(looks) == 1:  # between the ledger's verdict and the look at the fact that it names
            assert (await http.delete(f"{URL}/f1")).status == 204
        return await look(call, session_id, log_index)

    monkeypatch.setattr(facts, "find_fact", unpin_and_look)
    answer = await http.put(URL, json={"fact": "Ann lives in Oslo", "id": "f2"})

    assert (answer.status, answer.headers["Engram-Fact-Id"]) == (204, "f2")
    assert [fact["id"] for fact in (await (await http.get(URL)).json())["facts"]] == ["f2"]


async def test_a_fact_that_is_unpinned_at_once_was_pinned(http: ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    async def is_gone(call: Call, session_id: str, log_index: int) -> FactRow | None:
        return None

    monkeypatch.setattr(facts, "find_fact", is_gone)
    answer = await http.put(
        URL, json={"fact": "Ann lives in Oslo", "id": "f1"}, headers={"Prefer": "return=representation"}
    )

    assert (answer.status, answer.headers["Engram-Fact-Id"]) == (204, "f1")
