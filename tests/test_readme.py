"""The walk through README.md, word for word, against a real server."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server_process import ServerProcess, find_free_port

README = Path(__file__).parents[1] / "README.md"


def steps() -> Iterator[tuple[str, str]]:
    """Yield each command of the console blocks with the lines that it is said to print."""
    for block in re.findall(r"```console\n(.*?)```", README.read_text(), re.DOTALL):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = step.partition("\n")
            yield command, printed.strip()


def as_pattern(printed: str) -> str:
    """Return a pattern for what is printed; an ellipsis stands for anything."""
    return ".*".join(map(re.escape, printed.split("…")))


@pytest.mark.timeout(90)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the walk needs curl")
def test_every_step_prints_what_the_readme_says(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, find_free_port()) as server:
        for command, printed in steps():
            done = subprocess.run(
                ["bash", "-c", command.replace("localhost:3000", f"127.0.0.1:{server.port}")],
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            )

            assert re.fullmatch(as_pattern(printed), done.stdout.strip(), re.DOTALL), f"{command}\n{done.stdout}"


def test_the_walk_has_steps() -> None:
    assert len(list(steps())) > 5
