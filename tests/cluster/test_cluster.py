"""A few rounds of the drills that matter most; `make drill` runs all of them, and more rounds.

The nodes are more patient here than in `make drill`: what is tested is what becomes of the writes, not how soon.
"""

from pathlib import Path

import pytest

from tests.cluster.drill import Order, run_drill
from tests.cluster.report import Outcome

ROUNDS = {"kill-leader": 2, "partition-leader": 1, "rolling-restart": 1, "wiped-disk": 1}


@pytest.mark.thorough
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ROUNDS)
async def test_no_acknowledged_write_is_lost_or_doubled_and_all_nodes_agree(name: str, tmp_path: Path) -> None:
    done: list[None] = []
    order = Order(seed=7, rounds=ROUNDS[name], heartbeat_ms=50, election_ms=300)

    outcome = await run_drill(name, order, tmp_path, lambda: done.append(None))

    assert outcome.problems == []
    assert len(done) == ROUNDS[name]
    assert outcome.acknowledged > 0
    assert outcome.reads > 0
    assert outcome.digests_equal


def test_a_drill_that_ended_early_is_not_sound() -> None:
    assert not Outcome(drill="kill-leader", heartbeat_ms=50, election_ms=300, seed=7).is_sound
