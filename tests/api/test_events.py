from typing import Any

import pytest
from aiohttp import ClientSession

from engram.api import events
from tests.api.test_history import say


async def page(http: ClientSession, **query: str | int) -> Any:
    answer = await http.get("/events", params=query)
    assert answer.status == 200
    return await answer.json()


async def test_the_whole_log_is_listed_in_order(http: ClientSession) -> None:
    await say(http, "one", "m1")
    await say(http, "two", "m1", "s2")

    found = await page(http)
    assert [(event["index"], event["session_id"]) for event in found["events"]] == [
        (1, "s1"), (1, "s1"), (2, "s2"), (2, "s2"),
    ]  # fmt: skip
    assert (found["next_cursor"], found["index"]) == (None, 2)


async def test_a_list_begins_behind_an_index_and_can_be_of_one_session(http: ClientSession) -> None:
    for number, session_id in enumerate(["s1", "s2", "s1", "s2"]):
        await say(http, "text", f"m{number}", session_id)

    assert {event["index"] for event in (await page(http, after=2))["events"]} == {3, 4}
    assert {event["index"] for event in (await page(http, session_id="s1"))["events"]} == {1, 3}
    assert (await page(http, after=9)) == {"events": [], "next_cursor": None, "index": 9}


async def test_pages_add_up_to_the_whole_log(http: ClientSession) -> None:
    for number in range(5):
        await say(http, "text", f"m{number}")
    whole = (await page(http))["events"]

    found: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        part = await page(http, limit=3, **cursor)
        found += part["events"]
        if part["next_cursor"] is None:
            break
        cursor = {"cursor": part["next_cursor"]}

    assert found == whole


async def test_a_page_looks_through_a_bounded_part_of_the_log(
    http: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "SCAN_ENTRIES_MAX", 2)
    monkeypatch.setattr(events, "BATCH_ENTRIES", 2)
    for number in range(3):
        await say(http, "text", f"m{number}")
    await say(http, "wanted", "m1", "s2")

    first = await page(http, session_id="s2")
    assert first["events"] == []
    second = await page(http, session_id="s2", cursor=first["next_cursor"])
    assert [event["index"] for event in second["events"]] == [4, 4]
    assert second["next_cursor"] is None


async def test_the_deletion_of_a_session_is_all_that_is_left_of_it(http: ClientSession) -> None:
    await say(http, "a secret", "m1")
    await http.delete("/sessions/s1")

    found = await page(http, include="refused,vectors")
    assert [(event["index"], event["type"]) for event in found["events"]] == [(2, "SessionDeleted")]


async def test_a_cursor_of_another_list_is_refused(http: ClientSession) -> None:
    for number in range(2):
        await say(http, "text", f"m{number}")
    cursor = (await page(http, limit=1))["next_cursor"]

    answer = await http.get("/events", params={"cursor": cursor, "session_id": "s1"})
    assert (answer.status, (await answer.json())["code"]) == (400, "invalid_cursor")
