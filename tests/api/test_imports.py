"""Imports into a node that runs: once is enough, times are kept, and what does not fit is named by its line."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from engram.api import intake
from engram.api.app import build
from engram.api.server import HttpServer
from engram.errors import NoLeaderError, OverloadedError
from engram.events import (
    Chunk,
    Event,
    FactPinned,
    FactUnpinned,
    MessageAppended,
    MessageDeleted,
    MessageEmbedded,
    SessionCreated,
    SessionDeleted,
    VisibilityChanged,
    WorkAbandoned,
)
from engram.moving.export_format import ExportHead, ExportWriter
from tests.api.fake_cluster import FakeCluster
from tests.api.node import NOW_MS, Node, running_node

THEN_MS = NOW_MS - 86_400_000
HEADERS = {"Content-Type": "application/x-ndjson"}

Entry = Sequence[Event]


def message(
    message_id: str, text: str = "the cat is called Tom", *, session_id: str = "s", at_ms: int = THEN_MS
) -> Event:
    return MessageAppended(
        session_id=session_id, at_ms=at_ms, message_id=message_id, role="user", text=text, tokens=999
    )


def vectors(message_id: str, *, model: str = "letters", source_index: int = 0, value: bytes = b"\0<") -> Event:
    chunk = Chunk(start=0, end=7, vector=value + bytes(14))
    return MessageEmbedded(
        session_id="s",
        at_ms=THEN_MS,
        message_id=message_id,
        source_index=source_index,
        model=model,
        dimension=8,
        chunks=[chunk],
    )


def pinned(fact_id: str, text: str, at_ms: int = THEN_MS) -> Event:
    return FactPinned(session_id="s", at_ms=at_ms, fact_id=fact_id, text=text, tokens=1)


def export_of(*entries: Entry, end: bool = True) -> bytes:
    writer = ExportWriter()
    head = ExportHead(engram="0", created_at_ms=NOW_MS, store_id="other", cluster_id="", after=0, session_id=None)
    lines = writer.begin(head) + b"".join(writer.add(10 * (n + 1), entry) for n, entry in enumerate(entries))
    return lines + writer.end(10 * len(entries)) if end else lines


async def send(http: aiohttp.ClientSession, content: bytes, query: str = "") -> tuple[int, Any]:
    async with http.post(f"/import{query}", data=content, headers=HEADERS) as answer:
        return answer.status, await answer.json()


async def take(http: aiohttp.ClientSession, content: bytes, query: str = "") -> Any:
    status, body = await send(http, content, query)
    assert status == 200, body
    return body


CONVERSATION: Sequence[Entry] = (
    [SessionCreated(session_id="s", at_ms=THEN_MS, agent_id="a", user_id="u", metadata={"team": "red"})],
    [message("m1"), vectors("m1")],
    [message("m2", "and the dog Rex"), message("m3", "both like milk")],
    [pinned("f1", "likes animals")],
    [VisibilityChanged(session_id="s", at_ms=THEN_MS + 1, visibility="shared")],
    [VisibilityChanged(session_id="s", at_ms=THEN_MS + 2, visibility="private")],
)


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Return a client of another node, with nothing in it."""
    (tmp_path / "other").mkdir()
    async with running_node(tmp_path / "other") as node:
        server = HttpServer(build(node.services()), host="127.0.0.1", port=0, stop_s=1)
        await server.start()
        async with aiohttp.ClientSession(server.url) as http:
            yield http
        await server.stop()


async def test_what_is_imported_is_there_with_its_ids_and_times(http: aiohttp.ClientSession) -> None:
    done = await take(http, export_of(*CONVERSATION))

    messages = (await (await http.get("/sessions/s/messages")).json())["messages"]
    assert [each["id"] for each in messages] == ["m1", "m2", "m3"]
    assert {each["timestamp"] for each in messages} == {"2026-04-30T00:00:00.000Z"}
    session = await (await http.get("/sessions/s")).json()
    assert (session["agent_id"], session["visibility"], session["counts"]["facts"]) == ("a", "Private", 1)
    assert (done["entries"], done["recorded"], done["last_line"]) == (6, 8, 8)


