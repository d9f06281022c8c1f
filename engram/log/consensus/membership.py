"""How a change of the membership takes effect: on every node when it is applied, and first of all on the leader."""

from engram.log.consensus import confchange
from engram.log.consensus.raft import Raft
from engram.log.consensus.types import NO_NODE, ConfChange, ConfState, InvariantViolation, Role


def apply_change(raft: Raft, change: ConfChange) -> ConfState:
    """Go by the committed `change` from now on; return the membership that it makes.

    Raises:
        InvariantViolation: It does not fit, which a leader should have seen before it appended it.
    """
    try:
        configuration = confchange.Changer(raft.tracker, raft.log.last_index).apply(change)
    except confchange.ConfChangeError as error:
        raise InvariantViolation(f"committed membership change {change} cannot be applied: {error}") from error
    state = raft.adopt(configuration)
    if raft.role is Role.LEADER:
        _take_effect_on_leader(raft)
    return state


def is_member(state: ConfState, node_id: int) -> bool:
    """Return whether `node_id` belongs to the cluster, as a voter or otherwise."""
    return node_id in state.voters or node_id in state.learners or node_id in state.voters_outgoing


def _take_effect_on_leader(raft: Raft) -> None:
    own = raft.tracker.progress.get(raft.id)
    if own is None or own.is_learner:
        # Otherwise it leads on, without counting itself, until it is deposed.
        if raft.config.step_down_on_removal:
            raft.become_follower(raft.term, NO_NODE)
        return
    if raft.maybe_commit():  # fewer voters may be enough now
        raft.broadcast_append()
    else:
        _probe_new_members(raft)
    if raft.transferee not in raft.tracker.members.voters:
        raft.abort_transfer()


def _probe_new_members(raft: Raft) -> None:
    """Let them not wait for the next heartbeat or proposal."""
    for node_id in raft.tracker.ids():
        if node_id != raft.id:
            raft.maybe_send_append(node_id, send_if_empty=False)
