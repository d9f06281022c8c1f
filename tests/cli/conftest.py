import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from engram.cli import main
from tests.cli.data_folder import DataFolder


class Output(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


Run = Callable[..., Output]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataFolder:
    """Return a data folder that the settings name, and nothing else of the settings of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith(("ENGRAM_", "RAFT_", "LANCE", "OPENAI_", "EMBED")):
            monkeypatch.delenv(name)
    data_dir = tmp_path / "data"
    monkeypatch.setenv("ENGRAM_DATA_DIR", str(data_dir))
    monkeypatch.chdir(tmp_path)
    return DataFolder(data_dir)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Return a function that runs a command in this process; logging is afterwards as it was before."""
    root, ours = logging.getLogger(), logging.getLogger("engram")
    before = (root.handlers[:], root.level, ours.level)

    def command(*argv: str) -> Output:
        capfd.readouterr()
        code = main(argv)
        return Output(code, *capfd.readouterr())

    yield command
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
