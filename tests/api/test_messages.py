from typing import Any

import numpy as np
import pytest
import yarl
from aiohttp import ClientSession

from engram.api.paths import decode_percent, encode_segment
from engram.events import MessageAppended, MessageEmbedded
from tests.api.node import NOW_MS, Node

URL = "/sessions/s1/messages"
HELLO = {"role": "user", "content": "hello there", "id": "m1"}


async def listed(http: ClientSession, **query: str) -> Any:
    return await (await http.get(URL, params=query)).json()


async def test_a_message_is_answered_with_its_index_and_id_and_no_body(http: ClientSession) -> None:
    answer = await http.post(URL, json=HELLO)

    assert (answer.status, await answer.read()) == (204, b"")
    assert answer.headers["Engram-Index"] == "1"
    assert answer.headers["Engram-Message-Id"] == "m1"


async def test_a_message_without_an_id_gets_one(http: ClientSession) -> None:
    answer = await http.post(URL, json={"role": "user", "content": "hello", "id": None})

    assert answer.status == 204
    [message] = (await listed(http))["messages"]
    assert message["id"] == answer.headers["Engram-Message-Id"] != ""


async def test_a_message_travels_with_its_tokens_and_its_vector(http: ClientSession, node: Node) -> None:
    await http.post(URL, json=HELLO)

    [appended, embedded] = node.entries[0]
    assert isinstance(appended, MessageAppended)
    assert (appended.tokens, appended.at_ms) == (2, NOW_MS)
    assert isinstance(embedded, MessageEmbedded)
    assert (embedded.message_id, embedded.source_index, embedded.model) == ("m1", 0, "letters")
    [chunk] = embedded.chunks
    assert (chunk.start, chunk.end) == (0, len("hello there"))
    assert np.linalg.norm(np.frombuffer(chunk.vector, "<f2").astype(np.float32)) == pytest.approx(1, abs=1e-3)


async def test_a_long_text_is_prepared_in_a_thread_to_the_same_effect(http: ClientSession, node: Node) -> None:
    text = "word " * 5000

    assert (await http.post(URL, json={"role": "user", "content": text})).status == 204
    [appended, embedded] = node.entries[0]
    assert isinstance(appended, MessageAppended)
    assert isinstance(embedded, MessageEmbedded)
    assert (appended.text, appended.tokens) == (text, 5000)


async def test_everything_about_a_message_comes_back(http: ClientSession) -> None:
    sent = HELLO | {"name": "Ann", "timestamp": "2026-04-01T10:00:00+02:00", "metadata": {"lang": "en", "n": 1.5}}

    await http.post(URL, json=sent)

    expected = {
        "id": "m1",
        "role": "user",
        "content": "hello there",
        "name": "Ann",
        "timestamp": "2026-04-01T08:00:00.000Z",
        "created_at": "2026-05-01T00:00:00.000Z",
        "tokens": 2,
        "index": 1,
        "embedding": "done",
        "metadata": {"lang": "en", "n": 1.5},
    }
    assert await listed(http) == {"messages": [expected], "next_cursor": None}
    assert await (await http.get(f"{URL}/m1")).json() == expected


async def test_fields_that_nobody_knows_are_ignored(http: ClientSession) -> None:
    assert (await http.post(URL, json=HELLO | {"agent": "x", "parts": [{"a": None}]})).status == 204


async def test_the_same_message_again_changes_nothing_and_names_the_first_index(http: ClientSession) -> None:
    await http.post(URL, json=HELLO)
    await http.post(URL, json=HELLO | {"id": "m2"})

    again = await http.post(URL, json=HELLO)

    assert (again.status, again.headers["Engram-Index"], again.headers["Engram-Message-Id"]) == (204, "1", "m1")
    assert len((await listed(http))["messages"]) == 2


async def test_an_id_taken_by_another_message_is_a_conflict(http: ClientSession) -> None:
    await http.post(URL, json=HELLO)

    answer = await http.post(URL, json=HELLO | {"content": "goodbye"})

    assert (answer.status, (await answer.json())["code"]) == (409, "message_conflict")
    assert "'m1'" in (await answer.json())["detail"]


async def test_a_deleted_id_is_not_taken_again(http: ClientSession) -> None:
    await http.post(URL, json=HELLO)
    assert (await http.delete(f"{URL}/m1")).status == 204

    answer = await http.post(URL, json=HELLO)

    assert (answer.status, (await answer.json())["code"]) == (409, "message_deleted")
    assert (await http.get(f"{URL}/m1")).status == 404


