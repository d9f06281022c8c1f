import asyncio
from pathlib import Path

import numpy as np
import pytest

from engram.inference.builtin import DIMENSION, MODEL
from engram.projections.lance_rows import Scope
from engram.projections.lance_store import LanceStore
from tests.cli.conftest import Run
from tests.cli.data_folder import DataFolder, conversation, deletion
from tests.projections.embedded import LOG_END
from tests.projections.redis_scene import needs_redis
from tests.redis_server import RedisServer


async def stored_ids(path: Path, model: str = MODEL, dimension: int = DIMENSION) -> list[str]:
    """Return the ids of the messages that LanceDB holds."""
    store = LanceStore(str(path), model=model, dimension=dimension)
    try:
        await store.open(log_last_index=LOG_END)
        hits = await store.search(np.ones(dimension, np.float32), Scope("default"), 1000)
        return sorted(hit.message_id for hit in hits)
    finally:
        await store.stop()


def test_projections_are_what_the_log_says_again(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write([*conversation(), deletion("s1"), *conversation("s2")]))
    wanted = asyncio.run(folder.digest())
    folder.alter(folder.projections_path, b"likes tea", b"likes gin")

    result = run("rebuild", "projections")

    assert result.code == 0
    assert asyncio.run(folder.digest()) == wanted
    assert "1 sessions, 3 messages, 1 facts" in result.err
    assert not folder.lance_path.exists()


def test_lancedb_holds_what_is_in_the_projections_again(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation(messages=5)))

    result = run("rebuild", "lancedb")

    assert result.code == 0
    assert asyncio.run(stored_ids(folder.lance_path)) == [f"m{number}" for number in range(5)]


def test_lancedb_is_rebuilt_from_projections_that_were_behind(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation(messages=5), folded=2))

    run("rebuild", "lancedb")

    assert len(asyncio.run(stored_ids(folder.lance_path))) == 5


@needs_redis
def test_redis_holds_what_is_in_the_projections_again(
    folder: DataFolder, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_port: int
) -> None:
    asyncio.run(folder.write(conversation(messages=5)))
    with RedisServer(tmp_path / "redis", free_port) as server:
        monkeypatch.setenv("REDIS_URL", server.url)

        rebuilt, sound = run("rebuild", "redis"), run("verify")
        with server.client() as client:
            client.lset("engram:1:default:s1:messages", 0, "tea")
        damaged = run("verify")

    assert rebuilt.code == 0
    assert "Redis holds the latest 5 messages" in rebuilt.err
    assert sound.code == 0
    assert damaged.code == 1
    assert "redis: session 's1', entry 7: what is stored cannot be read" in damaged.err
    assert "run `engram rebuild redis`" in damaged.err


@needs_redis
def test_a_redis_that_is_away_fails_its_rebuild(
    folder: DataFolder, run: Run, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    asyncio.run(folder.write(conversation()))
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port}")

    result = run("rebuild", "redis")

    assert result.code == 1
    assert "Redis: " in result.err
    assert "Traceback" not in result.err


def test_there_is_no_redis_to_rebuild_where_none_is_set(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))

    result = run("rebuild", "redis")

    assert result.code == 2
    assert "REDIS_URL is not set" in result.err


@pytest.mark.parametrize("argv", [["rebuild"], ["rebuild", "all"]])
def test_all_is_the_default(folder: DataFolder, run: Run, argv: list[str]) -> None:
    asyncio.run(folder.write(conversation()))
    folder.projections_path.unlink()

    result = run(*argv)

    assert result.code == 0
    assert run("verify").code == 0
    assert len(asyncio.run(stored_ids(folder.lance_path))) == 3


def test_a_damaged_log_is_no_source(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))
    folder.alter(folder.log_path, b"says number 1", b"says numbed 1")
    before = folder.projections_path.read_bytes()

    result = run("rebuild")

    assert result.code == 1
    assert "log entry 3" in result.err
    assert folder.projections_path.read_bytes() == before


def test_vectors_are_written_as_they_are_stored_whatever_the_settings_name(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation(model="another-model")))

    result = run("rebuild", "lancedb")

    assert result.code == 0
    assert "3 vectors of another-model" in result.err
    assert len(asyncio.run(stored_ids(folder.lance_path, "another-model"))) == 3


def test_a_long_term_store_that_cannot_be_written_is_named(
    folder: DataFolder, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(folder.write(conversation()))
    blocked = folder.path / "a-file"
    blocked.write_text("where a folder should be")
    monkeypatch.setenv("LANCE_DB_PATH", str(blocked / "lance"))

    result = run("rebuild", "lancedb")

    assert result.code == 1
    assert f"LanceDB at {blocked / 'lance'}" in result.err
