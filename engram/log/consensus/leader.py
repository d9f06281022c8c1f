"""What a leader does: append, replicate, commit, answer reads, hand over."""

from collections.abc import Callable, Sequence
from typing import assert_never

from engram.errors import CorruptionError
from engram.log.consensus.confchange import Changer, ConfChangeError
from engram.log.consensus.raft import Raft
from engram.log.consensus.readonly import ReadOnlyOption
from engram.log.consensus.tracker import Progress, ProgressState
from engram.log.consensus.types import (
    NO_NODE,
    DropReason,
    Entry,
    EntryKind,
    Message,
    MessageType,
    ProposalDroppedError,
    ReadState,
    decode_conf_change,
)


def step_leader(raft: Raft, message: Message) -> None:
    """Handle what reaches a leader in its term."""
    handler = _HANDLERS.get(message.type)
    if handler is not None:
        handler(raft, message)
        return
    about = raft.tracker.progress.get(message.sender)
    handler_of_member = _HANDLERS_OF_MEMBERS.get(message.type)
    if about is not None and handler_of_member is not None and about.is_addressed(message.session):
        handler_of_member(raft, about, message)


def propose(raft: Raft, entries: Sequence[Entry]) -> None:
    """Append `entries` and send them to all others.

    Raises:
        ProposalDroppedError: None of them was appended.
    """
    if raft.id not in raft.tracker.progress:
        raise ProposalDroppedError(DropReason.NOT_MEMBER)
    if raft.transferee != NO_NODE:
        raise ProposalDroppedError(DropReason.TRANSFERRING)
    checked, pending_conf_index = _check_changes(raft, entries)
    if not raft.append_entries(checked):
        raise ProposalDroppedError(DropReason.LOG_FULL)
    raft.pending_conf_index = pending_conf_index
    raft.broadcast_append()


def step_down(raft: Raft) -> None:
    """Follow, in the same term, nobody: the cluster is to elect another leader."""
    raft.become_follower(raft.term, NO_NODE)


def check_quorum(raft: Raft) -> None:
    """Step down unless enough voters were heard of since the last time."""
    if not raft.tracker.quorum_active():
        step_down(raft)
    for node_id, progress in raft.tracker.progress.items():
        if node_id != raft.id:
            progress.recent_active = False


def _check_changes(raft: Raft, entries: Sequence[Entry]) -> tuple[Sequence[Entry], int]:
    """Return `entries` with refused membership changes emptied, and the index of the last one that was not."""
    pending = raft.pending_conf_index
    if all(entry.kind is EntryKind.NORMAL for entry in entries):
        return entries, pending
    checked = list(entries)
    for place, entry in enumerate(entries):
        if entry.kind is EntryKind.NORMAL:
            continue
        if _is_refused(raft, entry, pending):
            checked[place] = Entry(0, 0)
        else:
            pending = raft.log.last_index + place + 1
    return checked, pending


def _is_refused(raft: Raft, entry: Entry, pending: int) -> bool:
    try:
        change = decode_conf_change(entry)
    except CorruptionError as error:
        raise ProposalDroppedError(DropReason.MALFORMED) from error
    if not raft.config.conf_change_validation:
        return False
    if pending > raft.log.applied:
        return True
    try:  # nothing else is under way, so this is the membership that it will be applied to
        Changer(raft.tracker, raft.log.last_index).apply(change)
    except ConfChangeError:
        return True
    return False


def _handle_propose(raft: Raft, message: Message) -> None:
    propose(raft, message.entries)


# Replication.


def _handle_append_response(raft: Raft, progress: Progress, message: Message) -> None:
    progress.recent_active = True
    if message.reject:
        _back_up(raft, progress, message)
        return
    was_probing_right = progress.state is ProgressState.PROBE and progress.match == message.index
    if not progress.acknowledge(message.index) and not was_probing_right:
        return
    _advance_state(raft, progress, message.index)
    if raft.maybe_commit():
        _answer_postponed_reads(raft)
        raft.broadcast_append()
    elif message.sender != raft.id and progress.can_bump_commit(raft.log.committed):
        raft.send_append(message.sender)
    if message.sender == raft.id:
        return
    while raft.maybe_send_append(message.sender, send_if_empty=False):  # there may be room for several now
        pass
    if message.sender == raft.transferee and progress.match == raft.log.last_index:
        raft.send_timeout_now(message.sender)


