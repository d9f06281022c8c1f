"""`engram import --url`: real nodes, real commands."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from engram.cli import import_running
from engram.cli.progress import Progress
from engram.cli.remote import RemoteError
from engram.moving.export_format import ExportHead, ExportWriter
from tests.projections.contents import contents_of
from tests.server_process import PROJECT, ServerProcess, find_free_port

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Return a node with something in it, and one with nothing."""
    folder = tmp_path_factory.mktemp("import")
    with (
        ServerProcess(folder / "source", find_free_port()) as source,
        ServerProcess(folder / "target", find_free_port()) as target,
    ):
        asyncio.run(fill(source.url))
        yield source, target


async def fill(url: str) -> None:
    async with aiohttp.ClientSession(url) as http:
        for session_id in ("s1", "s2"):
            await http.post("/sessions", json={"session_id": session_id, "agent_id": "a"})
            await http.put(f"/sessions/{session_id}/core-memory", json={"fact": "likes tea", "id": "f1"})
            for number in range(10):
                batch = [{"role": "user", "content": f"text {number} {n}", "id": f"m{number}-{n}"} for n in range(50)]
                async with http.post(f"/sessions/{session_id}/messages", json={"messages": batch}) as answer:
                    assert answer.ok
        await change(http)


async def change(http: aiohttp.ClientSession) -> None:
    """Refuse something, forget something of every kind, and open a session."""
    async with http.post("/sessions/s1/messages", json={"role": "user", "content": "another", "id": "m0-0"}) as answer:
        assert answer.status == 409
    await http.post("/sessions/s3/messages", json={"role": "user", "content": "soon gone", "id": "m1"})
    await http.put("/sessions/s1/core-memory", json={"fact": "likes gin", "id": "f2"})
    for path in ("/sessions/s1/messages/m0-1", "/sessions/s1/core-memory/f2", "/sessions/s3"):
        async with http.delete(path) as answer:
            assert answer.ok
    async with http.put("/sessions/s2/visibility", json={"visibility": "Shared"}) as answer:
        assert answer.ok


def engram(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "HOME": str(cwd)}
    command = [sys.executable, "-m", "engram", *argv]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False)


async def ask(url: str, path: str) -> Any:
    async with aiohttp.ClientSession(url) as http, http.get(path) as answer:
        assert answer.ok
        return await answer.json()


@pytest.mark.thorough
def test_what_a_node_holds_moves_to_another_that_runs(
    nodes: tuple[ServerProcess, ServerProcess], tmp_path: Path
) -> None:
    source, target = nodes
    exported = engram("export", "--url", source.url, str(tmp_path / "all.jsonl"), cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr

    first = engram("import", "--url", target.url, "all.jsonl", cwd=tmp_path)
    again = engram("import", "--url", target.url, "all.jsonl", cwd=tmp_path)

    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    # of the deletion of a message its place and its end; that of a session that never came is of no use
    assert "2007 events are new here, 0 were here already, 1 of no use here" in first.stderr
    assert "0 events are new here, 2005 were here already, 3 of no use here" in again.stderr
    here, there = (contents_of(node.data / "projections.db") for node in nodes)
    assert there == here
    for path in ("/sessions/s1/core-memory", "/sessions/s2/context?query=text&max_tokens=500"):
        ours, theirs = [asyncio.run(ask(url, path)) for url in (source.url, target.url)]
        assert without_indexes(ours) == without_indexes(theirs)


def without_indexes(value: Any) -> Any:
    if isinstance(value, list):
        return [without_indexes(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {name: without_indexes(each) for name, each in value.items() if "index" not in name}


@pytest.mark.thorough
def test_a_conflict_is_named_and_can_be_left_out(nodes: tuple[ServerProcess, ServerProcess], tmp_path: Path) -> None:
    source, _ = nodes
    file = tmp_path / "s1.jsonl"
    assert engram("export", "--url", source.url, "--session", "s1", str(file), cwd=tmp_path).returncode == 0
    with ServerProcess(tmp_path / "third", find_free_port()) as third:
        asyncio.run(pin(third.url))

        stopped = engram("import", "--url", third.url, "s1.jsonl", cwd=tmp_path)
        behind = engram("import", "--url", third.url, "--from-line", "3", "s1.jsonl", cwd=tmp_path)
        done = engram("import", "--url", third.url, "--on-conflict", "skip", "s1.jsonl", cwd=tmp_path)

    assert (stopped.returncode, done.returncode) == (1, 1)
    assert "line 2: session 's1' is here with another agent, user or metadata (session_conflict)" in stopped.stderr
    assert "--on-conflict skip" in stopped.stderr
    assert "nothing before that" in stopped.stderr
    assert "everything up to line 2 is imported" in behind.stderr
    assert "line 3: fact 'f1' of session 's1' is here with other content" in done.stderr
    assert "998 events are new here" in done.stderr
    assert "2 lines left out for conflicts" in done.stderr


async def pin(url: str) -> None:
    async with aiohttp.ClientSession(url) as http:
        await http.put("/sessions/s1/core-memory", json={"fact": "hates tea", "id": "f1"})


async def test_a_node_that_is_away_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_running, "RETRY_S", 0.001)
    monkeypatch.setattr(import_running, "RETRY_MAX_S", 0.001)
    file = tmp_path / "empty.jsonl"
    writer = ExportWriter()
    head = ExportHead(engram="0", created_at_ms=0, store_id="s", cluster_id="", after=0, session_id=None)
    await asyncio.to_thread(file.write_bytes, writer.begin(head) + writer.end(0))
    url = f"http://127.0.0.1:{find_free_port()}"
    manner = import_running.Manner("stop", "apply", 2)

    with pytest.raises(RemoteError, match=r"no node answers at http.*nothing before that is known to be imported"):
        await import_running.import_into(url, [str(file)], manner, Progress())
