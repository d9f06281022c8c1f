"""What a node tells of itself and of its cluster at one moment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from engram.log.consensus.rawnode import MemberStatus
from engram.log.consensus.types import Role

RoleName = Literal["Leader", "Follower", "Candidate", "Learner"]
"""A pre-candidate is a candidate; whoever has no vote, or belongs to no cluster yet, is a learner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """One member as this node knows it; what only the leader knows is None elsewhere."""

    node_id: int
    address: str
    http_address: str
    """Empty: not known."""
    is_voter: bool
    last_log_index: int | None = None
    """Up to here its log is known to be the leader's, durably."""
    is_active: bool | None = None
    """The leader heard of it within the last election timeout."""
    state: str | None = None
    """probe, replicate or snapshot: how the leader feeds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    """What a node knows of its cluster."""

    node_id: int
    cluster_id: str
    """Empty until the node belongs to one."""
    role: RoleName
    leader_id: int
    """0 while none is known."""
    term: int
    commit_index: int
    last_index: int
    base_index: int
    is_joint: bool
    """A change of the membership is under way."""
    members: Sequence[MemberView]
    """By node id; voters and learners. Empty until the node belongs to a cluster."""
    refusals: Mapping[int, str]
    """Nodes that this one cannot talk to because one of them refuses, and why: a wiped disk, another cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """What a node of the log knows of itself at one moment."""

    node_id: int
    role: Role
    leader_id: int
    """0 while none is known."""
    term: int
    commit_index: int
    last_index: int
    base_index: int
    applied_index: int
    """The last committed entry that is handed out here."""
    is_joint: bool
    has_pending_change: bool
    """On the leader: a change of the membership is appended and not applied yet."""
    is_handing_over: bool
    """It leads, and takes no proposal until another node does, or has not in the time of an election."""
    progress: Mapping[int, MemberStatus]
    """The members as the leader sees them; empty on others."""