async def test_deleting_what_is_not_there_is_done_already(http: ClientSession) -> None:
    assert (await http.delete(f"{URL}/m1")).status == 204
    assert (await http.delete(f"{URL}/m1")).status == 204


async def test_a_batch_is_one_entry_in_its_order(http: ClientSession, node: Node) -> None:
    messages = [{"role": "user", "content": f"number {number}", "id": f"m{number}"} for number in range(3)]

    answer = await http.post(URL, json={"messages": messages})

    assert answer.status == 200
    assert (await answer.json())["messages"] == [
        {"id": f"m{number}", "index": 1, "status": "created"} for number in range(3)
    ]
    assert len(node.entries) == 1


async def test_a_batch_says_which_messages_were_there(http: ClientSession) -> None:
    await http.post(URL, json=HELLO)

    answer = await http.post(URL, json={"messages": [HELLO, HELLO | {"id": "m2"}]})

    assert [(each["index"], each["status"]) for each in (await answer.json())["messages"]] == [
        (1, "duplicate"),
        (2, "created"),
    ]


async def test_a_batch_with_one_conflict_is_refused_whole(http: ClientSession) -> None:
    await http.post(URL, json=HELLO)

    answer = await http.post(URL, json={"messages": [HELLO | {"id": "m2"}, HELLO | {"content": "goodbye"}]})

    assert (answer.status, (await answer.json())["code"]) == (409, "message_conflict")
    assert [message["id"] for message in (await listed(http))["messages"]] == ["m1"]


async def test_a_wrong_message_of_a_batch_is_named(http: ClientSession) -> None:
    answer = await http.post(URL, json={"messages": [HELLO, HELLO | {"id": "m2", "content": " "}]})

    assert (answer.status, (await answer.json())["detail"]) == (400, "messages[1].content must not be blank")


@pytest.mark.parametrize(("order", "numbers"), [("asc", range(5)), ("desc", range(4, -1, -1))])
async def test_pages_cover_the_list_once_in_order(http: ClientSession, order: str, numbers: range) -> None:
    for number in range(5):
        await http.post(URL, json={"role": "user", "content": "hi", "id": str(number)})

    found: list[str] = []
    query = {"limit": "2", "order": order}
    while True:
        page = await listed(http, **query)
        found += [message["id"] for message in page["messages"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]

    assert found == [str(number) for number in numbers]


async def test_a_full_last_page_has_no_next(http: ClientSession) -> None:
    for number in range(2):
        await http.post(URL, json={"role": "user", "content": "hi", "id": str(number)})

    assert (await listed(http, limit="2"))["next_cursor"] is None


async def test_a_cursor_of_the_other_order_is_refused(http: ClientSession) -> None:
    for number in range(3):
        await http.post(URL, json={"role": "user", "content": "hi", "id": str(number)})
    cursor = (await listed(http, limit="1"))["next_cursor"]

    answer = await http.get(URL, params={"cursor": cursor, "order": "desc"})

    assert (answer.status, (await answer.json())["code"]) == (400, "invalid_cursor")


async def test_a_representation_is_the_message(http: ClientSession) -> None:
    answer = await http.post(URL, json=HELLO, headers={"Prefer": "respond-async, return=representation"})

    assert (answer.status, (await answer.json())["content"]) == (200, "hello there")
    assert answer.headers["Engram-Message-Id"] == "m1"


ODD_IDS = ["a b", "a/b?c#d", "100%", "café", "日本語", "..a", "a+b", "%2F", "🙂", "x" * 200]


@pytest.mark.parametrize("name", ODD_IDS)
async def test_any_unicode_makes_an_id(http: ClientSession, name: str) -> None:
    session = yarl.URL(f"/sessions/{encode_segment(name)}/messages", encoded=True)
    sent = await http.post(session, json=HELLO | {"id": name})

    assert sent.status == 204
    assert decode_percent("it", sent.headers["Engram-Message-Id"]) == name
    one = await http.get(yarl.URL(f"{session}/{encode_segment(name)}", encoded=True))
    assert (await one.json())["id"] == name


async def test_accepted_messages_are_counted_by_role(http: ClientSession) -> None:
    await http.post(URL, json=HELLO)
    await http.post(URL, json=HELLO)
    await http.post(URL, json={"messages": [HELLO, {"role": "tool", "content": "42"}]})

    shown = await (await http.get("/metrics")).text()
    assert 'engram_memory_messages_added_total{role="user"} 1.0' in shown
    assert 'engram_memory_messages_added_total{role="tool"} 1.0' in shown
    assert 'engram_memory_embedding_duration_seconds_count{model="letters"} 3.0' in shown