async def test_the_same_export_twice_changes_nothing(http: aiohttp.ClientSession, node: Node) -> None:
    deleted: Sequence[Event] = [
        SessionDeleted(session_id="s", at_ms=THEN_MS - 9),
        FactUnpinned(session_id="s", at_ms=1, fact_id="f1"),
    ]
    content = export_of(
        [deleted[0]], *CONVERSATION, [deleted[1]], [MessageDeleted(session_id="s", at_ms=THEN_MS + 3, message_id="m9")]
    )
    await take(http, content)
    before, digest = len(node.log.held), await node.store.digest()

    again = await take(http, content)

    assert again["recorded"] == 0
    assert again["index"] is None
    assert len(node.log.held) == before
    assert await node.store.digest() == digest


async def test_an_export_of_a_node_makes_the_same_read_models_elsewhere(
    http: aiohttp.ClientSession, other: aiohttp.ClientSession, node: Node
) -> None:
    await take(http, export_of(*CONVERSATION))
    for content in (
        {"role": "user", "content": "hello there", "id": "m4"},
        {"role": "tool", "content": "ok", "id": "m5"},
    ):
        await http.post("/sessions/s/messages", json=content)
    await http.delete("/sessions/s/messages/m2")
    exported = await (await http.get("/export")).read()

    await take(other, exported)

    for path in ("/sessions/s/messages", "/sessions/s/core-memory", "/sessions/s/context?max_tokens=500"):
        ours, theirs = [await (await client.get(path)).json() for client in (http, other)]
        assert strip(ours) == strip(theirs)


def strip(value: Any) -> Any:
    """Return an answer without log indexes, which are each node's own."""
    if isinstance(value, list):
        return [strip(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {name: strip(each) for name, each in value.items() if "index" not in name}


async def test_what_is_interrupted_goes_on_when_it_is_sent_again(http: aiohttp.ClientSession, node: Node) -> None:
    status, problem = await send(http, export_of(*CONVERSATION, end=False))

    assert status == 400
    assert "line 8 of the export is not the end of an export" in problem["detail"]
    assert (await take(http, export_of(*CONVERSATION, [message("m4")])))["recorded"] == 1


@pytest.mark.parametrize(
    ("mine", "code", "named"),
    [
        ([message("m1", "something else")], "message_conflict", "message 'm1'"),
        ([pinned("f1", "hates animals")], "fact_conflict", "fact 'f1'"),
        ([SessionCreated(session_id="s", at_ms=THEN_MS, agent_id="b")], "session_conflict", "another agent"),
    ],
)
async def test_a_conflict_stops_the_import_and_names_its_line(
    http: aiohttp.ClientSession, node: Node, mine: Entry, code: str, named: str
) -> None:
    await take(http, export_of(*CONVERSATION))
    content = export_of([message("m7")], mine, [message("m8")])

    status, problem = await send(http, content)

    assert (status, problem["code"]) == (409, code)
    assert problem["detail"].startswith("line 3: ")
    assert named in problem["detail"]
    assert isinstance(node.entries[-1][0], MessageAppended)
    assert node.entries[-1][0].message_id == "m7"


async def test_a_conflict_can_be_left_out(http: aiohttp.ClientSession) -> None:
    await take(http, export_of(*CONVERSATION))
    content = export_of([message("m1", "something else"), message("m6")], [message("m8")])

    done = await take(http, content, "?on_conflict=skip&first_line=100")

    assert [(each["line"], each["code"]) for each in done["refusals"]] == [(100, "message_conflict")]
    assert (done["refused"], done["recorded"]) == (1, 1)
    assert (await http.get("/sessions/s/messages/m6")).status == 404


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (message("m1", " "), "content must not be blank"),
        (message("m\n"), "control character"),
        (message("m1", at_ms=NOW_MS + 3_600_000), "an event cannot be of a later time"),
        (SessionCreated(session_id="", at_ms=THEN_MS), "session_id has 0 characters"),
        (SessionCreated(session_id="s", at_ms=THEN_MS, tenant="t2"), "the tenant is 't2'"),
        (vectors("m1", value=b"\0"), "a vector has 15 bytes"),
    ],
)
async def test_what_no_command_would_have_written_is_refused(
    http: aiohttp.ClientSession, node: Node, event: Event, said: str
) -> None:
    status, problem = await send(http, export_of([message("m0")], [event]))

    assert status == 400
    assert "line 3: " in problem["detail"]
    assert said in problem["detail"]
    assert len(node.entries) == 1


