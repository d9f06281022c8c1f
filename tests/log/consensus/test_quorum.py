"""The arithmetic of majorities, against the definition."""

from collections.abc import Set as AbstractSet
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.log.consensus.quorum import (
    VoteResult,
    joint_committed_index,
    joint_vote,
    majority_committed_index,
    majority_vote,
)
from engram.log.consensus.types import UNLIMITED

VOTERS = st.frozensets(st.integers(1, 7), max_size=5)
HELD = st.dictionaries(st.integers(1, 7), st.integers(0, 5))
VOTES = st.dictionaries(st.integers(1, 7), st.booleans())


def majorities(voters: AbstractSet[int]) -> list[set[int]]:
    """Return every set of more than half of `voters`; of none, the empty set is one."""
    sizes = range(len(voters) // 2 + 1, len(voters) + 1) if voters else [0]
    return [set(chosen) for size in sizes for chosen in combinations(sorted(voters), size)]


def committed_by_definition(voters: AbstractSet[int], held: dict[int, int]) -> int:
    return max(min((held.get(voter, 0) for voter in chosen), default=UNLIMITED) for chosen in majorities(voters))


def vote_by_definition(voters: AbstractSet[int], votes: dict[int, bool]) -> VoteResult:
    def can_win(*, missing: bool) -> bool:
        return any(all(votes.get(voter, missing) for voter in chosen) for chosen in majorities(voters))

    if can_win(missing=False):
        return VoteResult.WON
    return VoteResult.PENDING if can_win(missing=True) else VoteResult.LOST


@pytest.mark.parametrize("size", range(6))
def test_what_is_committed_is_the_highest_index_that_some_majority_holds(size: int) -> None:
    voters = set(range(1, size + 1))
    for indexes in product(range(4), repeat=size):
        held = dict(zip(sorted(voters), indexes, strict=True))

        assert majority_committed_index(voters, held) == committed_by_definition(voters, held)


@pytest.mark.parametrize("size", range(6))
def test_a_vote_is_won_when_a_majority_grants_it_and_lost_when_none_can(size: int) -> None:
    voters = set(range(1, size + 1))
    for answers in product([True, False, None], repeat=size):
        votes = {voter: answer for voter, answer in zip(sorted(voters), answers, strict=True) if answer is not None}

        assert majority_vote(voters, votes) is vote_by_definition(voters, votes)


@given(VOTERS, VOTERS, HELD)
def test_a_joint_configuration_commits_what_both_halves_hold(
    incoming: frozenset[int], outgoing: frozenset[int], held: dict[int, int]
) -> None:
    expected = min(committed_by_definition(incoming, held), committed_by_definition(outgoing, held))

    assert joint_committed_index(incoming, outgoing, held) == expected
    assert joint_committed_index(outgoing, incoming, held) == expected


@given(VOTERS, VOTERS, VOTES)
def test_a_joint_configuration_elects_whom_both_halves_elect(
    incoming: frozenset[int], outgoing: frozenset[int], votes: dict[int, bool]
) -> None:
    halves = [vote_by_definition(incoming, votes), vote_by_definition(outgoing, votes)]
    result = joint_vote(incoming, outgoing, votes)

    assert (result is VoteResult.WON) is (halves == [VoteResult.WON, VoteResult.WON])
    assert (result is VoteResult.LOST) is (VoteResult.LOST in halves)


@given(VOTERS, HELD, st.integers(8, 20), st.integers(0, 100))
def test_those_who_are_no_voters_do_not_count(
    voters: frozenset[int], held: dict[int, int], stranger: int, index: int
) -> None:
    assert majority_committed_index(voters, {**held, stranger: index}) == majority_committed_index(voters, held)


@given(VOTERS, HELD, st.integers(1, 7))
def test_what_is_committed_never_falls_when_a_voter_holds_more(
    voters: frozenset[int], held: dict[int, int], voter: int
) -> None:
    more = {**held, voter: held.get(voter, 0) + 1}

    assert majority_committed_index(voters, more) >= majority_committed_index(voters, held)
