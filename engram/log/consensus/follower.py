"""What a follower does: take the leader's log for its own, and pass on what only a leader can do."""

import msgspec

from engram.log.consensus.membership import is_member
from engram.log.consensus.raft import Raft
from engram.log.consensus.readonly import ReadOnlyOption
from engram.log.consensus.types import (
    NO_NODE,
    DropReason,
    Message,
    MessageType,
    ProposalDroppedError,
    ReadState,
    Snapshot,
)


def step_follower(raft: Raft, message: Message) -> None:
    """Handle what reaches a follower in its term, but for TIMEOUT_NOW, which makes it campaign."""
    match message.type:
        case MessageType.APPEND | MessageType.HEARTBEAT | MessageType.SNAPSHOT:
            raft.election_elapsed = 0
            raft.leader_id = message.sender
            _follow(raft, message)
        case MessageType.PROPOSE:
            _forward_proposal(raft, message)
        case MessageType.READ_INDEX | MessageType.TRANSFER_LEADER:
            if raft.leader_id != NO_NODE:  # else whoever asks must ask again
                raft.send(msgspec.structs.replace(message, to=raft.leader_id))
        case MessageType.READ_INDEX_RESPONSE:
            raft.read_states.extend(ReadState(message.index, entry.data) for entry in message.entries)
        case MessageType.FORGET_LEADER:
            # With lease-based reads a leader may answer from its lease while this node helps another one to power.
            if raft.config.read_only_option is not ReadOnlyOption.LEASE_BASED:
                raft.leader_id = NO_NODE
        case _:
            pass


def _follow(raft: Raft, message: Message) -> None:
    match message.type:
        case MessageType.APPEND:
            _handle_append(raft, message)
        case MessageType.HEARTBEAT:
            raft.log.commit_to(message.commit)
            _reply(raft, message, MessageType.HEARTBEAT_RESPONSE, context=message.context)
        case _:
            if message.snapshot is not None:
                _handle_snapshot(raft, message, message.snapshot)


def _forward_proposal(raft: Raft, message: Message) -> None:
    if raft.leader_id == NO_NODE:
        raise ProposalDroppedError(DropReason.NO_LEADER)
    if not raft.config.proposal_forwarding:
        raise ProposalDroppedError(DropReason.NOT_LEADER)
    raft.send(msgspec.structs.replace(message, to=raft.leader_id))


def _handle_append(raft: Raft, message: Message) -> None:
    log = raft.log
    if message.index < log.committed:  # late: what is committed cannot differ, and the leader is behind on that
        _reply(raft, message, MessageType.APPEND_RESPONSE, index=log.committed)
        return
    last_new_index = log.maybe_append(message.index, message.log_term, message.entries, message.commit)
    if last_new_index is not None:
        _reply(raft, message, MessageType.APPEND_RESPONSE, index=last_new_index)
        return
    # Help the leader to skip all entries that cannot match: no entry of this log of a later term than the one that
    # was asked for can be the leader's at or below that place.
    hint, hint_term = log.find_conflict_by_term(min(message.index, log.last_index), message.log_term)
    raft.send(
        Message(
            type=MessageType.APPEND_RESPONSE,
            to=message.sender,
            sender=raft.id,
            term=raft.term,
            index=message.index,
            reject=True,
            reject_hint=hint,
            log_term=hint_term,
            session=message.session,
        )
    )


def _handle_snapshot(raft: Raft, message: Message, snapshot: Snapshot) -> None:
    restored = _restore(raft, snapshot)
    index = raft.log.last_index if restored else raft.log.committed
    _reply(raft, message, MessageType.APPEND_RESPONSE, index=index)


def _restore(raft: Raft, snapshot: Snapshot) -> bool:
    """Put `snapshot` in the place of the log and the membership; return False if the log is better or as good."""
    meta = snapshot.meta
    if meta.index <= raft.log.committed:
        return False
    if not is_member(meta.conf_state, raft.id):  # it was sent to another node, or to one that is to be removed
        return False
    if raft.log.has(meta.index, meta.term):
        # The log holds all of it, and what it holds beyond may be committed: only the commit index was behind.
        raft.log.commit_to(meta.index)
        return False
    raft.log.restore(snapshot)
    raft.restore_members(meta.conf_state)
    return True


def _reply(raft: Raft, message: Message, kind: MessageType, *, index: int = 0, context: bytes = b"") -> None:
    raft.send(
        Message(
            type=kind,
            to=message.sender,
            sender=raft.id,
            term=raft.term,
            index=index,
            context=context,
            session=message.session,
        )
    )
