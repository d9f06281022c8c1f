import asyncio
import shutil

from engram.inference.builtin import DIMENSION, MODEL
from engram.log.sqlite import SqliteLog
from engram.projections.lance_rows import Erasure
from engram.projections.lance_store import LanceStore
from engram.projections.sqlite_store import PrimaryStore
from tests.cli.conftest import Run
from tests.cli.data_folder import DataFolder, conversation, deletion, message
from tests.projections.embedded import LOG_END


def test_a_sound_folder_passes(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write([*conversation(), deletion("s1"), *conversation("s2")]))

    result = run("verify")

    assert result.code == 0
    assert "everything is as it was written" in result.err
    assert "last index 10" in result.err


def test_verifying_changes_nothing(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}

    run("verify")

    # SQLite leaves an empty write-ahead log beside what it has read.
    assert {path: path.read_bytes() for path in before} == before


def test_a_damaged_entry_is_named(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write([message("s1", "m1", "good"), message("s1", "m2", "wholesome"), message("s1", "m3", "x")]))
    folder.alter(folder.log_path, b"wholesome", b"wholesale")

    result = run("verify")

    assert result.code == 1
    assert "log entry 3: fails its checksum" in result.err


def test_an_empty_log_file_is_named(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))
    folder.log_path.write_bytes(b"")

    result = run("verify")

    assert result.code == 1
    assert "the file has nothing in it" in result.err
    assert result.err.endswith("1 problem\n")


def test_a_read_model_that_differs_from_the_log_is_named(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))
    folder.alter(folder.projections_path, b"likes tea", b"likes gin")

    result = run("verify")

    assert result.code == 1
    assert "facts: session s1, fact f1, entry 5: text differs" in result.err
    assert result.err.endswith("run `engram rebuild projections`\n1 problem\n")
    assert "engram rebuild projections" in result.err
    assert "messages:" not in result.err


def test_entries_that_are_not_folded_yet_are_no_fault(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation(), folded=3))

    result = run("verify")

    assert result.code == 0
    assert "2 entries are not folded yet" in result.err


def test_read_models_that_are_not_there_are_no_fault(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation(), folded=0))
    folder.projections_path.unlink()

    result = run("verify")

    assert result.code == 0
    assert "no read models to compare" in result.err


def test_read_models_of_another_log_are_a_fault(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation(messages=9)))
    shutil.rmtree(folder.log_path.parent)
    kept = folder.projections_path.read_bytes()
    asyncio.run(folder.write(conversation(messages=1), folded=0))
    folder.projections_path.write_bytes(kept)

    result = run("verify")

    assert result.code == 1
    assert "the read models have folded entry 11, but the log ends at 3" in result.err


def test_what_a_killed_run_left_behind_is_removed(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))
    left = folder.path / ".verify-abc"
    left.mkdir()
    (left / "projections.db").write_text("somebody's text")

    run("verify")

    assert not left.exists()


def test_without_a_log_the_settings_are_in_doubt(folder: DataFolder, run: Run) -> None:
    result = run("verify")

    assert result.code == 2
    assert f"there is no log at {folder.log_path}" in result.err
    assert not folder.path.exists()


def test_while_a_node_runs_it_must_be_stopped_first(folder: DataFolder, run: Run) -> None:
    async def with_a_node() -> list[int]:
        log = await SqliteLog.open(folder.log_path)
        store = await PrimaryStore.open(folder.projections_path)
        try:
            commands = [("verify",), ("log", "show"), ("rebuild",), ("reembed",)]
            return [await asyncio.to_thread(expect_refusal, *command) for command in commands]
        finally:
            await store.close()
            await log.close()

    def expect_refusal(*command: str) -> int:
        result = run(*command)
        assert "stop the node first" in result.err
        return result.code

    asyncio.run(folder.write(conversation()))

    assert asyncio.run(with_a_node()) == [1, 1, 1, 1]


def test_lancedb_as_it_was_fed_passes(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write([*conversation(), *conversation("s2")]))
    run("rebuild", "lancedb")

    result = run("verify")

    assert "comparing LanceDB: 6" in result.err
    assert result.code == 0


def test_the_first_row_that_lancedb_lacks_is_named(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))
    run("rebuild", "lancedb")
    asyncio.run(_forget_in_lancedb(folder, "m1"))

    result = run("verify")

    assert result.code == 1
    assert "lancedb: memories: session s1, message m1, chunk 0, entry 3: is missing" in result.err
    assert "run `engram rebuild lancedb`" in result.err


async def _forget_in_lancedb(folder: DataFolder, message_id: str) -> None:
    store = LanceStore(str(folder.lance_path), model=MODEL, dimension=DIMENSION)
    try:
        await store.open(log_last_index=LOG_END)
        await store.forget([Erasure("default", "s1", message_id, LOG_END)])
    finally:
        await store.stop()
