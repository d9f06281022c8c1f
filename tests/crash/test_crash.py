"""A round of the drill, with a fixed seed, two in CI; `make crash` runs twenty."""

import os
from pathlib import Path

import pytest

from tests.crash.crash import Drill, Round

ROUNDS = 2 if os.environ.get("THOROUGH") else 1
SEED = 7


@pytest.mark.timeout(120)
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    rounds: list[Round] = []

    Drill(tmp_path, SEED).run(ROUNDS, rounds.append)

    assert [done.number for done in rounds] == list(range(1, ROUNDS + 1))
    assert all(done.acknowledged > 0 for done in rounds)
