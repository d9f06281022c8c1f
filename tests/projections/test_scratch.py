"""Scratch folders hold what agents said: none outlives its use."""

import subprocess
import sys
from pathlib import Path

import pytest

from engram.errors import StorageError
from engram.projections.scratch import REPLAY, VERIFY, scratch, sweep

HOLDER = """
import asyncio, sys
from pathlib import Path
from engram.projections.scratch import VERIFY, scratch

async def hold():
    async with scratch(Path(sys.argv[1]), VERIFY) as folder:
        (folder / "copy").write_text("somebody's text")
        print(folder, flush=True)
        await asyncio.Event().wait()

asyncio.run(hold())
"""


def found_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_folder_is_gone_after_its_use(tmp_path: Path) -> None:
    async with scratch(tmp_path, REPLAY) as folder:
        (folder / "copy").write_text("somebody's text")

    assert found_in(tmp_path) == []


async def test_a_folder_is_gone_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in the middle"):
        async with scratch(tmp_path, REPLAY):
            raise ValueError("in the middle")

    assert found_in(tmp_path) == []


def test_a_folder_in_use_is_left_alone_and_one_of_the_killed_is_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        while_used = sweep(tmp_path)
        process.kill()

    afterwards = sweep(tmp_path)

    assert while_used == []
    assert afterwards == [folder]
    assert found_in(tmp_path) == []


async def test_the_next_user_removes_what_was_left(tmp_path: Path) -> None:
    left = tmp_path / ".check-of-an-earlier-version"
    left.mkdir()

    async with scratch(tmp_path, VERIFY):
        assert not left.exists()


async def test_where_nothing_can_be_made_the_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no scratch folder can be made in /"):
        async with scratch(tmp_path / "nowhere", VERIFY):
            pass
