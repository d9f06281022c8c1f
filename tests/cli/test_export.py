import asyncio
import stat
from pathlib import Path

import pytest

from engram.events import MessageAppended
from engram.moving.export_format import ExportEntry, ExportReader
from tests.cli.conftest import Run
from tests.cli.data_folder import AT_MS, DataFolder, conversation, deletion, message

SECRET = "the vault opens with 4711"


def make_export(folder: DataFolder, run: Run, *options: str, name: str = "a.jsonl") -> Path:
    """Export the stopped node; return the file."""
    path = folder.path.parent / name
    result = run("export", *options, str(path))
    assert result.code == 0, result.err
    return path


def entries_in(content: bytes) -> list[ExportEntry]:
    reader = ExportReader()
    found = list(reader.feed(content))
    reader.finish()
    return found


def imported(folder: DataFolder) -> DataFolder:
    return DataFolder(folder.path.parent / "imported")


def test_what_is_imported_has_the_digests_of_the_source(
    folder: DataFolder, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(folder.write([*conversation(), deletion("s1"), *conversation("s2", 40)]))
    path = make_export(folder, run)
    wanted, copy = asyncio.run(folder.digest()), imported(folder)

    result = run("import", str(path), "--data-dir", str(copy.path))

    assert result.code == 0, result.err
    monkeypatch.setenv("ENGRAM_DATA_DIR", str(copy.path))
    assert run("rebuild", "projections").code == 0
    assert asyncio.run(copy.digest()) == wanted


def test_original_times_are_kept(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))
    first = make_export(folder, run)
    run("import", str(first), "--data-dir", str(imported(folder).path))

    events = [event for entry in entries_in(first.read_bytes()) for event in entry.events]

    assert {event.at_ms for event in events if isinstance(event, MessageAppended)} == {AT_MS}


def test_what_is_exported_from_an_import_is_what_was_imported(
    folder: DataFolder, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(folder.write([*conversation(), *conversation("s2")]))
    first = make_export(folder, run)
    run("import", str(first), "--data-dir", str(imported(folder).path))
    monkeypatch.setenv("ENGRAM_DATA_DIR", str(imported(folder).path))

    again = make_export(imported(folder), run, name="again.jsonl")

    assert entries_in(again.read_bytes()) == entries_in(first.read_bytes())


def test_an_import_that_was_done_is_not_done_twice(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))
    path = make_export(folder, run)
    copy = imported(folder)
    run("import", str(path), "--data-dir", str(copy.path))
    before = copy.log_path.read_bytes()

    result = run("import", str(path), "--data-dir", str(copy.path))

    assert result.code == 2
    assert "there is data already" in result.err
    assert copy.log_path.read_bytes() == before


def test_a_damaged_export_leaves_nothing(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))
    path = make_export(folder, run)
    copy = imported(folder)
    for content in (path.read_bytes()[:-9], path.read_bytes().replace(b"likes tea", b"likes gin")):
        damaged = folder.path.parent / "damaged.jsonl"
        damaged.write_bytes(content)

        result = run("import", str(damaged), "--data-dir", str(copy.path))

        assert result.code == 1
        assert f"{damaged}: line " in result.err
        assert [file for file in copy.path.rglob("*") if file.is_file()] == []
    assert run("import", str(path), "--data-dir", str(copy.path)).code == 0


def test_exports_that_do_not_go_together_are_named(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))
    whole, later = make_export(folder, run), make_export(folder, run, "--after", "3", name="later.jsonl")

    alone = run("import", str(later), "--data-dir", str(imported(folder).path))
    twice = run("import", str(whole), str(later), "--data-dir", str(imported(folder).path))

    assert (alone.code, twice.code) == (2, 2)
    assert "name the exports before it first" in alone.err
    assert "entry 5 was there before" in twice.err


def test_one_session_can_be_exported_to_standard_output(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write([*conversation(), *conversation("s2")]))

    result = run("export", "--session", "s2", "-")

    assert result.code == 0, result.err
    events = [event for entry in entries_in(result.out.encode()) for event in entry.events]
    assert {event.session_id for event in events} == {"s2"}
    assert "7 events in 4 entries" in result.err


def test_what_was_deleted_before_is_not_in_the_export(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write([message("s1", "m1", SECRET), deletion("s1"), *conversation("s2")]))

    content = make_export(folder, run).read_bytes()

    assert SECRET.encode() not in content
    assert stat.S_IMODE((folder.path.parent / "a.jsonl").stat().st_mode) == 0o600


def test_a_file_that_cannot_be_read_is_named(folder: DataFolder, run: Run) -> None:
    result = run("import", "nosuch.jsonl")

    assert result.code == 2
    assert "nosuch.jsonl cannot be read: No such file" in result.err
