from aiohttp import ClientSession

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
