import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import pytest
from aiohttp import ClientPayloadError, ClientResponse, ClientSession

from engram.api.event_stream import Seen, read_event_id
from engram.api.event_views import Place, write_event_id
from engram.api.open_streams import OpenStreams
from engram.api.server import HttpServer
from engram.errors import InvalidError
from tests.api.node import Node
from tests.api.test_history import say
from tests.cluster.waiting import wait_until

STREAM = {"Accept": "text/event-stream"}


class Told(NamedTuple):
    """A block of a stream."""

    id: str
    event: str
    data: Any


@asynccontextmanager
async def stream(
    http: ClientSession, last_event_id: str | None = None, **query: str | int
) -> AsyncIterator[AsyncIterator[Told]]:
    headers = STREAM if last_event_id is None else STREAM | {"Last-Event-ID": last_event_id}
    async with http.get("/events", params=query, headers=headers) as answer:
        assert answer.status == 200
        yield blocks(answer)


async def blocks(answer: ClientResponse) -> AsyncIterator[Told]:
    """Yield every block but the first, which says when to come back."""
    fields: dict[str, str] = {}
    async for raw in answer.content:
        line = raw.decode().rstrip("\n")
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
        elif "retry" in fields:
            fields = {}
        else:
            data = msgspec.json.decode(fields["data"]) if "data" in fields else None
            yield Told(fields.get("id", ""), fields.get("event", ""), data)
            fields = {}


async def take(told: AsyncIterator[Told], count: int) -> list[Told]:
    async with asyncio.timeout(10):
        return [await anext(told) for _ in range(count)]


async def write_batch(http: ClientSession, *message_ids: str) -> None:
    batch = [{"role": "user", "content": f"text of {name}", "id": name} for name in message_ids]
    assert (await http.post("/sessions/s1/messages", json={"messages": batch})).status == 200


async def test_a_stream_tells_what_happened_and_then_what_happens(http: ClientSession) -> None:
    await say(http, "before", "m1")
    async with stream(http) as told:
        first = await take(told, 2)
        await say(http, "meanwhile", "m2")
        second = await take(told, 2)

    assert [(each.id, each.event) for each in (*first, *second)] == [
        ("1.1/2", "MessageAppended"),
        ("1", "MessageEmbedded"),
        ("2.1/2", "MessageAppended"),
        ("2", "MessageEmbedded"),
    ]
    assert second[0].data["text"] == "meanwhile"


async def test_a_stream_says_the_same_as_the_pages(http: ClientSession) -> None:
    await write_batch(http, "m1", "m2")
    await say(http, "text of m1", "m1")
    pages = await (await http.get("/events", params={"include": "refused,vectors"})).json()

    async with stream(http, include="refused,vectors") as told:
        assert [each.data for each in await take(told, 6)] == pages["events"]


async def test_whoever_comes_back_gets_the_rest_and_nothing_twice(http: ClientSession) -> None:
    await write_batch(http, "m1", "m2", "m3")
    await say(http, "the end", "m4")
    async with stream(http) as told:
        whole = await take(told, 8)

    for number, seen in enumerate(whole[:-1], start=1):
        async with stream(http, seen.id) as told:
            assert await take(told, len(whole) - number) == whole[number:]


async def test_an_entry_that_lost_an_event_is_told_again_as_a_whole(http: ClientSession) -> None:
    await http.post("/sessions", json={"session_id": "s1"})
    await write_batch(http, "m1", "m2")
    async with stream(http, after=1) as told:
        [_, _, appended] = await take(told, 3)
    await http.delete("/sessions/s1/messages/m1")

    async with stream(http, appended.id) as told:
        again = await take(told, 3)

    assert appended.id == "2.3/4"
    assert [(each.id, each.event) for each in again] == [
        ("2.1/3", "MessageDeleted"),
        ("2.2/3", "MessageAppended"),
        ("2", "MessageEmbedded"),
    ]


async def test_a_stream_can_begin_behind_an_index_and_be_of_one_session(http: ClientSession) -> None:
    for number, session_id in enumerate(["s1", "s2", "s1", "s2"], start=1):
        await say(http, "text", f"m{number}", session_id)

    async with stream(http, after=1, session_id="s2") as told:
        assert [each.data["index"] for each in await take(told, 4)] == [2, 2, 4, 4]


async def test_the_header_wins_over_the_query_as_browsers_need_it(http: ClientSession) -> None:
    for number in range(3):
        await say(http, "text", f"m{number}")

    async with stream(http, "2", after=0) as told:
        assert (await take(told, 1))[0].id == "3.1/2"


