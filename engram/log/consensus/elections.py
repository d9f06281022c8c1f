"""Campaigns and votes.

A pre-vote asks whether an election could be won, and changes nothing for anyone. Whoever hears of a leader refuses
both, unless that leader itself hands over.
"""

from engram.log.consensus import follower
from engram.log.consensus.quorum import VoteResult
from engram.log.consensus.raft import Raft
from engram.log.consensus.types import (
    NO_NODE,
    DropReason,
    EntryKind,
    Message,
    MessageType,
    ProposalDroppedError,
    Role,
)

TRANSFER = b"CampaignTransfer"
"""The context of a vote that the leader itself asked for: it overrides the belief in that leader."""

_RESPONSE_TYPES = {
    MessageType.VOTE: MessageType.VOTE_RESPONSE,
    MessageType.PRE_VOTE: MessageType.PRE_VOTE_RESPONSE,
}

_PAGE_BYTES = 1024 * 1024


def start(raft: Raft) -> None:
    """Campaign, if this node may lead; with a pre-vote first if so configured."""
    if not _may_campaign(raft):
        return
    if raft.config.pre_vote:
        _pre_campaign(raft)
    else:
        _campaign(raft, context=b"")


def start_transfer(raft: Raft) -> None:
    """Campaign because the leader hands over: at once, since a quorum is known to be reachable."""
    if _may_campaign(raft):
        _campaign(raft, context=TRANSFER)


def believes_in_leader(raft: Raft) -> bool:
    """Return whether this node heard of its leader too lately to help another one to power."""
    return raft.config.check_quorum and raft.leader_id != NO_NODE and raft.election_elapsed < raft.config.election_ticks


def answer_vote_request(raft: Raft, message: Message) -> None:
    """Grant or refuse; a vote goes to one candidate in a term, and only to one whose log is as new as this one.

    A learner grants too: it may be a voter by now, and not know it yet.
    """
    may_vote = (
        raft.vote == message.sender
        or (raft.vote == NO_NODE and raft.leader_id == NO_NODE)
        or (message.type is MessageType.PRE_VOTE and message.term > raft.term)
    )
    log = raft.log
    granted = may_vote and log.is_up_to_date(message.index, message.log_term)
    tells_commit = not granted and raft.config.refusals_tell_commit
    if granted and message.type is MessageType.VOTE:  # a pre-vote is no promise
        raft.election_elapsed = 0
        raft.vote = message.sender
    raft.send(
        Message(
            type=_RESPONSE_TYPES[message.type],
            to=message.sender,
            sender=raft.id,
            # What is granted is granted for the term that was asked for; that of a pre-vote is not this node's.
            term=message.term if granted else raft.term,
            reject=not granted,
            commit=log.committed if tells_commit else 0,
            log_term=log.term(log.committed) if tells_commit else 0,
        )
    )


def step_candidate(raft: Raft, message: Message) -> None:
    """Handle what reaches a candidate or a pre-candidate in its term."""
    match message.type:
        case MessageType.PROPOSE:
            raise ProposalDroppedError(DropReason.NO_LEADER)
        case MessageType.APPEND | MessageType.HEARTBEAT | MessageType.SNAPSHOT:
            raft.become_follower(message.term, message.sender)
            follower.step_follower(raft, message)
        case MessageType.VOTE_RESPONSE | MessageType.PRE_VOTE_RESPONSE if _learns_of_change(raft, message):
            raft.become_follower(raft.term, NO_NODE)  # it may have asked the wrong voters
        case MessageType.VOTE_RESPONSE if raft.role is Role.CANDIDATE:
            # Without its own vote on its disk it could forget this term in a crash, and win it a second time.
            if _count(raft, message) is VoteResult.WON and raft.id in raft.tracker.votes:
                raft.become_leader()
                raft.broadcast_append()
        case MessageType.PRE_VOTE_RESPONSE if raft.role is Role.PRE_CANDIDATE:
            if _count(raft, message) is VoteResult.WON:
                _campaign(raft, context=b"")
        case _:
            pass


def _learns_of_change(raft: Raft, message: Message) -> bool:
    """Learn what is committed from a refusal; return whether a change of the membership is.

    Without that a leader that was removed could block its successor for ever: its log may end in what will never be
    committed, so it refuses, while the candidate does not know that it does not need its vote any more. An entry is
    named by index and term, and so is everything before it (raft-rs: maybe_commit_by_vote).
    """
    if not message.reject or message.commit == 0:
        return False
    return raft.log.maybe_commit(message.commit, message.log_term) and _has_unapplied_change(raft)


def _may_campaign(raft: Raft) -> bool:
    return raft.role is not Role.LEADER and raft.is_promotable and not _has_unapplied_change(raft)


def _has_unapplied_change(raft: Raft) -> bool:
    """Whether a membership change is committed that this node does not go by yet: it would ask the wrong voters."""
    log = raft.log
    pages = log.pages(log.applied + 1, log.committed + 1, _PAGE_BYTES)
    return any(entry.kind is not EntryKind.NORMAL for page in pages for entry in page)


def _pre_campaign(raft: Raft) -> None:
    raft.become_pre_candidate()
    _ask(raft, MessageType.PRE_VOTE, term=raft.term + 1, context=b"")


def _campaign(raft: Raft, *, context: bytes) -> None:
    raft.become_candidate()
    _ask(raft, MessageType.VOTE, term=raft.term, context=context)


def _ask(raft: Raft, kind: MessageType, *, term: int, context: bytes) -> None:
    last_index, last_term = raft.log.last_index, raft.log.last_term
    for voter in sorted(raft.tracker.members.voters):
        if voter == raft.id:  # its own vote counts once it is durable, as any other does
            raft.send(Message(type=_RESPONSE_TYPES[kind], to=voter, sender=raft.id, term=term))
        else:
            raft.send(
                Message(
                    type=kind,
                    to=voter,
                    sender=raft.id,
                    term=term,
                    index=last_index,
                    log_term=last_term,
                    context=context,
                )
            )


def _count(raft: Raft, message: Message) -> VoteResult:
    raft.tracker.record_vote(message.sender, granted=not message.reject)
    result = raft.tracker.vote_result()
    if result is VoteResult.LOST:
        raft.become_follower(raft.term, NO_NODE)
    return result
