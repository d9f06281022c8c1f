import pytest
from aiohttp import ClientSession

from tests.api.node import Node


async def test_a_session_can_be_made_of_nothing(http: ClientSession) -> None:
    answer = await http.post("/sessions")

    assert answer.status == 200
    assert list(await answer.json()) == ["session_id"]


async def test_a_session_is_there_at_once(http: ClientSession) -> None:
    wanted = {"session_id": "s1", "agent_id": "a1", "user_id": None, "metadata": {"team": "red"}}

    assert await (await http.post("/sessions", json=wanted)).json() == {"session_id": "s1"}

    assert await (await http.get("/sessions/s1")).json() == {
        "session_id": "s1",
        "agent_id": "a1",
        "user_id": None,
        "metadata": {"team": "red"},
        "visibility": "Private",
        "created_at": "2026-05-01T00:00:00.000Z",
        "updated_at": "2026-05-01T00:00:00.000Z",
        "index": 1,
        "counts": {"messages": 0, "facts": 0, "tokens": 0},
        "pending": {"embedding": 0},
        "abandoned": {"embedding": 0},
    }


async def test_the_same_idempotency_key_leads_to_the_same_session(http: ClientSession, node: Node) -> None:
    answers = [await http.post("/sessions", headers={"Idempotency-Key": key}) for key in ("k1", "k1", "k2")]

    first, again, other = [(await answer.json())["session_id"] for answer in answers]
    assert first == again != other
    assert [answer.headers["Engram-Index"] for answer in answers] == ["1", "1", "3"]


async def test_a_name_wins_over_an_idempotency_key(http: ClientSession) -> None:
    answer = await http.post("/sessions", headers={"Idempotency-Key": "k1"}, json={"session_id": "s1"})

    assert await answer.json() == {"session_id": "s1"}


async def test_the_same_key_for_another_session_is_a_conflict(http: ClientSession) -> None:
    await http.post("/sessions", headers={"Idempotency-Key": "k1"}, json={"agent_id": "a1"})

    answer = await http.post("/sessions", headers={"Idempotency-Key": "k1"}, json={"agent_id": "a2"})

    assert (answer.status, (await answer.json())["code"]) == (409, "session_conflict")


@pytest.mark.parametrize("body", [{}, {"session_id": "s1"}])
@pytest.mark.parametrize("key", ["", "x" * 201])
async def test_an_idempotency_key_has_the_limits_of_an_id(
    http: ClientSession, node: Node, key: str, body: dict[str, str]
) -> None:
    answer = await http.post("/sessions", headers={"Idempotency-Key": key}, json=body)

    assert (answer.status, (await answer.json())["code"]) == (400, "invalid_id")
    assert node.entries == []


async def test_sessions_are_listed_page_by_page_in_order_of_their_making(http: ClientSession) -> None:
    for number in range(5):
        await http.post("/sessions", json={"session_id": f"s{number}", "agent_id": "ab"[number % 2]})

    first = await (await http.get("/sessions", params={"limit": "2"})).json()
    second = await (await http.get("/sessions", params={"limit": "3", "cursor": first["next_cursor"]})).json()
    of_agent = await (await http.get("/sessions", params={"agent_id": "b"})).json()

    names = [[session["session_id"] for session in page["sessions"]] for page in (first, second, of_agent)]
    assert names == [["s0", "s1"], ["s2", "s3", "s4"], ["s1", "s3"]]
    assert second["next_cursor"] is None


async def test_a_cursor_of_another_agents_list_is_refused(http: ClientSession) -> None:
    for number in range(3):
        await http.post("/sessions", json={"session_id": f"s{number}"})
    cursor = (await (await http.get("/sessions", params={"limit": "1"})).json())["next_cursor"]

    answer = await http.get("/sessions", params={"cursor": cursor, "agent_id": "a"})

    assert (answer.status, (await answer.json())["code"]) == (400, "invalid_cursor")


async def test_a_deleted_session_is_unknown_and_its_deletion_can_be_repeated(http: ClientSession) -> None:
    await http.post("/sessions", json={"session_id": "s1"})

    assert (await http.delete("/sessions/s1")).status == 204
    assert (await http.get("/sessions/s1")).status == 404
    assert (await http.delete("/sessions/s1")).status == 204


async def test_a_deletion_is_not_acknowledged_before_the_text_is_gone_from_disk(
    http: ClientSession, node: Node
) -> None:
    await http.post("/sessions", json={"session_id": "s1"})
    node.may_erase.clear()

    answer = await http.delete("/sessions/s1")

    assert (answer.status, (await answer.json())["code"]) == (504, "outcome_unknown")
    node.may_erase.set()
    assert (await http.delete("/sessions/s1")).status == 204


@pytest.mark.parametrize("word", ["Shared", "shared", "SHARED"])
async def test_a_session_is_opened_in_any_case(http: ClientSession, word: str) -> None:
    assert (await http.put("/sessions/s1/visibility", json={"visibility": word})).status == 204
    assert (await (await http.get("/sessions/s1")).json())["visibility"] == "Shared"


async def test_a_representation_is_the_session(http: ClientSession) -> None:
    prefer = {"Prefer": "return=representation"}

    made = await http.post("/sessions", json={"session_id": "s1"}, headers=prefer)
    opened = await http.put("/sessions/s1/visibility", json={"visibility": "Shared"}, headers=prefer)

    assert (await made.json())["visibility"] == "Private"
    assert (opened.status, (await opened.json())["visibility"]) == (200, "Shared")