async def test_a_quiet_stream_gives_signs_of_life_and_says_how_far_it_is(http: ClientSession, node: Node) -> None:
    node.streams = OpenStreams(look_s=0.01, heartbeat_s=0.02)
    server = HttpServer(node.application(), host="127.0.0.1", port=0, stop_s=1)
    await server.start()
    await say(http, "not wanted", "m1")

    async with ClientSession(server.url) as client, stream(client, session_id="s2") as told:
        signs = await take(told, 2)

    await server.stop()
    assert signs == [Told("1", "", None)] * 2


async def test_no_more_streams_are_opened_than_there_may_be(http: ClientSession, node: Node) -> None:
    node.streams = OpenStreams(most=1, look_s=0.01)
    server = HttpServer(node.application(), host="127.0.0.1", port=0, stop_s=1)
    await server.start()
    async with ClientSession(server.url) as client:
        await say(http, "text", "m1")
        async with stream(client) as told:
            await take(told, 1)
            refused = await client.get("/events", headers=STREAM)
            assert (refused.status, (await refused.json())["code"]) == (503, "overloaded")
            assert refused.headers["Retry-After"] == "1"
            assert (await client.get("/events")).status == 200

        await gone(node.streams)
        async with stream(client) as told:
            assert len(await take(told, 2)) == 2
    await server.stop()


async def gone(streams: OpenStreams) -> None:
    """Wait until the server has noticed that its clients are gone."""

    async def none_is_open() -> bool:
        return streams.count == 0

    await wait_until(none_is_open, "the streams have ended", within_s=10)


async def test_a_slow_client_holds_up_nobody_and_no_memory(http: ClientSession, node: Node, server: HttpServer) -> None:
    text = "long " * 40_000
    for number in range(40):
        await http.put("/sessions/s1/core-memory", json={"fact": f"{number} {text}", "id": f"f{number}"})
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**10)
    writer.write(b"GET /events HTTP/1.1\r\nHost: engram\r\nAccept: text/event-stream\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")

    async with stream(http) as told:
        assert len(await take(told, 40)) == 40

    assert node.streams.count >= 1  # the slow one is still there, and waits
    writer.transport.abort()
    await gone(node.streams)


async def test_a_stream_ends_cleanly_when_the_node_stops(http: ClientSession, server: HttpServer) -> None:
    await say(http, "text", "m1")

    async with http.get("/events", headers=STREAM) as answer, asyncio.timeout(10):
        await answer.content.readuntil(b"id: 1\n")
        await server.stop()
        rest = await answer.content.read()

    assert rest.endswith(b"\n\n")


async def test_a_stream_that_breaks_off_is_cut_and_not_ended(http: ClientSession, node: Node) -> None:
    await say(http, "text", "m1")
    async with http.get("/events", headers=STREAM) as answer, asyncio.timeout(10):
        await answer.content.readuntil(b"id: 1\n")
        node.may_erase.clear()
        node.eraser.clean_log = nothing_done  # type: ignore[method-assign]  # as if the disk were slow
        await http.delete("/sessions/s1")

        with pytest.raises(ClientPayloadError):
            await answer.content.read()


async def nothing_done() -> int:
    return 0


async def test_the_head_of_a_stream_ends_at_once(http: ClientSession) -> None:
    answer = await http.head("/events", headers=STREAM)

    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
    assert answer.headers["Cache-Control"] == "no-store"
    assert (await http.get("/health")).status == 200


@pytest.mark.parametrize("said", ["", "x", "1.2", "1.2/", "-1", "1" * 30])
async def test_an_id_that_no_stream_gave_out_is_refused(http: ClientSession, said: str) -> None:
    with pytest.raises(InvalidError, match="Last-Event-ID"):
        read_event_id(said)
    answer = await http.get("/events", headers=STREAM | {"Last-Event-ID": said})
    assert (answer.status, (await answer.json())["code"]) == (400, "invalid_value")


@pytest.mark.parametrize(
    ("place", "seen"), [(Place(7, 4, 5), Seen(7)), (Place(7, 1, 5), Seen(6, 2, 5)), (Place(7, 0, 1), Seen(7))]
)
def test_an_id_says_how_far_a_client_has_read(place: Place, seen: Seen) -> None:
    assert read_event_id(write_event_id(place)) == seen


async def test_a_stream_takes_no_cursor(http: ClientSession) -> None:
    answer = await http.get("/events", params={"cursor": "abc"}, headers=STREAM)

    assert answer.status == 400
    assert "cursor" in (await answer.json())["detail"]