async def test_tokens_are_counted_anew(http: aiohttp.ClientSession) -> None:
    await take(http, export_of([message("m1", "three words here")]))

    assert (await (await http.get("/sessions/s/messages/m1")).json())["tokens"] == 3


async def test_vectors_of_this_model_are_taken_and_others_made_anew(http: aiohttp.ClientSession, node: Node) -> None:
    unsound = vectors("m3", value=b"\0\x7c")  # infinite

    done = await take(
        http,
        export_of([message("m1"), vectors("m1")], [message("m2"), vectors("m2", model="x")], [message("m3"), unsound]),
    )

    found = [
        event.chunks[0].vector[:2] for entry in node.entries for event in entry if isinstance(event, MessageEmbedded)
    ]
    assert len(found) == 3
    assert found[0] == b"\0<"
    assert found[1] == found[2] != b"\0<"
    assert done["left_out"] == 2


async def test_vectors_that_came_later_find_their_message(http: aiohttp.ClientSession, node: Node) -> None:
    """A message whose vectors are lacking gets those of a later line, which names another node's log index."""
    services = node.services()
    assert services.intake is not None
    services.ingest._embedder = None  # noqa: SLF001 - as where a remote model embeds later
    server = HttpServer(build(services), host="127.0.0.1", port=0, stop_s=1)
    await server.start()
    async with aiohttp.ClientSession(server.url) as client:
        failed = WorkAbandoned(session_id="s", at_ms=1, work="embedding", message_id="m0", error="away", attempts=5)
        await take(client, export_of([message("m0")], [failed], [message("m1")], [vectors("m1", source_index=30)]))
        status = (await (await client.get("/sessions/s/messages/m1")).json())["embedding"]
    await server.stop()

    assert status == "done"


async def test_a_deletion_forgets_what_is_older_than_it(http: aiohttp.ClientSession) -> None:
    await take(http, export_of(*CONVERSATION, [message("n1", session_id="t")]))
    later = export_of(
        [MessageDeleted(session_id="s", at_ms=THEN_MS + 5, message_id="m1")],
        [FactUnpinned(session_id="s", at_ms=THEN_MS + 5, fact_id="f1")],
        [SessionDeleted(session_id="t", at_ms=THEN_MS + 5)],
    )

    kept = await take(http, later, "?deletions=skip")
    done = await take(http, later)

    assert (kept["unwanted"], kept["recorded"], done["recorded"]) == (3, 0, 3)
    assert (await http.get("/sessions/s/messages/m1")).status == 404
    assert (await http.get("/sessions/t")).status == 404
    assert (await (await http.get("/sessions/s/core-memory")).json())["facts"] == []


async def test_a_message_outlives_a_deletion_that_came_before_it(http: aiohttp.ClientSession, node: Node) -> None:
    """Deleting what is unknown is no error, so a message may come behind a deletion of its id."""
    content = export_of([MessageDeleted(session_id="s", at_ms=THEN_MS - 1, message_id="m1")], *CONVERSATION)
    await take(http, content)
    before = len(node.log.held)

    again = await take(http, content)

    assert (again["recorded"], again["left_out"], len(node.log.held)) == (0, 1, before)
    assert (await http.get("/sessions/s/messages/m1")).status == 200


