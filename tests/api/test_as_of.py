"""`as_of`: what did the agent know then?"""

from typing import Any

import pytest
from aiohttp import ClientSession
from msgspec.structs import replace

from engram.events import MessageEmbedded, encode
from tests.api.node import NOW_MS, Letters, Node
from tests.projections.histories import embedded, said

READS = ["", "/messages", "/messages/m1", "/core-memory", "/context"]


async def say(http: ClientSession, message_id: str, content: str, session_id: str = "s1") -> int:
    body = {"role": "user", "content": content, "id": message_id}
    answer = await http.post(f"/sessions/{session_id}/messages", json=body)
    return int(answer.headers["Engram-Index"])


async def pin(http: ClientSession, fact_id: str, fact: str) -> int:
    answer = await http.put("/sessions/s1/core-memory", json={"fact": fact, "id": fact_id})
    return int(answer.headers["Engram-Index"])


async def read(http: ClientSession, path: str = "", **query: str) -> Any:
    answer = await http.get(f"/sessions/s1{path}", params=query)
    assert answer.status == 200, await answer.text()
    return await answer.json()


async def test_every_read_of_a_session_is_as_it_was(http: ClientSession) -> None:
    await say(http, "m1", "a cat sat on the table")
    then = await pin(http, "f1", "cats bite")
    given = [await read(http, path) for path in READS]
    await say(http, "m2", "a boat sailed to the coast")
    await pin(http, "f2", "boats float")
    await http.put("/sessions/s1/visibility", json={"visibility": "Shared"})

    assert [await read(http, path, as_of=str(then)) for path in READS] == given
    assert [await read(http, path) for path in READS] != given


async def test_a_search_finds_what_was_there(http: ClientSession) -> None:
    then = await say(http, "m1", "a boat sailed")
    body = {"query": "boat", "top_k": 5}
    given = await (await http.post("/sessions/s1/search", json=body)).json()
    await say(http, "m2", "another boat")

    looked_back = await http.post("/sessions/s1/search", json=body, params={"as_of": str(then)})

    assert await looked_back.json() == given


async def test_the_index_of_the_answer_is_the_one_that_was_asked_for(http: ClientSession) -> None:
    await say(http, "m1", "hello")
    await say(http, "m2", "again")

    for path in READS:
        answer = await http.get(f"/sessions/s1{path}", headers={"Engram-As-Of": "1"})

        assert answer.headers["Engram-Index"] == "1"
    assert (await read(http, "/context", as_of="1"))["index"] == 1


async def test_a_wider_scope_has_the_sessions_that_were_there(http: ClientSession) -> None:
    for session_id in ("s1", "s2", "s3"):
        await http.post("/sessions", json={"session_id": session_id, "agent_id": "bot"})
        await say(http, f"{session_id}-m", f"a boat of {session_id}", session_id)
    query = {"query": "boat", "scope": "agent", "long_term_top_k": "9"}

    context = await read(http, "/context", **query, as_of="4")

    shown = {item["session_id"] for part in context["sections"] for item in part["items"]}
    assert shown == {"s1", "s2"}


async def test_what_was_deleted_since_is_not_there(http: ClientSession) -> None:
    await say(http, "m1", "a secret")
    await pin(http, "f1", "a secret fact")
    then = await say(http, "m2", "no secret")
    await http.delete("/sessions/s1/messages/m1")
    await http.delete("/sessions/s1/core-memory/f1")

    context = await read(http, "/context", as_of=str(then))

    assert context["context"] == "Conversation:\nuser: no secret"
    gone = await http.get("/sessions/s1/messages/m1", params={"as_of": str(then)})
    assert (gone.status, (await gone.json())["code"]) == (404, "message_not_found")


@pytest.mark.parametrize("path", ["", "/messages", "/core-memory", "/context"])
async def test_a_session_that_was_not_there_is_a_404_that_says_so(http: ClientSession, path: str) -> None:
    await say(http, "m1", "hello", "other")
    await say(http, "m1", "hello")

    answer = await http.get(f"/sessions/s1{path}", params={"as_of": "1"})

    problem = await answer.json()
    assert (answer.status, problem["code"]) == (404, "session_not_found")
    assert "'s1' is unknown as of log entry 1: not there yet, or forgotten since" in problem["detail"]


async def test_a_session_of_an_earlier_life_is_forgotten(http: ClientSession) -> None:
    await say(http, "m1", "first life")
    await http.delete("/sessions/s1")
    await say(http, "m1", "second life")

    assert (await http.get("/sessions/s1/context", params={"as_of": "1"})).status == 404


async def test_an_index_that_is_not_applied_is_refused_with_a_hint(http: ClientSession) -> None:
    await say(http, "m1", "hello")

    answer = await http.get("/sessions/s1/context", params={"as_of": "2"})

    problem = await answer.json()
    assert (answer.status, problem["code"]) == (400, "invalid_value")
    assert problem["detail"] == ("as_of is 2; this node has applied the log up to entry 1: min_index=2 waits for more")


