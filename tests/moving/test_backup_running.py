"""Copies of a node that runs, made while clients write and delete, over HTTP and in a process of its own."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from engram.events import MessageAppended, SessionDeleted
from engram.moving.backup_format import BackupReader
from engram.moving.export_format import ExportReader
from engram.projections.sqlite_store import PrimaryStore
from tests.server_process import PROJECT, ServerProcess, find_free_port

pytestmark = pytest.mark.timeout(120)
"""A process takes seconds to start, several of them more, and on a busy machine many."""

SECRET = "the vault opens with 4711"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "node", find_free_port()) as server:
        yield server


def engram(*argv: str, cwd: Path, data_dir: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "HOME": str(cwd)}
    if data_dir is not None:
        environ["ENGRAM_DATA_DIR"] = str(data_dir)
    return subprocess.run(
        [sys.executable, "-m", "engram", *argv], cwd=cwd, env=environ, capture_output=True, text=True, check=False
    )


async def digest_at(path: Path) -> tuple[int, dict[str, str]]:
    """Return how far a stopped node's projections are, and their digests."""
    store = await PrimaryStore.open(path)
    try:
        return store.applied_index, await store.digest()
    finally:
        await store.close()


async def write(http: aiohttp.ClientSession, session_id: str, messages: int, text: str = "hello there") -> None:
    for number in range(0, messages, 100):
        batch = [{"role": "user", "content": f"{text} {n}", "id": f"m{n}"} for n in range(number, number + 100)]
        async with http.post(f"/sessions/{session_id}/messages", json={"messages": batch}) as answer:
            assert answer.ok, await answer.text()


async def download(http: aiohttp.ClientSession, path: str) -> bytes:
    async with http.get(path) as answer:
        assert answer.ok, await answer.text()
        return await answer.read()


