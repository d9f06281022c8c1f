"""GET /sessions/{id}/diff: what changed between two moments."""

from typing import Any

from aiohttp import ClientSession

from engram.events import encode
from tests.api.node import Node
from tests.api.test_as_of import pin, say, worked
from tests.projections.histories import said


async def diff(http: ClientSession, **query: str) -> Any:
    answer = await http.get("/sessions/s1/diff", params=query)
    assert answer.status == 200, await answer.text()
    return await answer.json()


async def test_everything_that_changed_is_told_with_its_index(http: ClientSession) -> None:
    await say(http, "m1", "hello")
    since = await pin(http, "f1", "cats bite")
    await say(http, "m2", "a boat")
    await pin(http, "f2", "boats float")
    await http.delete("/sessions/s1/messages/m1")
    await http.delete("/sessions/s1/core-memory/f1")
    await http.put("/sessions/s1/visibility", json={"visibility": "Shared"})

    told = await diff(http, **{"from": str(since)})

    assert (told["from_index"], told["to_index"]) == (2, 7)
    assert [(message["id"], message["index"]) for message in told["added"]] == [("m2", 3)]
    assert told["deleted"] == [{"id": "m1", "index": 5}]
    assert told["embedded"] == [{"id": "m2", "index": 3, "model": "letters"}]
    assert [(fact["id"], fact["index"]) for fact in told["pinned"]] == [("f2", 4)]
    assert told["unpinned"] == [{"id": "f1", "index": 6}]
    assert (told["visibility_before"], told["visibility_after"]) == ("Private", "Shared")
    assert told["counts_after"] == {"messages": 1, "facts": 1, "tokens": 2}
    assert told["context"] is None


async def test_what_was_deleted_later_is_not_told_as_deleted(http: ClientSession) -> None:
    await say(http, "m1", "hello")
    until = await say(http, "m2", "a boat")
    await http.delete("/sessions/s1/messages/m2")

    told = await diff(http, to=str(until))

    assert [message["id"] for message in told["added"]] == ["m1"]
    assert told["deleted"] == []


async def test_from_the_beginning_nothing_was_there_before(http: ClientSession) -> None:
    await say(http, "m1", "hello")

    told = await diff(http)

    assert (told["visibility_before"], told["counts_before"], told["from_at"]) == (None, None, None)
    assert told["counts_after"]["messages"] == 1


async def test_vectors_that_came_later_are_a_change(http: ClientSession, node: Node) -> None:
    node.log.propose(encode([said("m1", "a boat", session_id="s1")]))
    node.log.propose(encode([worked(node, "m1", 1, "a boat")]))

    told = await diff(http, **{"from": "1", "min_index": "2"})

    assert (told["added"], told["embedded"]) == ([], [{"id": "m1", "index": 2, "model": "letters"}])


async def test_how_the_context_changed_is_told_for_a_query(http: ClientSession) -> None:
    since = await say(http, "m1", "hello")
    await say(http, "m2", "a boat")

    told = (await diff(http, **{"from": str(since), "query": "boat"}))["context"]

    assert told["before"] == "Conversation:\nuser: hello"
    assert told["after"] == "Conversation:\nuser: hello\nuser: a boat"
    assert told["added"] == [{"section": "conversation", "id": "m2", "session_id": "s1", "index": 2}]
    assert told["removed"] == []


async def test_a_session_that_was_not_there_at_the_end_is_unknown(http: ClientSession) -> None:
    await say(http, "m1", "hello", "other")
    await say(http, "m1", "hello")

    answer = await http.get("/sessions/s1/diff", params={"to": "1"})

    assert (answer.status, (await answer.json())["code"]) == (404, "session_not_found")


async def test_a_moment_that_is_not_applied_names_its_parameter(http: ClientSession) -> None:
    await say(http, "m1", "hello")

    answer = await http.get("/sessions/s1/diff", params={"to": "9"})

    assert (answer.status, (await answer.json())["detail"][:10]) == (400, "to is 9; t")


async def test_moments_in_the_wrong_order_are_refused(http: ClientSession) -> None:
    await say(http, "m1", "hello")
    await say(http, "m2", "a boat")

    for query in ({"from": "2", "to": "1"}, {"from": "2035-01-01T00:00:00Z", "to": "1"}):
        answer = await http.get("/sessions/s1/diff", params=query)

        assert answer.status == 400
        assert "from is log entry 2, which is behind to, log entry 1" in (await answer.json())["detail"]
    assert (await diff(http, **{"from": "2", "to": "2"}))["added"] == []
    now = await diff(http, **{"from": "2035-01-01T00:00:00Z", "to": "2036-01-01T00:00:00Z"})
    assert (now["from_index"], now["to_index"]) == (2, 2)
