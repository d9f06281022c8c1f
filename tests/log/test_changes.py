"""What a batch of appends makes of the log's state: nothing that was recorded is turned back."""

import pytest

from engram.log.changes import Append, planned
from engram.log.consensus.types import ConfState, HardState, InvariantViolation
from engram.log.rows import State
from tests.log.logs import run

STATE = State(store_id="s", node_id=1, term=3, vote=2, commit=4, last_index=6, base_members=ConfState(voters=(1,)))


@pytest.mark.parametrize("commits", [(0,), (3,), (5, 4), (6, 0, 5)])
def test_a_recorded_commit_index_never_falls(commits: tuple[int, ...]) -> None:
    plan = planned(STATE, [Append(hard_state=HardState(term=3, vote=2, commit=commit)) for commit in commits])

    assert plan.state.commit == max(STATE.commit, *commits)


def test_the_last_of_several_votes_is_recorded() -> None:
    plan = planned(STATE, [Append(hard_state=HardState(term=4, vote=vote, commit=4)) for vote in (0, 5)])

    assert (plan.state.term, plan.state.vote) == (4, 5)


@pytest.mark.parametrize("commit", [7, 10])
def test_nothing_beyond_the_log_is_committed(commit: int) -> None:
    with pytest.raises(InvariantViolation):
        planned(STATE, [Append(hard_state=HardState(term=3, vote=2, commit=commit))])


def test_a_truncation_asks_for_a_rebuild_at_the_next_erasure() -> None:
    assert not planned(STATE, [Append(entries=run(7, 8, term=3))]).state.rebuild_due
    assert planned(STATE, [Append(entries=run(6, 6, term=3))]).state.rebuild_due