def _back_up(raft: Raft, progress: Progress, message: Message) -> None:
    """Probe further back, past all that cannot match: at most once for each term in either log."""
    hint = message.reject_hint
    if message.log_term > 0:
        hint, _ = raft.log.find_conflict_by_term(hint, message.log_term)
    if progress.reject(message.index, hint):
        if progress.state is ProgressState.REPLICATE:
            progress.become_probe()
        raft.send_append(message.sender)


def _advance_state(raft: Raft, progress: Progress, index: int) -> None:
    match progress.state:
        case ProgressState.PROBE:
            progress.become_replicate()
        case ProgressState.SNAPSHOT:
            # Whichever snapshot it installed, and wherever it got it: the log goes on from there.
            if progress.match + 1 >= raft.log.first_index:
                progress.become_replicate()
        case ProgressState.REPLICATE:
            progress.inflights.free_up_to(index)
        case _:
            assert_never(progress.state)


def _handle_heartbeat_response(raft: Raft, progress: Progress, message: Message) -> None:
    progress.recent_active = True
    progress.append_paused = False
    # One that has all may still be probed, after it was unreachable: its answer to an empty append ends that.
    if progress.match < raft.log.last_index or progress.state is ProgressState.PROBE:
        raft.send_append(message.sender)
    if message.context:
        raft.reads.acknowledge(message.sender, message.context)
        _answer_confirmed_reads(raft)


def _handle_snapshot_status(_: Raft, progress: Progress, message: Message) -> None:
    if progress.state is not ProgressState.SNAPSHOT:
        return
    if message.reject:
        progress.pending_snapshot = 0
    progress.become_probe()
    # After a success its acknowledgement comes next; after a failure nothing should, for the time of a heartbeat.
    progress.append_paused = True


def _handle_unreachable(_: Raft, progress: Progress, __: Message) -> None:
    if progress.state is ProgressState.REPLICATE:  # the append that was sent is likely lost
        progress.become_probe()


# Handing over.


def _handle_transfer(raft: Raft, progress: Progress, message: Message) -> None:
    to = message.sender
    if progress.is_learner or raft.transferee == to:
        return
    raft.abort_transfer()
    if to == raft.id:
        return
    raft.election_elapsed = 0  # it has the time of one election
    raft.transferee = to
    if progress.match == raft.log.last_index:
        raft.send_timeout_now(to)
    else:
        raft.send_append(to)


# Reads.


def _handle_read_index(raft: Raft, message: Message) -> None:
    if len(message.entries) != 1:
        return
    # Before it has committed an entry of its term a leader, a cluster's only one too, does not know what is committed.
    if raft.has_committed_in_term:
        _confirm_read(raft, message)
    else:
        raft.postponed_reads.append(message)


def _confirm_read(raft: Raft, message: Message) -> None:
    if raft.config.read_only_option is ReadOnlyOption.LEASE_BASED:
        _answer_read(raft, message, raft.log.committed)
        return
    raft.reads.add(message, raft.log.committed)
    raft.reads.acknowledge(raft.id, raft.reads.heartbeat_context())
    _answer_confirmed_reads(raft)
    if raft.reads.are_waiting:
        raft.broadcast_heartbeat()


def _answer_postponed_reads(raft: Raft) -> None:
    postponed, raft.postponed_reads = raft.postponed_reads, []
    for message in postponed:
        _confirm_read(raft, message)


def _answer_confirmed_reads(raft: Raft) -> None:
    for message, index in raft.reads.confirm(raft.tracker.members):
        _answer_read(raft, message, index)


def _answer_read(raft: Raft, message: Message, index: int) -> None:
    if message.sender in {NO_NODE, raft.id}:
        raft.read_states.append(ReadState(index, message.entries[0].data))
        return
    raft.send(
        Message(
            type=MessageType.READ_INDEX_RESPONSE,
            to=message.sender,
            sender=raft.id,
            term=raft.term,
            index=index,
            entries=message.entries,
        )
    )


_HANDLERS: dict[MessageType, Callable[[Raft, Message], None]] = {
    MessageType.PROPOSE: _handle_propose,
    MessageType.READ_INDEX: _handle_read_index,
}

_HANDLERS_OF_MEMBERS: dict[MessageType, Callable[[Raft, Progress, Message], None]] = {
    MessageType.APPEND_RESPONSE: _handle_append_response,
    MessageType.HEARTBEAT_RESPONSE: _handle_heartbeat_response,
    MessageType.SNAPSHOT_STATUS: _handle_snapshot_status,
    MessageType.UNREACHABLE: _handle_unreachable,
    MessageType.TRANSFER_LEADER: _handle_transfer,
}
