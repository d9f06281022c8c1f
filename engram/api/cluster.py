"""Cluster administration. A standalone node says so before it looks at anything else."""

from collections.abc import Collection

import msgspec

from engram.api.addresses import check_address
from engram.api.calls import Call
from engram.api.replies import Reply, say
from engram.api.schemas import (
    ClusterMember,
    ClusterView,
    DigestsView,
    Membership,
    NewLearner,
    Refused,
    SnapshotTaken,
    Transfer,
    Transferred,
)
from engram.api.services import Cluster
from engram.errors import InvalidError, NotClusteredError
from engram.projections.digests import Digests

_new_learner = msgspec.json.Decoder(NewLearner)
_membership = msgspec.json.Decoder(Membership)
_transfer = msgspec.json.Decoder(Transfer)


async def get_cluster(call: Call) -> Reply:
    """Return who is in the cluster and who leads, as this node knows it."""
    return _show(call, _cluster(call))


async def init_cluster(call: Call) -> Reply:
    """Form the cluster of this node and its configured peers. Again: nothing changes."""
    cluster = _cluster(call)
    await cluster.initialize()
    return _show(call, cluster)


async def add_learner(call: Call) -> Reply:
    """Bring a node in as a learner: answered when it has caught up."""
    cluster = _cluster(call)
    wanted = await call.body(_new_learner)
    address = check_address("addr", wanted.addr)
    http_address = None if wanted.http_addr is None else check_address("http_addr", wanted.http_addr)
    await cluster.add_learner(wanted.node_id, address, http_address)
    return _show(call, cluster)


async def change_membership(call: Call) -> Reply:
    """Set who votes: answered when the change is done. A voter left out is removed, or a learner with `retain`."""
    cluster = _cluster(call)
    wanted = await call.body(_membership)
    _check_once("members", wanted.members)
    _check_once("remove", wanted.remove)
    _check_members(cluster, wanted.members)
    for node_id in wanted.remove:
        if node_id in wanted.members:
            raise InvalidError(f"node {node_id} stands in members and in remove")
    await cluster.change_membership(wanted.members, retain=wanted.retain, remove=wanted.remove)
    return _show(call, cluster)


async def transfer_leadership(call: Call) -> Reply:
    """Hand leadership to a voter; without `node_id`, to the one that is furthest."""
    cluster = _cluster(call)
    node_id = (await call.body_if_any(_transfer) or Transfer()).node_id
    voters = [member.node_id for member in cluster.status().members if member.is_voter]
    if node_id is not None and node_id not in voters:
        raise InvalidError(f"node_id is {node_id}, which is no voter; it takes {_listed(voters)}")
    return say(Transferred(leader_id=await cluster.transfer_leadership(node_id)))


async def take_snapshot(call: Call) -> Reply:
    """Move the base of the log up to what is applied; followers further behind get a snapshot."""
    return say(SnapshotTaken(base_index=await _cluster(call).snapshot()))


def _cluster(call: Call) -> Cluster:
    cluster = call.services.cluster
    if cluster is None:
        raise NotClusteredError("the node runs standalone; NODE_ID and RAFT_ADDR make it part of a cluster")
    return cluster


def _check_once(field: str, node_ids: Collection[int]) -> None:
    seen: set[int] = set()
    for node_id in node_ids:
        if node_id in seen:
            raise InvalidError(f"{field} names node {node_id} twice")
        seen.add(node_id)


def _check_members(cluster: Cluster, wanted: Collection[int]) -> None:
    known = [member.node_id for member in cluster.status().members]
    for node_id in wanted:
        if node_id not in known:
            raise InvalidError(
                f"members names node {node_id}, which is no member: bring it in with POST /cluster/add-learner first; "
                f"members are {_listed(known)}"
            )


def _listed(node_ids: Collection[int]) -> str:
    return ", ".join(map(str, node_ids)) or "none"


def _digests(latest: Digests | None) -> DigestsView | None:
    return None if latest is None else DigestsView(index=latest.log_index, models=dict(latest.by_model))


def _show(call: Call, cluster: Cluster) -> Reply:
    status = cluster.status()
    members = [
        ClusterMember(
            id=member.node_id,
            addr=member.address,
            http_addr=member.http_address or None,
            voter=member.is_voter,
            last_log_index=member.last_log_index,
            active=member.is_active,
            state=member.state,
        )
        for member in status.members
    ]
    view = ClusterView(
        node_id=status.node_id,
        cluster_id=status.cluster_id or None,
        role=status.role,
        leader_id=status.leader_id or None,
        term=status.term,
        commit_index=status.commit_index,
        last_log_index=status.last_index,
        last_applied_index=call.services.reads.applied_index,
        base_index=status.base_index,
        is_joint=status.is_joint,
        members=members,
        refusals=[Refused(node_id=node_id, reason=status.refusals[node_id]) for node_id in sorted(status.refusals)],
        digests=_digests(call.services.digests()),
    )
    return say(view)
