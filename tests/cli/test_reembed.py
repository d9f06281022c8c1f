import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from engram.cli import main
from engram.projections.lance_rows import Space
from engram.projections.sqlite_store import PrimaryStore
from tests.cli.conftest import Run
from tests.cli.data_folder import DataFolder, conversation
from tests.cli.test_rebuild import stored_ids
from tests.fake_openai import FakeOpenAI

PROJECT = Path(__file__).parents[2]


async def space(folder: DataFolder) -> tuple[str, int, int]:
    """Return the model and width of the newest vectors, and how many messages have others."""
    store = await PrimaryStore.open(folder.projections_path)
    try:
        found = await store.embedding_space()
        assert found is not None
        others = await store.embedded_otherwise(Space(*found), after=0, limit=1000)
        return found.model, found.dimension, len(others.messages)
    finally:
        await store.close()


def test_every_message_gets_vectors_of_the_model_that_is_set(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation(messages=7, model="another-model")))

    result = run("reembed")

    assert result.code == 0
    assert "7 messages embedded, 0 refused" in result.err
    assert asyncio.run(space(folder)) == ("wordllama-l2-supercat-256", 256, 0)
    assert len(asyncio.run(stored_ids(folder.lance_path))) == 7
    assert run("verify").code == 0


def test_doing_it_again_embeds_nothing(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation(model="another-model")))
    run("reembed")

    result = run("reembed")

    assert result.code == 0
    assert "0 messages embedded" in result.err
    assert len(asyncio.run(stored_ids(folder.lance_path))) == 3


def test_a_new_width_is_a_new_table(folder: DataFolder, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(folder.write(conversation()))
    run("rebuild", "lancedb")

    async def with_a_server() -> int:
        async with FakeOpenAI(dimension=8) as server:
            monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
            monkeypatch.setenv("EMBEDDER", "openai")
            monkeypatch.setenv("EMBEDDING_MODEL", "small-model")
            monkeypatch.setenv("EMBEDDING_DIMENSION", "8")
            return await asyncio.to_thread(main, ["reembed"])

    assert asyncio.run(with_a_server()) == 0
    assert asyncio.run(space(folder)) == ("small-model", 8, 0)
    assert len(asyncio.run(stored_ids(folder.lance_path, "small-model", 8))) == 3


@pytest.mark.thorough
async def test_stopped_with_ctrl_c_it_goes_on_where_it_was(folder: DataFolder) -> None:
    await folder.write(conversation(messages=40))
    async with FakeOpenAI(dimension=8) as server:
        environ = {
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "OPENAI_BASE_URL": f"{server.url}/v1",
            "EMBEDDER": "openai",
            "EMBEDDING_MODEL": "small-model",
            "EMBEDDING_DIMENSION": "8",
        }
        first = await asyncio.to_thread(start, folder, environ)
        await server.reached.wait()
        first.send_signal(signal.SIGINT)
        _, stopped = await asyncio.to_thread(first.communicate)
        second = await asyncio.to_thread(start, folder, environ)
        _, finished = await asyncio.to_thread(second.communicate)

    assert first.returncode == 130, stopped
    assert second.returncode == 0, finished
    assert await space(folder) == ("small-model", 8, 0)


def start(folder: DataFolder, environ: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "engram", "reembed"],
        cwd=folder.path.parent,
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.thorough
def test_an_embedder_that_is_away_is_named_and_nothing_is_lost(
    folder: DataFolder, run: Run, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    asyncio.run(folder.write(conversation()))
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{free_port}/v1")
    monkeypatch.setenv("EMBEDDER", "openai")

    result = run("reembed")

    assert result.code == 1
    assert result.err.count("Traceback") == 0
    assert sqlite3.connect(folder.projections_path).execute("SELECT count(*) FROM vectors").fetchone() == (3,)
