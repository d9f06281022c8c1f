"""The cluster at one glance, as one of its nodes sees it."""

from collections.abc import Mapping

from engram.log.consensus.types import Role
from engram.log.exchange import Exchange
from engram.log.replica import Replica
from engram.log.sqlite import SqliteLog
from engram.log.status import ClusterStatus, MemberView, ReplicaStatus, RoleName

_ROLES: Mapping[Role, RoleName] = {
    Role.LEADER: "Leader",
    Role.FOLLOWER: "Follower",
    Role.CANDIDATE: "Candidate",
    Role.PRE_CANDIDATE: "Candidate",
}


def overview(replica: Replica, log: SqliteLog, exchange: Exchange) -> ClusterStatus:
    """Return what the node knows of its cluster now."""
    status, roster = replica.status(), replica.roster
    return ClusterStatus(
        node_id=status.node_id,
        cluster_id=log.state.cluster_id,
        role=_ROLES[status.role] if status.node_id in roster.voters else "Learner",
        leader_id=status.leader_id,
        term=status.term,
        commit_index=status.commit_index,
        last_index=status.last_index,
        base_index=status.base_index,
        is_joint=status.is_joint,
        members=[_view(status, replica, exchange, node_id) for node_id in sorted(roster.ids)],
        refusals={
            node_id: f"{peer.refusal}: {peer.last_error}"
            for node_id, peer in exchange.transport.status().items()
            if peer.refusal is not None
        },
    )


def _view(status: ReplicaStatus, replica: Replica, exchange: Exchange, node_id: int) -> MemberView:
    progress = status.progress.get(node_id)
    member = exchange.member(node_id)
    return MemberView(
        node_id=node_id,
        address=member.address if member is not None else "",
        http_address=member.http_address if member is not None else "",
        is_voter=node_id in replica.roster.voters,
        last_log_index=None if progress is None else progress.match,
        is_active=None if progress is None else node_id == status.node_id or progress.recent_active,
        state=None if progress is None else progress.state.value.removeprefix("State").lower(),
    )
