"""After the weather has cleared: the cluster must come back by itself, and then be quiet."""

from typing import TYPE_CHECKING

from engram.log.consensus.tracker import ProgressState
from tests.simulation.faults import ELECTION_US
from tests.simulation.projections import Folding, Remembering, check_all
from tests.simulation.referee import Foul

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

ELECTIONS_MAX = 40
"""Election timeouts within which the cluster must be well; most need three or four."""


def heal(world: "World") -> None:
    """Let the weather clear, and check that the cluster recovers.

    Raises:
        Foul: It does not, or an invariant is broken on the way.
    """
    world.nemesis.end()
    for client in world.clients:
        client.stop()
    _wait(world)
    before = sum(client.acknowledged for client in world.clients)
    world.clients[0].write_once()
    for _ in range(ELECTIONS_MAX):
        world.run_for(ELECTION_US)
        if sum(client.acknowledged for client in world.clients) > before:
            break
    else:
        raise Foul("a fresh write is not acknowledged")
    _wait(world)
    _look_at_traffic(world)
    if isinstance(world.model, Remembering):
        _look_at_stores(world, world.model)


def _wait(world: "World") -> None:
    complaint: str | None = "it was not asked"
    for _ in range(ELECTIONS_MAX):
        world.run_for(ELECTION_US)
        complaint = _complaint(world)
        if complaint is None:
            return
        if world.referee.members.voters_outgoing and not world.referee.members.auto_leave:
            world.nemesis.leave_joint()
    raise Foul(f"after {ELECTIONS_MAX} election timeouts without any trouble {complaint}")


def _complaint(world: "World") -> str | None:
    """Return what is not as it should be in a cluster that is well."""
    leader = world.leader()
    if leader is None:
        return "nobody leads"
    raft = leader.raw.raft
    if raft.tracker.members.is_joint:
        return f"leader {leader.id} is in a joint configuration: {raft.tracker.members}"
    for node_id, progress in raft.tracker.progress.items():
        node = world.nodes[node_id]
        if progress.state is not ProgressState.REPLICATE or progress.match != raft.log.last_index:
            return f"leader {leader.id} believes of node {node_id}, at {raft.log.last_index}: {progress}"
        if not _has_all(node, leader):
            return f"node {node_id} is behind leader {leader.id}"
    return None


def _has_all(node: "Node", leader: "Node") -> bool:
    if not node.is_up or node.raw.raft.leader_id != leader.id:
        return False
    last_index = leader.raw.raft.log.last_index
    return (
        node.applied_index == leader.applied_index == node.raw.committed == last_index == len(node.disk.rows)
        and node.disk.rows[-1].term == leader.disk.rows[-1].term
        and node.roster.members == leader.roster.members
        and node.roster.book == leader.roster.book
    )


def _look_at_traffic(world: "World") -> None:
    """Check that nothing but heartbeats is sent when there is nothing to do."""
    leader = world.leader()
    assert leader is not None
    members = sorted(leader.raw.raft.tracker.progress)
    others = len(members) - 1
    _let_arrive(world)
    before = world.network.sent.copy()
    world.run_for(ELECTION_US)
    # Two messages for each heartbeat, 6 or 7 of them at a clock that may be a tenth fast or slow, and answers to nodes
    # that are no members any more and do not know. One of those may wake from a pause just now, and answer all that
    # its socket held: that is not counted.
    after = world.network.sent
    sent, most = sum(after[one] - before[one] for one in members), 2 * 8 * others + 8 * len(world.ids)
    if sent > most:
        raise Foul(f"{sent} messages in one election timeout of a cluster at rest; heartbeats are {most}")


def _let_arrive(world: "World") -> None:
    """Wait for what is under way: a socket may hold messages to the end of a pause that was cut short, and all are answered.

    Raises:
        Foul: It does not arrive.
    """
    waited_for = world.network.under_way()
    for _ in range(ELECTIONS_MAX):
        left = {id(message) for message in world.network.under_way()}
        if not any(id(message) in left for message in waited_for):
            return
        world.run_for(ELECTION_US)
    raise Foul(f"messages are under way for {ELECTIONS_MAX} election timeouts")


def _look_at_stores(world: "World", model: Remembering) -> None:
    leader = world.leader()
    assert leader is not None
    nodes = [world.nodes[node_id] for node_id in leader.raw.raft.tracker.ids()]
    for _ in range(ELECTIONS_MAX):
        machines = [node.machine for node in nodes if isinstance(node.machine, Folding)]
        for node, machine in zip(nodes, machines, strict=True):
            machine.catch_up(node)
            machine.applied(node)
        world.run_for(ELECTION_US)
        if all(machine.is_clean() for machine in machines):
            break
    check_all(nodes, model)
