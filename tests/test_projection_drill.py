"""A few rounds of the drill, with a fixed seed; `make drill-projections` runs thirty, over all faults."""

from pathlib import Path

import pytest

from tests.projection_drill.drill import Order, run_drill
from tests.projection_drill.faults import FAULTS
from tests.projection_drill.report import Result
from tests.redis_server import HAS_REDIS

SEED = "7"
FEW = ("kill-node", "flush-redis", "pause-redis", "delete-projections", "delete-lancedb-running")


@pytest.mark.thorough
@pytest.mark.timeout(300)
@pytest.mark.skipif(not HAS_REDIS, reason="NOT CHECKED: there is no redis-server here")
async def test_nobody_notices_when_projections_are_lost(tmp_path: Path) -> None:
    done: list[None] = []

    result = await run_drill(Order(seed=SEED, rounds=len(FEW), only=FEW), tmp_path, lambda: done.append(None))

    assert result.problems == []
    assert len(done) == len(FEW)
    assert {fault for one in result.rounds for fault in one.faults} == set(FEW)
    assert all(one.acknowledged > 0 and one.reads.requests > 0 for one in result.rounds)
    assert result.compared > 0


def test_a_drill_that_compared_nothing_is_not_sound() -> None:
    assert not Result(seed=SEED).is_sound
    assert Result(seed=SEED, compared=1).is_sound
    assert not Result(seed=SEED, compared=1, problems=["lost"]).is_sound


def test_every_fault_says_what_it_does() -> None:
    assert all(fault.play.__doc__ for fault in FAULTS.values())
