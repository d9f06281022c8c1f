import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from engram.cli.clean import settled_index
from engram.events import Event, FactUnpinned, MessageDeleted
from engram.log.changes import Append
from engram.log.consensus.types import ConfState, Entry, HardState
from engram.log.restoring import unfinished_files
from engram.log.sqlite import SqliteLog
from engram.moving.backup_format import BackupReader
from engram.projections.sqlite_store import PrimaryStore
from tests.cli.conftest import Run
from tests.cli.data_folder import AT_MS, TEXT, DataFolder, conversation, deletion, message

SECRET = "the vault opens with 4711"


def make_backup(folder: DataFolder, run: Run, name: str = "a.backup") -> Path:
    """Back up the stopped node; return the file."""
    path = folder.path.parent / name
    result = run("backup", str(path))
    assert result.code == 0, result.err
    return path


def restored(folder: DataFolder) -> DataFolder:
    return DataFolder(folder.path.parent / "restored")


async def history(path: Path) -> list[Entry]:
    """Return every row of a log."""
    log = await SqliteLog.open(path, read_only=True)
    try:
        return [entry async for batch in log.history() for entry in batch]
    finally:
        await log.close()


def test_what_is_restored_has_the_rows_and_the_digests_of_the_source(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write([*conversation(), deletion("s1"), *conversation("s2", 40)]))
    path = make_backup(folder, run)
    wanted, rows = asyncio.run(folder.digest()), asyncio.run(history(folder.log_path))

    result = run("restore", str(path), "--data-dir", str(restored(folder).path))

    assert result.code == 0, result.err
    assert asyncio.run(history(restored(folder).log_path)) == rows
    assert run("rebuild", "projections").code == 0
    assert asyncio.run(folder.digest()) == wanted


def test_a_restored_node_folds_to_the_same_digests(
    folder: DataFolder, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(folder.write([*conversation(), *conversation("s2", 40), deletion("s1")]))
    path = make_backup(folder, run)
    wanted = asyncio.run(folder.digest())
    copy = restored(folder)
    run("restore", str(path), "--data-dir", str(copy.path))
    monkeypatch.setenv("ENGRAM_DATA_DIR", str(copy.path))

    assert run("rebuild", "projections").code == 0

    assert asyncio.run(copy.digest()) == wanted
    assert run("check").code == 0


def test_a_restored_log_has_another_disk_and_no_cluster(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))
    path = make_backup(folder, run)

    run("restore", str(path), "--data-dir", str(restored(folder).path))

    async def states() -> list[tuple[str, str, ConfState, int]]:
        found = []
        for one in (folder, restored(folder)):
            log = await SqliteLog.open(one.log_path, read_only=True)
            state = log.state
            found.append((state.store_id, state.cluster_id, state.base_members, state.last_index))
            await log.close()
        return found

    (source, *_), (copy, cluster_id, members, last_index) = asyncio.run(states())
    assert source != copy
    assert (cluster_id, members, last_index) == ("", ConfState(voters=(1,)), 5)


def test_a_restored_log_can_be_written_to(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))
    path = make_backup(folder, run)
    run("restore", str(path), "--data-dir", str(restored(folder).path))

    async def append() -> int:
        log = await SqliteLog.open(restored(folder).log_path)
        await log.append([Append(entries=[Entry(term=2, index=6)], hard_state=HardState(term=2, vote=1, commit=6))])
        await log.close()
        return len(await history(restored(folder).log_path))

    assert asyncio.run(append()) == 6


def test_a_folder_with_data_is_not_restored_into(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))
    path = make_backup(folder, run)
    before = folder.log_path.read_bytes()

    result = run("restore", str(path))

    assert result.code == 2
    assert f"there is data already: {folder.log_path}" in result.err
    assert "--data-dir" in result.err
    assert folder.log_path.read_bytes() == before


@pytest.mark.parametrize("left", ["projections.db", "lancedb/messages.lance"])
def test_read_models_of_another_log_are_data_too(folder: DataFolder, run: Run, left: str) -> None:
    asyncio.run(folder.write(conversation()))
    path = make_backup(folder, run)
    file = restored(folder).path / left
    file.parent.mkdir(parents=True)
    file.write_bytes(b"something")

    result = run("restore", str(path), "--data-dir", str(restored(folder).path))

    assert result.code == 2
    assert "there is data already" in result.err


