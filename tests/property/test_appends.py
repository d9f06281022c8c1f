"""A follower's log and what a leader sends: in any order, any part, again and again, the follower never errs."""

from hypothesis import given
from hypothesis import strategies as st

from engram.log.consensus.raftlog import RaftLog
from engram.log.consensus.types import Entry, HardState
from engram.log.storage import MemoryStorage

LEADER_TERM = 9


def log_of(terms: list[int]) -> list[Entry]:
    return [Entry(term, index) for index, term in enumerate(terms, start=1)]


@st.composite
def two_logs(draw: st.DrawFn) -> tuple[list[Entry], list[Entry], int]:
    """A leader's log, that of a follower, and up to where they are the same.

    Behind that the follower has what other leaders sent it: of odd terms, while the leader's are even, but for its own.
    """
    shared = sorted(draw(st.lists(st.sampled_from((1, 2, 3, 4)), max_size=5)))
    leaders = sorted(draw(st.lists(st.sampled_from((4, 6, 8, LEADER_TERM)), min_size=1, max_size=5)))
    others = sorted(draw(st.lists(st.sampled_from((5, 7)), max_size=5)))
    return log_of([*shared, *leaders]), log_of([*shared, *others]), len(shared)


@given(two_logs(), st.data())
def test_what_a_follower_commits_is_what_its_leader_has(
    logs: tuple[list[Entry], list[Entry], int], data: st.DataObject
) -> None:
    leader, follower, shared = logs
    storage = MemoryStorage()
    storage.append(follower)
    storage.set_hard_state(HardState(term=LEADER_TERM, vote=0, commit=0))
    log = RaftLog(storage)
    commit = reached = 0
    for _ in range(data.draw(st.integers(1, 6), "appends")):
        before = data.draw(st.integers(0, len(leader)), "before")
        entries = leader[before : data.draw(st.integers(before, len(leader)), "end")]
        previous_term = leader[before - 1].term if before else 0
        if before < log.committed:  # the follower answers with its commit index
            continue
        committed = data.draw(st.integers(0, len(leader)), "commit")

        last_new = log.maybe_append(before, previous_term, entries, committed)

        is_known = before <= max(shared, reached)
        assert last_new == (before + len(entries) if is_known else None)
        if is_known:
            reached = max(reached, before + len(entries))
            commit = max(commit, min(committed, before + len(entries)))
        assert log.committed == commit
        for index in range(1, max(shared, reached) + 1):
            assert log.term(index) == leader[index - 1].term