async def test_what_is_older_than_a_sessions_last_change_does_not_take_it_back(http: aiohttp.ClientSession) -> None:
    await http.post("/sessions/s/messages", json={"role": "user", "content": "hello", "id": "m0"})
    before = await (await http.get("/sessions/s")).json()

    await take(http, export_of([message("m1"), vectors("m1")], [pinned("f1", "likes animals")]))

    after = await (await http.get("/sessions/s")).json()
    assert after["counts"]["messages"] == 2
    assert (after["updated_at"], after["created_at"]) == (before["updated_at"], before["created_at"])
    past = await (await http.get(f"/sessions/s?as_of={after['index']}")).json()
    assert past["updated_at"] == after["updated_at"]


async def test_a_session_that_was_made_again_outlives_an_older_deletion(http: aiohttp.ClientSession) -> None:
    await take(http, export_of([message("m1", at_ms=THEN_MS + 9)]))

    await take(http, export_of([SessionDeleted(session_id="s", at_ms=THEN_MS)]))

    assert (await http.get("/sessions/s/messages/m1")).status == 200


async def test_what_was_deleted_here_stays_deleted(http: aiohttp.ClientSession) -> None:
    await take(http, export_of(*CONVERSATION))
    await http.delete("/sessions/s/messages/m2")

    done = await take(http, export_of(*CONVERSATION))

    assert (done["forgotten"], done["recorded"]) == (1, 0)
    assert (await http.get("/sessions/s/messages/m2")).status == 404


async def test_a_workers_failure_is_not_taken_over(http: aiohttp.ClientSession, node: Node) -> None:
    failed = WorkAbandoned(session_id="s", at_ms=1, work="embedding", message_id="m1", error="away", attempts=5)

    done = await take(http, export_of([message("m1")], [failed]))

    assert (done["left_out"], len(node.entries)) == (1, 1)


async def test_many_lines_are_taken_in_their_order(http: aiohttp.ClientSession, node: Node) -> None:
    entries = [[message(f"m{number}", f"number {number}", session_id=f"s{number % 3}")] for number in range(500)]

    done = await take(http, export_of(*entries))

    assert done["recorded"] == 500
    appended = [entry[0] for entry in node.entries if isinstance(entry[0], MessageAppended)]
    assert [event.message_id for event in appended] == [f"m{number}" for number in range(500)]


async def test_another_media_type_is_refused(http: aiohttp.ClientSession) -> None:
    async with http.post("/import", data=b"{}", headers={"Content-Type": "text/plain"}) as answer:
        assert answer.status == 415
        assert "it takes application/x-ndjson" in (await answer.json())["detail"]


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b'{"format":"other"}\n', export_of(*CONVERSATION)[:-9]])
async def test_what_is_no_export_is_refused(http: aiohttp.ClientSession, content: bytes) -> None:
    status, problem = await send(http, content)

    assert status == 400
    assert "line " in problem["detail"]


async def test_a_log_that_takes_no_more_is_waited_for(
    http: aiohttp.ClientSession, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "BUSY_S", 0.1)
    node.log.refuse_with = OverloadedError("full")
    status, problem = await send(http, export_of(*CONVERSATION))
    node.log.refuse_with = None

    assert (status, problem["code"]) == (503, "overloaded")
    assert problem["detail"].startswith("line 2: full")
    assert (await take(http, export_of(*CONVERSATION)))["recorded"] == 8


async def test_a_log_without_a_leader_says_where_the_import_stopped(http: aiohttp.ClientSession, node: Node) -> None:
    node.log.refuse_with = NoLeaderError("no leader is known")

    status, problem = await send(http, export_of(*CONVERSATION))

    assert (status, problem["code"]) == (503, "no_leader")
    assert "line 2: " in problem["detail"]


async def test_imports_are_few_at_a_time(http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "IMPORTS_MAX", 0)

    assert (await send(http, export_of(*CONVERSATION)))[0] == 503


async def test_the_leader_takes_imports(node: Node, cluster: FakeCluster, server: HttpServer) -> None:
    cluster.leader_id = 2
    async with (
        aiohttp.ClientSession(server.url) as http,
        http.post("/import", data=export_of(*CONVERSATION), headers=HEADERS, allow_redirects=False) as answer,
    ):
        assert answer.status == 307
        assert answer.headers["Location"].endswith("/import")
