"""One node's state, and what every role does with it: send, append, commit, change roles.

What a message makes a node do is decided in `stepping`, `elections`, `follower`, `leader` and `membership`, all of which
are functions over the `Raft` here.
"""

from collections.abc import Sequence

from engram.log.consensus import confchange
from engram.log.consensus.config import Config
from engram.log.consensus.raftlog import RaftLog
from engram.log.consensus.readonly import ReadRequests
from engram.log.consensus.tracker import Progress, ProgressState, Tracker
from engram.log.consensus.types import (
    NO_NODE,
    ConfState,
    Entry,
    HardState,
    InvariantViolation,
    Message,
    MessageType,
    ReadState,
    Role,
    SoftState,
    is_empty,
)
from engram.log.storage import CompactedError, SnapshotTemporarilyUnavailableError

__all__ = ["Config", "Raft", "Role"]

_PAGE_BYTES = 1024 * 1024

_AFTER_APPEND = frozenset({MessageType.APPEND_RESPONSE, MessageType.VOTE_RESPONSE, MessageType.PRE_VOTE_RESPONSE})
"""Messages that promise something: what they promise must be on disk first."""


class Raft:
    """A node. Everything is public to this package, and nothing but `step` and `tick` of `stepping` may be called."""

    def __init__(self, config: Config) -> None:
        hard_state, conf_state = config.storage.initial_state()
        self.config = config
        self.id = config.id
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.role = Role.FOLLOWER
        self.leader_id = NO_NODE
        self.transferee = NO_NODE
        """The node that leadership is being handed to."""
        self.log = RaftLog(config.storage, max_applying_bytes=config.max_committed_bytes_per_ready)
        self.tracker = self._new_tracker()
        self.messages: list[Message] = []
        """May leave at once."""
        self.messages_after_append: list[Message] = []
        """May leave when all that came before them is durable. They may be for this node itself."""
        self.read_states: list[ReadState] = []
        self.reads = ReadRequests()
        self.postponed_reads: list[Message] = []
        """Asked of a leader before it has committed anything in its term."""
        self.pending_conf_index = 0
        """No membership change is at a higher index; the leader appends one only when this is applied."""
        self.uncommitted_bytes = 0
        """A leader's payloads from what is applied to the end of the log."""
        self.election_elapsed = 0
        """Ticks since the leader was heard of; a leader's, since it checked for a quorum."""
        self.heartbeat_elapsed = 0
        self.randomized_election_ticks = 0
        self._load(hard_state, conf_state)

    @property
    def hard_state(self) -> HardState:
        """What must be durable."""
        return HardState(self.term, self.vote, self.log.committed)

    @property
    def soft_state(self) -> SoftState:
        """What need not be."""
        return SoftState(self.leader_id, self.role)

    @property
    def is_promotable(self) -> bool:
        """Whether this node may lead: a voter, whose log is not about to be replaced by a snapshot."""
        progress = self.tracker.progress.get(self.id)
        return progress is not None and not progress.is_learner and self.log.unstable.snapshot is None

    @property
    def has_committed_in_term(self) -> bool:
        """Whether an entry of this term is committed: only then does a leader know the commit index."""
        return self.log.has(self.log.committed, self.term)

    # Messages.

    def send(self, message: Message) -> None:
        """Let `message` leave: a promise after what it promises is durable, anything else at once."""
        if message.type in _AFTER_APPEND:
            self.messages_after_append.append(message)
            return
        if message.to == self.id:
            raise InvariantViolation(f"{message.type.name} sent to the node itself")
        self.messages.append(message)

    def send_append(self, to: int) -> None:
        """Send what `to` is believed to need next, or at least what is committed."""
        self.maybe_send_append(to, send_if_empty=True)

    def maybe_send_append(self, to: int, *, send_if_empty: bool) -> bool:
        """Send entries to `to` unless it is paused, a snapshot if they are compacted; return whether anything was sent."""
        progress = self.tracker.progress[to]
        if progress.is_paused:
            return False
        previous_index = progress.next_index - 1
        try:
            previous_term = self.log.term(previous_index)
            entries = self._entries_for(progress)
        except CompactedError:
            return self._maybe_send_snapshot(to, progress)
        if not entries and not send_if_empty:
            return False
        self.send(
            Message(
                type=MessageType.APPEND,
                to=to,
                sender=self.id,
                term=self.term,
                index=previous_index,
                log_term=previous_term,
                entries=tuple(entries),
                commit=self.log.committed,
                session=progress.session,
            )
        )
        progress.note_sent(len(entries), sum(len(entry.data) for entry in entries))
        progress.sent_commit = self.log.committed
        return True

    def broadcast_append(self) -> None:
        """Send appends to all others."""
        for node_id in self.tracker.ids():
            if node_id != self.id:
                self.send_append(node_id)

    def broadcast_heartbeat(self) -> None:
        """Tell all others who leads; their answers confirm the reads that wait."""
        context = self.reads.heartbeat_context()
        for node_id in self.tracker.ids():
            if node_id != self.id:
                self._send_heartbeat(node_id, context)

    def send_timeout_now(self, to: int) -> None:
        """Let `to`, whose log is complete, campaign at once."""
        self.send(Message(type=MessageType.TIMEOUT_NOW, to=to, sender=self.id, term=self.term))

    # The log.

    def append_entries(self, entries: Sequence[Entry]) -> bool:
        """Append `entries` to the leader's log; return False, and append nothing, if too much is uncommitted."""
        size_bytes = sum(len(entry.data) for entry in entries)
        if self.uncommitted_bytes and size_bytes and self._would_overflow(size_bytes):
            return False
        self.uncommitted_bytes += size_bytes
        first, term = self.log.last_index + 1, self.term
        last_index = self.log.append(
            [Entry(term, first + place, entry.kind, entry.data) for place, entry in enumerate(entries)]
        )
        self._acknowledge_own(last_index)
        return True

    def release_uncommitted(self, entries: Sequence[Entry]) -> None:
        """Note that `entries` are applied and no longer count against the limit."""
        size_bytes = sum(len(entry.data) for entry in entries)
        self.uncommitted_bytes = max(self.uncommitted_bytes - size_bytes, 0)

    def maybe_commit(self) -> bool:
        """Commit what enough voters hold, if it is of this term; return whether that is news."""
        return self.log.maybe_commit(self.tracker.committed(), self.term)

    # Roles.

    def become_follower(self, term: int, leader_id: int) -> None:
        """Follow `leader_id`, or whoever will lead, in `term`."""
        self._reset(term)
        self.leader_id = leader_id
        self.role = Role.FOLLOWER

    def become_pre_candidate(self) -> None:
        """Ask around, without a new term and without a vote."""
        self._require(self.role is not Role.LEADER)
        self.tracker.votes.clear()
        self.leader_id = NO_NODE
        self.role = Role.PRE_CANDIDATE

    def become_candidate(self) -> None:
        """Stand for election in a new term, and vote for itself."""
        self._require(self.role is not Role.LEADER)
        self._reset(self.term + 1)
        self.vote = self.id
        self.role = Role.CANDIDATE

    def become_leader(self) -> None:
        """Lead, and say so by an empty entry: without one of its own term nothing older could be committed."""
        self._require(self.role is not Role.FOLLOWER)
        self._reset(self.term)
        self.leader_id = self.id
        self.role = Role.LEADER
        progress = self.tracker.progress[self.id]
        progress.become_replicate()
        progress.recent_active = True
        # The log may hold a membership change that is not applied. Which one does not matter: none is appended until
        # all of it is.
        self.pending_conf_index = self.log.last_index
        pages = self.log.pages(self.log.applied + 1, self.log.last_index + 1, _PAGE_BYTES)
        self.uncommitted_bytes = sum(len(entry.data) for page in pages for entry in page)
        self._require(self.append_entries((Entry(0, 0),)))

    def abort_transfer(self) -> None:
        """Keep leading."""
        self.transferee = NO_NODE

    # Membership.

    def adopt(self, configuration: confchange.Configuration) -> ConfState:
        """Go by `configuration` from now on; return it in the form that is stored."""
        self.tracker.members = configuration.members
        self.tracker.progress = configuration.progress
        return configuration.members.conf_state()

    def restore_members(self, state: ConfState) -> None:
        """Forget all members, and take those of `state`."""
        self.tracker = self._new_tracker()
        try:
            adopted = self.adopt(confchange.restore(self.tracker, state, self.log.last_index))
        except confchange.ConfChangeError as error:
            raise InvariantViolation(f"membership {state} makes no sense: {error}") from error
        if adopted != _sorted(state):
            raise InvariantViolation(f"membership {state} was restored as {adopted}")

    # What only the above needs.

    def _load(self, hard_state: HardState, conf_state: ConfState) -> None:
        self.restore_members(conf_state)
        # The commit index is not made durable by itself, so it may come back lower than what was applied.
        applied = max(self.config.applied, self.log.applied)
        self.log.commit_to(max(hard_state.commit, applied))
        self.log.applied_to(applied, 0)
        self.become_follower(self.term, NO_NODE)

    def _new_tracker(self) -> Tracker:
        config = self.config
        return Tracker(inflight_messages_max=config.max_inflight_messages, inflight_bytes_max=config.max_inflight_bytes)

    def _reset(self, term: int) -> None:
        if self.term != term:  # within a term the vote stays, whatever becomes of the node: it has been given
            self._require(term > self.term)
            self.term = term
            self.vote = NO_NODE
        self.leader_id = NO_NODE
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.randomized_election_ticks = self.config.election_ticks + self.config.rng.randrange(
            self.config.election_ticks
        )
        self.abort_transfer()
        self.tracker.votes.clear()
        self._reset_progress()
        self.pending_conf_index = 0
        self.uncommitted_bytes = 0
        self.reads = ReadRequests()
        self.postponed_reads.clear()

    def _reset_progress(self) -> None:
        last_index = self.log.last_index
        for node_id, progress in self.tracker.progress.items():
            self.tracker.progress[node_id] = self.tracker.new_progress(
                match=last_index if node_id == self.id else 0,
                next_index=last_index + 1,
                is_learner=progress.is_learner,
            )

    def _entries_for(self, progress: Progress) -> Sequence[Entry]:
        if progress.state is ProgressState.REPLICATE and progress.inflights.full:
            return ()  # still sent after a heartbeat: should all that is in flight be lost, this finds out
        return self.log.entries(progress.next_index, self.config.max_bytes_per_message)

    def _maybe_send_snapshot(self, to: int, progress: Progress) -> bool:
        if not progress.recent_active:  # it could not take it, and making one may be dear
            return False
        try:
            snapshot = self.log.snapshot()
        except SnapshotTemporarilyUnavailableError:
            return False
        if is_empty(snapshot):
            raise InvariantViolation("entries were compacted, and there is no snapshot")
        progress.become_snapshot(snapshot.meta.index)
        self.send(
            Message(
                type=MessageType.SNAPSHOT,
                to=to,
                sender=self.id,
                term=self.term,
                snapshot=snapshot,
                session=progress.session,
            )
        )
        return True

    def _send_heartbeat(self, to: int, context: bytes) -> None:
        progress = self.tracker.progress[to]
        # Never more than what `to` is known to hold: beyond that its log may be another leader's.
        commit = min(progress.match, self.log.committed)
        self.send(
            Message(
                type=MessageType.HEARTBEAT,
                to=to,
                sender=self.id,
                term=self.term,
                commit=commit,
                context=context,
                session=progress.session,
            )
        )
        progress.sent_commit = commit

    def _would_overflow(self, size_bytes: int) -> bool:
        return self.uncommitted_bytes + size_bytes > self.config.max_uncommitted_bytes

    def _acknowledge_own(self, index: int) -> None:
        """Let the leader count itself, once what it appended is durable; one answer stands for all before it."""
        answer = Message(type=MessageType.APPEND_RESPONSE, to=self.id, sender=self.id, term=self.term, index=index)
        waiting = self.messages_after_append
        if waiting and waiting[-1].to == self.id and waiting[-1].type is MessageType.APPEND_RESPONSE:
            waiting.pop()
        self.send(answer)

    def _require(self, holds: bool) -> None:  # noqa: FBT001 - reads as the claim it is given
        if not holds:
            raise InvariantViolation(f"node {self.id} is {self.role.name} in term {self.term}: it cannot do this")


def _sorted(state: ConfState) -> ConfState:
    """Return `state` in the one form that equal memberships share."""
    return ConfState(
        voters=tuple(sorted(state.voters)),
        learners=tuple(sorted(state.learners)),
        voters_outgoing=tuple(sorted(state.voters_outgoing)),
        learners_next=tuple(sorted(state.learners_next)),
        auto_leave=state.auto_leave,
    )