def test_a_backup_of_a_running_node_restores_to_its_digests(server: ServerProcess, tmp_path: Path) -> None:
    async def fill() -> None:
        async with aiohttp.ClientSession(server.url) as http:
            await write(http, "s1", 300)
            await write(http, "s2", 300)
            async with http.delete("/sessions/s1") as answer:
                assert answer.status == 204

    asyncio.run(fill())
    file = tmp_path / "a.backup"
    made = engram("backup", "--url", server.url, str(file), cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert server.stop() == 0
    copy = tmp_path / "copy"

    restored = engram("restore", str(file), "--data-dir", str(copy), cwd=tmp_path)
    assert restored.returncode == 0, restored.stderr
    assert engram("rebuild", "projections", cwd=tmp_path, data_dir=copy).returncode == 0

    source = asyncio.run(digest_at(tmp_path / "node" / "data" / "projections.db"))
    assert asyncio.run(digest_at(copy / "projections.db")) == source


@pytest.mark.thorough
def test_a_restored_node_serves_and_takes_writes(server: ServerProcess, tmp_path: Path) -> None:
    async def asked(url: str) -> tuple[int, int]:
        async with aiohttp.ClientSession(url) as http:
            await write(http, "s2", 100)
            async with http.get("/sessions/s1") as one, http.get("/sessions/s2") as two:
                return (await one.json())["counts"]["messages"], (await two.json())["counts"]["messages"]

    async def fill() -> None:
        async with aiohttp.ClientSession(server.url) as http:
            await write(http, "s1", 100)

    asyncio.run(fill())
    file = tmp_path / "a.backup"
    engram("backup", "--url", server.url, str(file), cwd=tmp_path)
    engram("restore", str(file), "--data-dir", str(tmp_path / "copy" / "data"), cwd=tmp_path)

    with ServerProcess(tmp_path / "copy", find_free_port()) as copy:
        assert asyncio.run(asked(copy.url)) == (100, 100)


@pytest.mark.thorough
def test_a_backup_under_writes_and_deletions_restores(server: ServerProcess, tmp_path: Path) -> None:
    """That it is the log at one index is a property, see test_rows; here it is seen with all parts at work."""
    files: list[Path] = []

    async def churn(http: aiohttp.ClientSession, done: asyncio.Event) -> None:
        number = 0
        while not done.is_set():
            number += 1
            await write(http, f"c{number}", 100, f"{SECRET} round {number}")
            async with http.delete(f"/sessions/c{number}/messages/m{number % 100}") as answer:
                assert answer.status == 204
            async with http.delete(f"/sessions/c{number - 1}") as answer:
                assert answer.status == 204

    async def back_up(http: aiohttp.ClientSession, done: asyncio.Event) -> None:
        for number in range(2):
            files.append(tmp_path / f"{number}.backup")
            content = await download(http, "/backup")
            await asyncio.to_thread(files[-1].write_bytes, content)
        done.set()

    async def both() -> None:
        done = asyncio.Event()
        async with aiohttp.ClientSession(server.url) as http:
            await write(http, "kept", 300)
            async with asyncio.TaskGroup() as group:
                group.create_task(churn(http, done))
                group.create_task(back_up(http, done))

    asyncio.run(both())

    for number, file in enumerate(files):
        copy = tmp_path / f"copy-{number}"
        assert engram("restore", str(file), "--data-dir", str(copy), cwd=tmp_path).returncode == 0
        checked = engram("rebuild", "projections", cwd=tmp_path, data_dir=copy)
        assert checked.returncode == 0, checked.stderr
        assert asyncio.run(message_count(copy / "projections.db", "kept")) == 300


async def message_count(path: Path, session_id: str) -> int:
    store = await PrimaryStore.open(path)
    try:
        session = await store.session(session_id, "default")
        return 0 if session is None else session.message_count
    finally:
        await store.close()


def test_what_was_deleted_before_a_backup_is_not_in_it(server: ServerProcess) -> None:
    async def copies() -> tuple[bytes, bytes]:
        async with aiohttp.ClientSession(server.url) as http:
            await write(http, "s1", 100, SECRET)
            await write(http, "s2", 100)
            async with http.delete("/sessions/s1") as answer:
                assert answer.status == 204
            return await download(http, "/backup"), await download(http, "/export")

    backup, export = asyncio.run(copies())

    assert SECRET.encode() not in backup
    assert SECRET.encode() not in export
    assert b"hello there 7" in backup
    assert b"hello there 7" in export


@pytest.mark.thorough
def test_an_export_says_all_that_happened(server: ServerProcess, tmp_path: Path) -> None:
    async def fill() -> None:
        async with aiohttp.ClientSession(server.url) as http:
            await write(http, "s1", 100)
            await write(http, "s&2", 100)
            async with http.delete("/sessions/s1") as answer:
                assert answer.status == 204

    asyncio.run(fill())

    whole = engram("export", "--url", server.url, "-", cwd=tmp_path)
    one = engram("export", "--url", server.url, "--session", "s&2", str(tmp_path / "one.jsonl"), cwd=tmp_path)

    assert (whole.returncode, one.returncode) == (0, 0), whole.stderr + one.stderr
    events = [event for entry in ExportReader().feed(whole.stdout.encode()) for event in entry.events]
    assert [type(event) for event in events if event.session_id == "s1"] == [SessionDeleted]
    assert len([event for event in events if isinstance(event, MessageAppended)]) == 100
    lines = list(ExportReader().feed((tmp_path / "one.jsonl").read_bytes()))
    assert {event.session_id for entry in lines for event in entry.events} == {"s&2"}


async def take_and_kill(http: aiohttp.ClientSession, pid: int) -> bytes:
    """Return what comes of a backup from a node that is killed when the first part is there."""
    taken = bytearray()
    async with http.get("/backup") as answer:
        with contextlib.suppress(aiohttp.ClientError):
            async for part in answer.content.iter_any():
                taken += part
                os.kill(pid, signal.SIGKILL)
    return bytes(taken)


@pytest.mark.thorough
def test_a_node_that_stops_leaves_no_file_that_looks_whole(server: ServerProcess, tmp_path: Path) -> None:
    async def broken() -> bytes:
        async with aiohttp.ClientSession(server.url, read_bufsize=1024) as http:
            for number in range(16):
                await write(http, f"s{number}", 100, "words " * 500)
            return await take_and_kill(http, server.pid)

    reader = BackupReader()
    list(reader.feed(asyncio.run(broken())))

    assert reader.tail is None
    missing = engram("backup", "--url", server.url, str(tmp_path / "a.backup"), cwd=tmp_path)
    assert missing.returncode == 1
    assert "no node answers" in missing.stderr
    assert list(tmp_path.glob("a.backup*")) == []