@pytest.mark.parametrize("wrong", ["", "-1", "soon", "1.5", "2026-05-01", "9" * 19, "٣", "2026-13-01T00:00:00Z"])
async def test_what_is_neither_an_index_nor_a_time_is_refused(http: ClientSession, wrong: str) -> None:
    answer = await http.get("/sessions/s1", params={"as_of": wrong})

    problem = await answer.json()
    assert (answer.status, problem["code"]) == (400, "invalid_value")
    assert problem["detail"].startswith(f"as_of is '{wrong}'; ")


async def test_a_time_stands_for_the_last_entry_that_is_not_later(http: ClientSession, node: Node) -> None:
    for number, at_ms in enumerate([1_000, 2_000, 2_000, 3_000], start=1):
        node.log.propose(encode([said(f"m{number}", "hello", session_id="s1", at_ms=at_ms)]))
    await read(http, min_index="4")

    indexes = {}
    for second in ("00:00:01", "00:00:02", "00:00:02.999", "00:00:03", "00:10:00"):
        answer = await http.get("/sessions/s1/messages", params={"as_of": f"1970-01-01T{second}Z"})
        indexes[second] = answer.headers["Engram-Index"], len((await answer.json())["messages"])

    assert indexes == {
        "00:00:01": ("1", 1),
        "00:00:02": ("3", 3),
        "00:00:02.999": ("3", 3),
        "00:00:03": ("4", 4),
        "00:10:00": ("4", 4),
    }
    assert (await http.get("/sessions/s1", params={"as_of": "1970-01-01T00:00:00.999Z"})).status == 404


async def test_last_week_is_relative_to_the_moment(http: ClientSession, node: Node) -> None:
    """Both messages fit the words; the one of the week before the moment is lifted above the other."""
    day_ms = 86_400_000
    for number, days in enumerate((0, 60, 65, 100), start=1):
        node.log.propose(encode([said(f"m{number}", "a boat", session_id="s1", at_ms=NOW_MS + days * day_ms)]))
    await read(http, min_index="4")
    body = {"query": "which boat last week", "top_k": 1}

    found = await (await http.post("/sessions/s1/search", json=body, params={"as_of": "3"})).json()

    assert [hit["id"] for hit in found["results"]] == ["m2"]


async def test_vectors_that_came_later_are_not_there_yet(http: ClientSession, node: Node) -> None:
    node.log.propose(encode([said("m1", "a boat", session_id="s1")]))
    node.log.propose(encode([worked(node, "m1", 1, "a boat")]))
    await read(http, min_index="2")

    states = [(await read(http, "/messages/m1", as_of=str(index)))["embedding"] for index in (1, 2)]
    session = await read(http, as_of="1")

    assert states == ["pending", "done"]
    assert session["pending"] == {"embedding": 1}


async def test_vectors_of_another_model_are_left_out_and_that_is_said(http: ClientSession, node: Node) -> None:
    node.log.propose(encode([said("m1", "a boat", session_id="s1")]))
    node.log.propose(encode([embedded("m1", 1, session_id="s1", model="an older one")]))
    node.log.propose(encode([worked(node, "m1", 1, "a boat")]))
    await read(http, min_index="3")

    old, new = [await read(http, "/context", query="boat", as_of=index) for index in ("2", "3")]

    assert (old.get("degraded"), new.get("degraded")) == (True, None)


async def test_a_cursor_is_good_for_its_moment_only(http: ClientSession) -> None:
    for number in range(4):
        await say(http, f"m{number}", "hello")
    first = await read(http, "/messages", as_of="3", limit="2")

    rest = await read(http, "/messages", as_of="3", limit="2", cursor=first["next_cursor"])
    elsewhere = await http.get("/sessions/s1/messages", params={"cursor": first["next_cursor"]})

    assert [message["id"] for message in rest["messages"]] == ["m2"]
    assert rest["next_cursor"] is None
    assert (elsewhere.status, (await elsewhere.json())["code"]) == (400, "invalid_cursor")


async def test_the_past_can_be_read_backwards_too(http: ClientSession) -> None:
    for number in range(4):
        await say(http, f"m{number}", "hello")

    page = await read(http, "/messages", as_of="3", order="desc", limit="2")

    assert [message["id"] for message in page["messages"]] == ["m2", "m1"]


def worked(node: Node, message_id: str, source_index: int, text: str) -> MessageEmbedded:
    """Return what a worker writes later, with the vector of the model in use."""
    [vector] = Letters().embed([text])
    event = embedded(message_id, source_index, session_id="s1", model=Letters.model)
    assert isinstance(event, MessageEmbedded)
    chunk = replace(event.chunks[0], vector=vector.astype("<f2").tobytes())
    return replace(event, dimension=Letters.dimension, chunks=[chunk])
