"""Majorities, and the joint ones of a changing membership: what is committed, and who has won.

An empty half of a joint configuration agrees to everything. So a configuration that is not joint is a joint one with an
empty half, and there is one way to count.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import Enum

from engram.log.consensus.types import UNLIMITED


class VoteResult(Enum):
    """How an election stands."""

    PENDING = "VotePending"
    """The votes that are missing decide."""
    LOST = "VoteLost"
    WON = "VoteWon"


def majority_committed_index(voters: AbstractSet[int], acknowledged: Mapping[int, int]) -> int:
    """Return the highest log index that a majority of `voters` holds; UNLIMITED when there are no voters.

    `acknowledged` has the last index that each voter is known to hold; one that is missing holds nothing.
    """
    if len(voters) == 1:
        (voter,) = voters
        return acknowledged.get(voter, 0)
    if not voters:
        return UNLIMITED
    held = sorted(acknowledged.get(voter, 0) for voter in voters)
    return held[(len(held) - 1) // 2]


def majority_vote(voters: AbstractSet[int], votes: Mapping[int, bool]) -> VoteResult:
    """Return how `votes` of `voters` stand; votes of others do not count."""
    if not voters:
        return VoteResult.WON
    granted = sum(votes.get(voter) is True for voter in voters)
    missing = sum(voter not in votes for voter in voters)
    needed = len(voters) // 2 + 1
    if granted >= needed:
        return VoteResult.WON
    return VoteResult.PENDING if granted + missing >= needed else VoteResult.LOST


def joint_committed_index(
    incoming: AbstractSet[int], outgoing: AbstractSet[int], acknowledged: Mapping[int, int]
) -> int:
    """Return the highest log index that a majority of both halves holds."""
    index = majority_committed_index(incoming, acknowledged)
    if not outgoing:
        return index
    return min(index, majority_committed_index(outgoing, acknowledged))


def joint_vote(incoming: AbstractSet[int], outgoing: AbstractSet[int], votes: Mapping[int, bool]) -> VoteResult:
    """Return how an election stands that both halves must grant."""
    results = {majority_vote(incoming, votes), majority_vote(outgoing, votes)}
    if VoteResult.LOST in results:
        return VoteResult.LOST
    return VoteResult.PENDING if VoteResult.PENDING in results else VoteResult.WON
