"""`engram reembed --url`: a running node moved from the command line, which may stop and look again."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engram.inference.builtin import MODEL
from tests.cli.conftest import Run
from tests.fake_openai import FakeOpenAI
from tests.server_process import ServerProcess
from tests.test_reembed_node import BATCH, NEW, Gate, is_moved, write

pytestmark = pytest.mark.timeout(120)

PROJECT = Path(__file__).parents[2]


@pytest.fixture
async def server(tmp_path: Path, free_port: int) -> AsyncIterator[ServerProcess]:
    node = ServerProcess(tmp_path, free_port)
    await asyncio.to_thread(node.start)
    await write(free_port, range(200))
    yield node
    node.kill()


@pytest.fixture
async def openai() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI(8) as running:
        yield running


def command(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "engram", "reembed", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)},
        stderr=subprocess.PIPE,
        text=True,
    )


async def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = await asyncio.to_thread(process.communicate)
    return process.returncode, said


def arguments(server: ServerProcess, openai: FakeOpenAI) -> list[str]:
    return ["--url", server.url, "--embedder", "openai", "--model", NEW, "--dimension", "8", "--base-url", openai.url]


async def test_it_shows_the_move_may_be_stopped_and_finds_it_again(
    server: ServerProcess, openai: FakeOpenAI, tmp_path: Path
) -> None:
    openai.always = gate = Gate(batches=1)
    first = command(tmp_path, *arguments(server, openai))
    assert first.stderr is not None
    line = await asyncio.to_thread(first.stderr.readline)
    first.send_signal(signal.SIGINT)
    stopped, said = await ended(first)

    second = command(tmp_path, *arguments(server, openai))
    assert second.stderr is not None
    again = await asyncio.to_thread(second.stderr.readline)
    gate.opened.set()
    done, finished = await ended(second)
    watching, told = await ended(command(tmp_path, "--url", server.url))

    assert line == f"moving to {NEW}: 200\n"
    assert stopped == 130, said
    assert again == "that move is under way\n"
    assert done == 0, finished
    assert f"200 of 200 messages have vectors of {NEW}, 0 were refused" in finished
    assert (watching, told) == (0, f"200 of 200 messages have vectors of {NEW}, 0 were refused\n")


@pytest.mark.thorough
async def test_what_is_refused_is_counted_and_told_by_the_exit_code(
    server: ServerProcess, openai: FakeOpenAI, tmp_path: Path
) -> None:
    openai.poison = "note 77 "

    code, said = await ended(command(tmp_path, *arguments(server, openai)))

    assert code == 1
    assert said.endswith(f"199 of 200 messages have vectors of {NEW}, 1 were refused\n")


@pytest.mark.thorough
async def test_a_move_to_somewhere_else_while_one_runs_is_refused(
    server: ServerProcess, openai: FakeOpenAI, tmp_path: Path
) -> None:
    openai.always = gate = Gate(batches=1)
    first = command(tmp_path, *arguments(server, openai))
    assert first.stderr is not None
    await asyncio.to_thread(first.stderr.readline)

    code, said = await ended(command(tmp_path, "--url", server.url, "--embedder", "builtin"))
    gate.opened.set()
    await ended(first)
    done = await is_moved(server.port)

    assert code == 1
    assert f"{BATCH} of 200 messages are; wait until it is done (reembedding_running)" in said
    assert (done["model"], done["done"]) == (NEW, 200)


async def test_what_the_node_refuses_is_told(server: ServerProcess, tmp_path: Path) -> None:
    url = ["--url", server.url]
    away = ["--embedder", "openai", "--model", NEW, "--dimension", "8", "--base-url", "http://127.0.0.1:1"]

    same = await ended(command(tmp_path, *url, "--embedder", "builtin"))
    silent = await ended(command(tmp_path, *url, *away))
    nothing = await ended(command(tmp_path, *url))

    assert (same[0], "is in use already (embedder_in_use)" in same[1]) == (1, True)
    assert (silent[0], "the embedder cannot be reached (embedder_unavailable)" in silent[1]) == (1, True)
    assert nothing == (0, f"nothing is being moved: {MODEL} is in use\n")


def test_where_no_node_is_that_is_said(run: Run) -> None:
    result = run("reembed", "--url", "127.0.0.1:1")

    assert result.code == 1
    assert "no node answers at http://127.0.0.1:1/admin/reembed" in result.err


def test_an_embedder_without_a_node_is_no_setting(run: Run) -> None:
    result = run("reembed", "--embedder", "minilm")

    assert result.code == 2
    assert "need --url" in result.err
