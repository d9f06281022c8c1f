from typing import Any

import pytest
from aiohttp import ClientSession

from engram.events import MessageAppended, encode
from tests.api.node import NOW_MS, Node

URL = "/sessions/s1/history"


async def say(http: ClientSession, text: str, message_id: str, session_id: str = "s1") -> None:
    message = {"role": "user", "content": text, "id": message_id}
    assert (await http.post(f"/sessions/{session_id}/messages", json=message)).status in {204, 409}


async def history(http: ClientSession, **query: str) -> Any:
    answer = await http.get(URL, params=query)
    assert answer.status == 200
    return await answer.json()


async def shown(http: ClientSession, **query: str) -> list[tuple[int, str]]:
    return [(event["index"], event["type"]) for event in (await history(http, **query))["events"]]


async def test_a_history_tells_what_happened_in_a_session_in_log_order(http: ClientSession) -> None:
    await http.post("/sessions", json={"session_id": "s1", "agent_id": "a1"})
    await say(http, "of another session", "m1", "s2")
    await say(http, "hello", "m1")
    await http.put("/sessions/s1/core-memory", json={"fact": "likes tea", "id": "f1"})
    await http.put("/sessions/s1/visibility", json={"visibility": "Shared"})

    assert await shown(http) == [
        (1, "SessionCreated"),
        (3, "MessageAppended"),
        (3, "MessageEmbedded"),
        (4, "FactPinned"),
        (5, "VisibilityChanged"),
    ]


async def test_an_event_comes_with_its_place_and_what_it_says(http: ClientSession) -> None:
    await http.post(
        "/sessions/s1/messages",
        json={"role": "user", "content": "hi", "id": "m1", "name": "Ann", "timestamp": "2026-04-01T10:00:00Z"},
    )

    [appended, embedded] = (await history(http))["events"]
    assert appended == {
        "index": 1,
        "position": 0,
        "type": "MessageAppended",
        "at": "2026-05-01T00:00:00.000Z",
        "session_id": "s1",
        "message_id": "m1",
        "role": "user",
        "name": "Ann",
        "text": "hi",
        "tokens": 1,
        "occurred_at": "2026-04-01T10:00:00.000Z",
    }
    assert (embedded["position"], embedded["model"], embedded["dimension"]) == (1, "letters", 8)
    assert embedded["chunks"] == [{"start": 0, "end": 2}]


async def test_vectors_come_when_they_are_asked_for(http: ClientSession) -> None:
    await say(http, "hi", "m1")

    [chunk] = (await history(http, include="vectors"))["events"][1]["chunks"]
    assert len(chunk["vector"]) == 24  # 8 times 2 bytes, in Base64


async def test_what_the_ledger_refused_is_left_out_unless_it_is_asked_for(http: ClientSession) -> None:
    await say(http, "hello", "m1")
    await say(http, "something else", "m1")
    await say(http, "hello", "m1")

    assert await shown(http) == [(1, "MessageAppended"), (1, "MessageEmbedded")]
    events = (await history(http, include="refused"))["events"]
    assert [(event["index"], event.get("refused", False)) for event in events] == [
        (1, False), (1, False), (2, True), (2, True), (3, True), (3, True),
    ]  # fmt: skip


async def test_a_repeated_message_of_a_batch_that_counted_is_left_out(http: ClientSession) -> None:
    await say(http, "hello", "m1")
    batch = [{"role": "user", "content": text, "id": name} for name, text in (("m1", "hello"), ("m2", "new"))]
    await http.post("/sessions/s1/messages", json={"messages": batch})

    events = [event for event in (await history(http))["events"] if event["index"] == 2]
    assert {event["message_id"] for event in events} == {"m2"}


async def test_of_a_deleted_message_only_the_deletion_is_left(http: ClientSession) -> None:
    await say(http, "a secret", "m1")
    await http.delete("/sessions/s1/messages/m1")

    answer = await http.get(URL, params={"include": "refused,vectors"})
    assert "secret" not in await answer.text()
    assert (1, "MessageDeleted") in await shown(http)


async def test_nothing_is_shown_while_an_erasure_is_due(http: ClientSession, node: Node) -> None:
    await say(http, "a secret", "m1")
    node.may_erase.clear()
    node.eraser.clean_log = never_ends  # type: ignore[method-assign]  # as if the disk were slow
    await http.delete("/sessions/s1/messages/m1")

    answer = await http.get(URL)

    assert (answer.status, (await answer.json())["code"]) == (503, "not_ready")


async def never_ends() -> int:
    return 0


@pytest.mark.parametrize("limit", ["1", "2", "3", "7"])
async def test_pages_add_up_to_the_whole_even_within_an_entry(http: ClientSession, limit: str) -> None:
    batch = [{"role": "user", "content": f"number {n}", "id": f"m{n}"} for n in range(4)]
    await http.post("/sessions/s1/messages", json={"messages": batch})
    for number in range(12):
        await say(http, "elsewhere", f"m{number}", "s2")
    await say(http, "the last", "m9")
    whole = (await history(http))["events"]

    pages = await history(http, limit=limit)
    found = pages["events"]
    while pages["next_cursor"] is not None:
        assert len(pages["events"]) == int(limit)
        pages = await history(http, limit=limit, cursor=pages["next_cursor"])
        found += pages["events"]

    assert found == whole
    assert len(whole) == 10


async def test_a_session_made_again_has_a_history_of_its_own(http: ClientSession) -> None:
    await say(http, "before", "m1")
    await http.delete("/sessions/s1")
    assert (await http.get(URL)).status == 404

    await say(http, "after", "m1")

    assert await shown(http) == [(3, "MessageAppended"), (3, "MessageEmbedded")]


async def test_a_history_needs_a_session_that_is_known(http: ClientSession) -> None:
    answer = await http.get("/sessions/nobody/history")

    assert (answer.status, (await answer.json())["code"]) == (404, "session_not_found")


async def test_an_include_that_is_unknown_is_refused_by_name(http: ClientSession) -> None:
    answer = await http.get(URL, params={"include": "vectors,pictures"})

    assert answer.status == 400
    assert "'vectors,pictures'" in (await answer.json())["detail"]


async def test_what_belongs_to_another_tenant_is_not_shown(http: ClientSession, node: Node) -> None:
    foreign = MessageAppended(
        session_id="s1", at_ms=NOW_MS, tenant="other", message_id="m1", role="user", text="theirs", tokens=1
    )
    node.log.propose(encode([foreign]))
    await say(http, "ours", "m1")

    assert {event["index"] for event in (await history(http))["events"]} == {2}
    assert "theirs" not in await (await http.get("/events")).text()
