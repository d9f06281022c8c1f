"""The two ways in: a message, and a tick.

Terms are compared here, once, before anything else is looked at.
"""

from collections.abc import Callable

from engram.log.consensus import elections, follower, leader
from engram.log.consensus.raft import Raft
from engram.log.consensus.types import (
    NO_NODE,
    Entry,
    EntryKind,
    Message,
    MessageType,
    ProposalDroppedError,
    Role,
    Snapshot,
    entry_bytes,
)

_FROM_LEADER = frozenset({MessageType.APPEND, MessageType.HEARTBEAT, MessageType.SNAPSHOT})
_VOTE_REQUESTS = frozenset({MessageType.VOTE, MessageType.PRE_VOTE})


def step(raft: Raft, message: Message) -> None:
    """Let `message` have its effect.

    Raises:
        ProposalDroppedError: It was a proposal, and nothing was appended.
    """
    if message.term > raft.term:
        if not _enter_newer_term(raft, message):
            return
    elif 0 < message.term < raft.term:
        _answer_older_term(raft, message)
        return
    handler = _HANDLERS.get(message.type)
    if handler is None:
        handler = _STEP_BY_ROLE[raft.role]
    handler(raft, message)


def tick(raft: Raft) -> None:
    """Let one tick pass. Whoever drives this must not make up for ticks that were missed while the process slept."""
    raft.election_elapsed += 1
    if raft.role is Role.LEADER:
        _tick_leader(raft)
    elif raft.is_promotable and raft.election_elapsed >= raft.randomized_election_ticks:
        raft.election_elapsed = 0
        elections.start(raft)


def _tick_leader(raft: Raft) -> None:
    raft.heartbeat_elapsed += 1
    if raft.election_elapsed >= raft.config.election_ticks:
        raft.election_elapsed = 0
        if raft.config.check_quorum:
            leader.check_quorum(raft)
        raft.abort_transfer()  # it had its time
        _leave_joint_if_due(raft)  # what was dropped because of the transfer
    if raft.role is Role.LEADER and raft.heartbeat_elapsed >= raft.config.heartbeat_ticks:
        raft.heartbeat_elapsed = 0
        raft.broadcast_heartbeat()


def _enter_newer_term(raft: Raft, message: Message) -> bool:
    """Follow in the newer term of `message`; return False if the message is not to be heeded at all."""
    if message.type in _VOTE_REQUESTS:
        # A node that was cut off, or removed, must not depose a leader that works.
        if message.context != elections.TRANSFER and elections.believes_in_leader(raft):
            return False
        if message.type is MessageType.PRE_VOTE:  # nobody is in that term yet
            return True
    if message.type is MessageType.PRE_VOTE_RESPONSE and not message.reject:  # granted for a term yet to come
        return True
    raft.become_follower(message.term, message.sender if message.type in _FROM_LEADER else NO_NODE)
    return True


def _answer_older_term(raft: Raft, message: Message) -> None:
    """Ignore what comes from the past, but for what would wait in vain."""
    if message.type in {MessageType.HEARTBEAT, MessageType.APPEND}:
        # The leader of an older term cannot bring this node back with votes, since none would disturb it with one.
        # So this answer, whose term deposes it, lets an election take place that takes this node along.
        if raft.config.check_quorum or raft.config.pre_vote:
            raft.send(
                Message(
                    type=MessageType.APPEND_RESPONSE,
                    to=message.sender,
                    sender=raft.id,
                    term=raft.term,
                    session=message.session,
                )
            )
    elif message.type is MessageType.PRE_VOTE:
        # Else two nodes could wait for each other: one has the newer term, the other the newer log.
        raft.send(
            Message(type=MessageType.PRE_VOTE_RESPONSE, to=message.sender, sender=raft.id, term=raft.term, reject=True)
        )
    elif message.type is MessageType.STORAGE_APPEND_RESPONSE and message.snapshot is not None:
        # The entries it speaks of may have been replaced since; a snapshot never is.
        _applied_snapshot(raft, message.snapshot)


def _handle_hup(raft: Raft, _: Message) -> None:
    elections.start(raft)


def _handle_storage_append_response(raft: Raft, message: Message) -> None:
    if message.index != 0:
        raft.log.unstable.stable_to(message.index, message.log_term)
    if message.snapshot is not None:
        _applied_snapshot(raft, message.snapshot)


def _handle_storage_apply_response(raft: Raft, message: Message) -> None:
    _applied_to(raft, message.entries[-1].index, sum(map(entry_bytes, message.entries)))
    raft.release_uncommitted(message.entries)


def _applied_snapshot(raft: Raft, snapshot: Snapshot) -> None:
    raft.log.unstable.stable_snapshot_to(snapshot.meta.index)
    _applied_to(raft, snapshot.meta.index, 0)


def _applied_to(raft: Raft, index: int, size_bytes: int) -> None:
    raft.log.applied_to(max(index, raft.log.applied), size_bytes)
    _leave_joint_if_due(raft)


def _leave_joint_if_due(raft: Raft) -> None:
    """Let the leader propose the second half of a joint change. Dropped during a transfer, it is tried again after."""
    due = raft.tracker.members.auto_leave and raft.log.applied >= raft.pending_conf_index
    if not due or raft.role is not Role.LEADER:
        return
    try:
        leader.propose(raft, (Entry(0, 0, EntryKind.CONF_CHANGE_V2),))
    except ProposalDroppedError:
        return


def _step_follower(raft: Raft, message: Message) -> None:
    if message.type is MessageType.TIMEOUT_NOW:
        elections.start_transfer(raft)
    else:
        follower.step_follower(raft, message)


_HANDLERS: dict[MessageType, Callable[[Raft, Message], None]] = {
    MessageType.HUP: _handle_hup,
    MessageType.VOTE: elections.answer_vote_request,
    MessageType.PRE_VOTE: elections.answer_vote_request,
    MessageType.STORAGE_APPEND_RESPONSE: _handle_storage_append_response,
    MessageType.STORAGE_APPLY_RESPONSE: _handle_storage_apply_response,
}

_STEP_BY_ROLE: dict[Role, Callable[[Raft, Message], None]] = {
    Role.FOLLOWER: _step_follower,
    Role.CANDIDATE: elections.step_candidate,
    Role.PRE_CANDIDATE: elections.step_candidate,
    Role.LEADER: leader.step_leader,
}
