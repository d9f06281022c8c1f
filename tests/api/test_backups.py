"""Copies over HTTP: whole or cut off, bounded in number, and not before what was deleted is erased."""

from collections.abc import Awaitable, Callable, Sequence

import aiohttp
import pytest

from engram.api.server import HttpServer
from engram.errors import StorageError
from engram.moving import copying
from engram.moving.backup_format import BackupReader
from engram.moving.export_format import ExportReader
from tests.api.fake_cluster import FakeCluster
from tests.api.node import Entry, Node


async def say(http: aiohttp.ClientSession, text: str, message_id: str, session_id: str = "s") -> None:
    message = {"role": "user", "content": text, "id": message_id}
    async with http.post(f"/sessions/{session_id}/messages", json=message) as answer:
        assert answer.status == 204


async def take(http: aiohttp.ClientSession, path: str) -> tuple[int, bytes]:
    async with http.get(path) as answer:
        return answer.status, await answer.read()


async def test_a_backup_has_every_row(http: aiohttp.ClientSession, node: Node) -> None:
    await say(http, "hello", "m1")
    await say(http, "there", "m2")

    async with http.get("/backup") as answer:
        content = await answer.read()
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Engram-Index"] == "2"

    reader = BackupReader()
    rows = [row for part in reader.feed(content) for row in part.rows]
    assert reader.finish().index == 2
    assert [row[3] for row in rows] == [entry.data for entry in node.log.held]
    assert reader.head is not None
    assert reader.head.store_id == "a-store"


async def test_an_export_is_lines_of_json(http: aiohttp.ClientSession) -> None:
    await say(http, "hello", "m1")
    await say(http, "there", "m1", session_id="s2")

    status, whole = await take(http, "/export")
    _, one = await take(http, "/export?session_id=s2")
    _, later = await take(http, "/export?after=1")

    assert status == 200
    assert [entry.index for entry in ExportReader().feed(whole)] == [1, 2]
    assert [entry.index for entry in ExportReader().feed(one)] == [2]
    assert [entry.index for entry in ExportReader().feed(later)] == [2]


@pytest.mark.parametrize("query", ["after=-1", "after=x", "session_id=", "format=csv"])
async def test_a_wrong_parameter_is_named(http: aiohttp.ClientSession, query: str) -> None:
    async with http.get(f"/export?{query}") as answer:
        assert answer.status == 400
        assert query.partition("=")[0] in (await answer.json())["detail"]


async def test_too_many_copies_at_a_time_are_refused(
    http: aiohttp.ClientSession, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "COPIES_MAX", 0)

    async with http.get("/backup") as answer:
        assert answer.status == 503
        assert (await answer.json())["code"] == "overloaded"
        assert answer.headers["Retry-After"] == "1"


async def test_a_copy_that_ended_makes_room_for_the_next(http: aiohttp.ClientSession) -> None:
    await say(http, "hello", "m1")

    statuses = [(await take(http, path))[0] for path in ("/backup", "/export") * 3]

    assert statuses == [200] * 6


def failing_after_the_first(rows: Sequence[Entry]) -> Callable[[int, int], Awaitable[Sequence[Entry]]]:
    async def read(after: int, limit: int) -> Sequence[Entry]:
        if after > 0:
            raise StorageError("the disk failed")
        return rows[:1]

    return read


async def test_a_copy_that_fails_on_its_way_does_not_look_whole(
    http: aiohttp.ClientSession, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        await say(http, "hello", f"m{number}")
    monkeypatch.setattr(node.log, "read", failing_after_the_first(node.log.held))

    with pytest.raises(aiohttp.ClientPayloadError):
        await take(http, "/backup")


async def test_a_follower_asks_the_leader_how_far_it_must_see(
    node: Node, cluster: FakeCluster, server: HttpServer
) -> None:
    async with aiohttp.ClientSession(server.url) as http:
        await say(http, "hello", "m1")
        cluster.readable_at = 2
        status, body = await take(http, "/backup")

    assert status == 503
    assert b"entry 2 was not applied here" in body
