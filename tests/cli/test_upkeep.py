"""What `engram verify --url` and `engram rebuild --url` say of a running node."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from rich.console import Console

from engram.api.app import build
from engram.api.server import HttpServer
from engram.cli import upkeep
from engram.cli.progress import Progress
from engram.cli.remote import RemoteError
from engram.database import Database
from tests.api.node import running_node
from tests.cli.conftest import Run

MESSAGE = {"role": "user", "content": "Ann moved to Oslo", "id": "m1"}


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """Return where a node serves that has one message, with its read models in `tmp_path`."""
    async with running_node(tmp_path) as node:
        server = HttpServer(build(node.services()), host="127.0.0.1", port=0, stop_s=1)
        await server.start()
        async with aiohttp.ClientSession(server.url) as http, http.post("/sessions/s1/messages", json=MESSAGE):
            pass
        yield server.url
        await server.stop()


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def progress(said: io.StringIO) -> Progress:
    return Progress(Console(file=said, soft_wrap=True))


async def test_a_sound_node_is_said_to_be_sound(url: str, progress: Progress, said: io.StringIO) -> None:
    code = await upkeep.verify(url, progress)

    assert code == 0
    assert said.getvalue().endswith("everything is as the log says, up to entry 1\n")


async def test_what_differs_is_a_line_each(url: str, progress: Progress, said: io.StringIO, tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "projections.db", ())
    await database.run(lambda connection: connection.execute("UPDATE contents SET text = 'Ann moved to Rome'"))
    await database.close()

    code = await upkeep.verify(url, progress)

    assert code == 1
    assert said.getvalue().endswith("messages: session s1, message m1, entry 1: text differs\n1 problem\n")


async def test_a_refusal_is_told_with_its_code(url: str, progress: Progress) -> None:
    with pytest.raises(RemoteError, match=r"REDIS_URL is not set .* \(invalid_value\)"):
        await upkeep.rebuild(url, "redis", progress)


async def test_the_read_models_are_rebuilt_while_the_node_runs(
    url: str, progress: Progress, said: io.StringIO, tmp_path: Path
) -> None:
    database = await Database.open(tmp_path / "projections.db", ())
    await database.run(lambda connection: connection.execute("UPDATE contents SET text = 'Ann moved to Rome'"))
    await database.close()

    assert await upkeep.rebuild(url, "projections", progress) == 0

    assert "writes waited" in said.getvalue()
    assert said.getvalue().endswith("the read models are written again\n")
    assert await upkeep.verify(url, progress) == 0


def test_where_no_node_is_that_is_said(run: Run) -> None:
    result = run("verify", "--url", "127.0.0.1:1")

    assert result.code == 1
    assert "no node answers at http://127.0.0.1:1/admin/verify" in result.err
