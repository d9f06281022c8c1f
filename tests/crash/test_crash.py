"""Two rounds of the drill, with a fixed seed; `make crash` runs twenty."""

from pathlib import Path

import pytest

from tests.crash.crash import Drill, Round

ROUNDS = 2
SEED = 7


@pytest.mark.timeout(120)
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    rounds: list[Round] = []

    Drill(tmp_path, SEED).run(ROUNDS, rounds.append)

    assert [done.number for done in rounds] == [1, 2]
    assert all(done.acknowledged > 0 for done in rounds)