def damages(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield ways in which a backup can be damaged, and what is said of each."""
    middle = len(content) // 2
    yield "it was cut off", content[:-1]
    yield "it was cut off", content[:middle]
    yield "it was cut off", content[:7]
    yield "it was cut off", b""
    yield "fails its checksum", content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    yield "something follows its end", content + b"x"
    yield "this is no backup", b"{}" + content
    yield "a version that is not known here", content.replace(b"engram backup 1", b"engram backup 2", 1)


def test_a_damaged_backup_is_named_and_nothing_is_written(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation(messages=20)))
    path = make_backup(folder, run)

    for said, content in list(damages(path.read_bytes())):
        path.write_bytes(content)
        result = run("restore", str(path), "--data-dir", str(restored(folder).path))

        assert (result.code, said in result.err) == (1, True), result.err
        assert "at byte" in result.err
        assert not restored(folder).path.exists()


def test_every_byte_that_changes_is_noticed(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation(messages=1)))
    content = make_backup(folder, run).read_bytes()

    def is_noticed(place: int) -> bool:
        reader = BackupReader()
        try:
            for _ in reader.feed(content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :]):
                pass
            reader.finish()
        except Exception as error:  # noqa: BLE001 - which one is the point
            return "the backup" in str(error)
        return False

    assert [place for place in range(len(content)) if not is_noticed(place)] == []


def test_what_a_killed_restore_left_is_replaced(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))
    path = make_backup(folder, run)
    copy = restored(folder)
    copy.log_path.parent.mkdir(parents=True)
    for left in unfinished_files(copy.log_path):
        left.write_bytes(b"half of something")

    result = run("restore", str(path), "--data-dir", str(copy.path))

    assert result.code == 0, result.err
    assert [file.name for file in copy.log_path.parent.iterdir()] == ["engram.db"]


def test_a_file_that_is_there_is_not_overwritten(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))
    path = make_backup(folder, run)
    before = path.read_bytes()

    result = run("backup", str(path))

    assert result.code == 2
    assert f"{path} is there already" in result.err
    assert path.read_bytes() == before


def test_a_backup_is_for_its_owner_alone_and_leaves_nothing_beside_it(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))
    shelf = folder.path.parent / "shelf"
    shelf.mkdir()

    result = run("backup", str(shelf))

    assert result.code == 0, result.err
    [path] = shelf.iterdir()
    assert path.suffix == ".backup"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_log_is_not_backed_up(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))
    folder.alter(folder.log_path, b"says number 1", b"says numbed 1")
    path = folder.path.parent / "a.backup"

    result = run("backup", str(path))

    assert result.code == 1
    assert "log entry 3" in result.err
    assert list(folder.path.parent.glob("*backup*")) == []


def test_what_was_deleted_before_is_not_in_the_backup(folder: DataFolder, run: Run) -> None:
    """The node was killed between the deletion and the erasure."""
    entries: list[list[Event]] = [
        message("s1", "m1", SECRET),
        message("s1", "m2", TEXT),
        [MessageDeleted(session_id="s1", at_ms=AT_MS, message_id="m1")],
        *conversation("s2"),
        [FactUnpinned(session_id="s2", at_ms=AT_MS, fact_id="f1")],
    ]
    asyncio.run(folder.write(entries))
    assert SECRET.encode() in folder.log_path.read_bytes()

    content = make_backup(folder, run).read_bytes()

    assert SECRET.encode() not in content
    assert b"likes tea" not in content
    assert TEXT.encode() in content
    assert SECRET.encode() not in folder.log_path.read_bytes()


def test_an_erasure_of_which_the_projections_know_nothing_yet_is_done_first(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write([message("s1", "m1", SECRET), deletion("s1")], folded=2))

    content = make_backup(folder, run).read_bytes()

    assert SECRET.encode() not in content


def test_what_was_acknowledged_last_is_in_the_backup(folder: DataFolder, run: Run) -> None:
    """The commit index on disk is one batch behind: kill -9 leaves it so."""
    asyncio.run(folder.write(conversation()))

    async def append() -> None:
        log = await SqliteLog.open(folder.log_path)
        late = Entry(term=1, index=6, data=(await log.read(1, 2))[0].data)
        await log.append([Append(entries=[late])])
        assert (log.state.commit, await settled_index(log)) == (5, 6)
        await log.close()

    asyncio.run(append())
    path = make_backup(folder, run)

    reader = BackupReader()
    list(reader.feed(path.read_bytes()))
    assert reader.finish().index == 6


def test_without_a_log_there_is_nothing_to_back_up(folder: DataFolder, run: Run) -> None:
    result = run("backup", "a.backup")

    assert result.code == 2
    assert "there is no log" in result.err
    assert not Path("a.backup").exists()


def test_a_running_node_needs_its_address(folder: DataFolder, run: Run) -> None:
    async def with_a_node() -> None:
        log = await SqliteLog.open(folder.log_path)
        store = await PrimaryStore.open(folder.projections_path)
        result = await asyncio.to_thread(run, "backup", str(folder.path.parent / "a.backup"))
        assert result.code == 1
        assert "stop the node first" in result.err
        await store.close()
        await log.close()

    asyncio.run(folder.write(conversation()))
    asyncio.run(with_a_node())


def test_standard_input_cannot_be_restored(folder: DataFolder, run: Run) -> None:
    result = run("restore", "-")

    assert result.code == 2
    assert "name a file" in result.err
