"""`engram diff`: on the data folder of a stopped node, and against one that serves HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engram.api.app import build
from engram.api.server import HttpServer
from engram.events import FactUnpinned, MessageDeleted, VisibilityChanged, encode
from tests.api.node import running_node
from tests.cli.conftest import Run
from tests.cli.data_folder import AT_MS, TEXT, DataFolder, conversation, message
from tests.projections.histories import said


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """Return the address of a node with a session `s/1` of two messages."""
    (tmp_path / "node").mkdir()
    async with running_node(tmp_path / "node") as node:
        server = HttpServer(build(node.services()), host="127.0.0.1", port=0, stop_s=1)
        await server.start()
        for number in (1, 2):
            node.log.propose(encode([said(f"m{number}", f"hello {number}", session_id="s/1")]))
        await node.projector.wait_applied(2, timeout_s=5)
        yield server.url
        await server.stop()


def test_what_changed_is_told_line_by_line(folder: DataFolder, run: Run) -> None:
    asyncio.run(
        folder.write(
            [
                *conversation(messages=2),
                message("s1", "m9", f"{TEXT}\nas ever"),
                [MessageDeleted(session_id="s1", at_ms=AT_MS, message_id="m0")],
                [FactUnpinned(session_id="s1", at_ms=AT_MS, fact_id="f1")],
                [VisibilityChanged(session_id="s1", at_ms=AT_MS, visibility="shared")],
            ]
        )
    )

    result = run("diff", "--session", "s1", "--from", "4")

    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [
        "session s1, from entry 4 (2023-11-14T22:13:20.000Z) to entry 8 (2023-11-14T22:13:20.000Z)",
        f"+        5 message m9 user: {TEXT} as ever",
        "-        6 message m0",
        "~        5 vectors of message m9 by wordllama-l2-supercat-256",
        "-        7 fact f1",
        "visibility: Private -> Shared",
        "messages: 1 -> 2",
        "facts: 0 -> 0",
        "tokens: 9 -> 18",
    ]


def test_what_is_not_folded_yet_counts_too(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation(messages=3), folded=2))

    result = run("diff", "--session", "s1", "--json")

    told = json.loads(result.out)
    assert (result.code, told["counts_after"]["messages"], told["to_index"]) == (0, 3, 5)


def test_how_the_context_for_a_query_changed_is_told(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation(messages=3)))

    result = run("diff", "--session", "s1", "--from", "3", "--to", "4", "--query", "coffee")

    assert result.out.splitlines()[-2:] == ["context for 'coffee':", "+        4 conversation: m2 of session s1"]


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--session", "s1", "--from", "soon"], "--from is 'soon'; it takes a log index, or an RFC 3339 time"),
        (["--session", "s1", "--to", "99"], "--to is 99; this node has applied the log up to entry 5"),
        (["--session", "s1", "--from", "4", "--to", "3"], "--from is log entry 4, which is behind --to, log entry 3"),
        (["--session", "s2"], "session 's2' is unknown as of log entry 5"),
    ],
)
def test_what_cannot_be_compared_is_told_in_a_line(
    folder: DataFolder, run: Run, argv: list[str], complaint: str
) -> None:
    asyncio.run(folder.write(conversation(messages=3)))

    result = run("diff", *argv)

    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"engram: {complaint}")


async def test_a_running_node_answers_the_same(run: Run, url: str) -> None:
    result = await asyncio.to_thread(run, "diff", "--session", "s/1", "--from", "1", "--url", url)

    assert result.out.splitlines()[1:3] == ["+        2 message m2 user: hello 2", "messages: 1 -> 2"]


async def test_what_a_running_node_refuses_is_told_with_its_code(run: Run, url: str) -> None:
    result = await asyncio.to_thread(run, "diff", "--session", "nobody", "--url", url)

    assert (result.code, result.out) == (1, "")
    assert "(session_not_found)" in result.err
