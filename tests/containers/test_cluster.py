"""Three nodes in containers, as `make cluster` runs them: where there is Docker, and when it is asked for."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

TRY_S_MAX = 900
"""An image that has to be built from nothing takes minutes on a busy machine."""


def free_ports(count: int) -> Iterator[int]:
    """Yield ports that nobody listens on."""
    with ExitStack() as held:
        for _ in range(count):
            listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            yield listener.getsockname()[1]


@pytest.mark.skipif(
    not os.environ.get("CONTAINERS"), reason="NOT CHECKED: three nodes in containers; `make cluster` does, as CI does"
)
@pytest.mark.timeout(TRY_S_MAX)
def test_three_nodes_in_containers_pass_every_criterion() -> None:
    names = [*(f"HTTP_PORT_{number}" for number in (1, 2, 3)), *(f"RAFT_PORT_{number}" for number in (1, 2, 3))]
    ports = {name: str(port) for name, port in zip(names, free_ports(len(names)), strict=True)}

    outcome = subprocess.run(
        [PROJECT / "scripts" / "cluster-try.sh"],
        env={**os.environ, **ports, "COMPOSE_PROJECT_NAME": "engram-test"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    if outcome.stdout.startswith("SKIP"):
        pytest.skip(f"NOT CHECKED: {outcome.stdout.removeprefix('SKIP ').strip()}")
    if outcome.returncode != 0 or "PASS: all" not in outcome.stdout:
        pytest.fail(f"exit code {outcome.returncode}:\n{outcome.stdout}", pytrace=False)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="NOT CHECKED: scripts/*.sh; needs shellcheck")
def test_shellcheck_finds_nothing_in_the_scripts() -> None:
    outcome = subprocess.run(
        ["shellcheck", *sorted((PROJECT / "scripts").glob("*.sh"))], capture_output=True, text=True, check=False
    )

    assert outcome.returncode == 0, outcome.stdout


def test_without_docker_it_says_so_and_is_no_failure(tmp_path: Path) -> None:
    for tool in ("bash", "dirname"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)

    outcome = subprocess.run(
        ["bash", PROJECT / "scripts" / "cluster-try.sh"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (outcome.returncode, outcome.stdout) == (
        0,
        "SKIP the three-node cluster in containers: docker is not installed\n",
    )
