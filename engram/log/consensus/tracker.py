"""What a leader knows of each member: how much of the log it holds, and how fast it may be sent more."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import count

from engram.log.consensus.quorum import VoteResult, joint_committed_index, joint_vote
from engram.log.consensus.types import ConfState, InvariantViolation


class Inflights:
    """Appends that were sent and not acknowledged, bounded in number and in bytes."""

    def __init__(self, *, messages_max: int, bytes_max: int) -> None:
        self.messages_max = messages_max
        self.bytes_max = bytes_max
        self.bytes = 0
        self._sent: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def full(self) -> bool:
        """Whether no more may be sent; the last one may have gone over the limit of bytes."""
        return len(self._sent) >= self.messages_max or self.bytes >= self.bytes_max

    def add(self, last_index: int, size_bytes: int) -> None:
        """Note an append that ends at `last_index`, higher than all before.

        Raises:
            InvariantViolation: The window is full.
        """
        if self.full:
            raise InvariantViolation(f"append up to {last_index} sent into a full window")
        self._sent.append((last_index, size_bytes))
        self.bytes += size_bytes

    def free_up_to(self, index: int) -> None:
        """Forget the appends that end at or below `index`."""
        sent = self._sent
        while sent and sent[0][0] <= index:
            self.bytes -= sent.popleft()[1]

    def clear(self) -> None:
        """Forget all of them."""
        self._sent.clear()
        self.bytes = 0

    def sizes(self) -> Iterator[int]:
        """Yield the bytes of each append, oldest first."""
        return (size_bytes for _, size_bytes in self._sent)


class ProgressState(Enum):
    """How a follower is fed."""

    PROBE = "StateProbe"
    """Where its log and the leader's part is being found out: one append at a time."""
    REPLICATE = "StateReplicate"
    """It takes what it is sent: many appends may be under way."""
    SNAPSHOT = "StateSnapshot"
    """It needs entries that were compacted: nothing is sent until it has the snapshot."""


@dataclass(slots=True)
class Progress:
    """A member as the leader sees it: 0 <= match < next_index."""

    match: int
    """Up to here its log is known to be the leader's, durably. Never goes back in a term."""
    next_index: int
    """The first entry of the next append; in REPLICATE everything below was sent."""
    inflights: Inflights
    state: ProgressState = ProgressState.PROBE
    sent_commit: int = 0
    """The highest commit index that it was told."""
    pending_snapshot: int = 0
    """In SNAPSHOT: the index of the one that was sent."""
    recent_active: bool = False
    """It was heard of since the last check of the quorum."""
    append_paused: bool = False
    """No append until it answers one, or a heartbeat."""
    is_learner: bool = False
    session: int = 0
    """Which stay in the cluster this is: a member that was removed and added again may hold nothing of its log."""

    @property
    def is_paused(self) -> bool:
        """Whether no append may be sent, not even an empty one."""
        return self.append_paused or self.state is ProgressState.SNAPSHOT

    def is_addressed(self, session: int) -> bool:
        """Return whether an answer of `session` is about this stay; one that says none is believed."""
        return session in {0, self.session}

    def become_probe(self) -> None:
        """Find out where the logs part, beginning after what is known to match."""
        if self.state is ProgressState.SNAPSHOT:  # it may have been installed; a rejection will tell if it was not
            self.next_index = max(self.match + 1, self.pending_snapshot + 1)
        else:
            self.next_index = self.match + 1
        self._enter(ProgressState.PROBE)
        self.sent_commit = min(self.sent_commit, self.next_index - 1)

    def become_replicate(self) -> None:
        """Send without waiting, beginning after what is known to match."""
        self._enter(ProgressState.REPLICATE)
        self.next_index = self.match + 1

    def become_snapshot(self, index: int) -> None:
        """Wait until the snapshot at `index`, which was sent, is installed."""
        self._enter(ProgressState.SNAPSHOT)
        self.pending_snapshot = index
        self.next_index = index + 1
        self.sent_commit = index

    def note_sent(self, entries: int, size_bytes: int) -> None:
        """Account for an append of so many entries."""
        if self.state is ProgressState.REPLICATE:
            if entries:
                self.next_index += entries
                self.inflights.add(self.next_index - 1, size_bytes)
            # One more append, an empty one, may follow each heartbeat: without it a window full of lost appends
            # would never be found out.
            self.append_paused = self.inflights.full
        elif entries:
            self.append_paused = True

    def can_bump_commit(self, index: int) -> bool:
        """Return whether telling it the commit `index` would let it commit more of what it was sent."""
        return index > self.sent_commit and self.sent_commit < self.next_index - 1

    def acknowledge(self, index: int) -> bool:
        """Note that it holds the log up to `index`; return whether that is news."""
        if index <= self.match:
            return False
        self.match = index
        self.next_index = max(self.next_index, index + 1)
        self.append_paused = False
        return True

    def reject(self, index: int, hint: int) -> bool:
        """Note that it has no such entry at `index`, but perhaps at `hint`; return False for an answer that is stale."""
        if self.state is ProgressState.REPLICATE:
            if index <= self.match:
                return False
            self.next_index = self.match + 1
        else:
            # An append is probed only once; in SNAPSHOT the answer is to one from before it.
            if self.state is ProgressState.SNAPSHOT or self.next_index - 1 != index:
                return False
            self.next_index = max(min(index, hint + 1), self.match + 1)
            self.append_paused = False
        self.sent_commit = min(self.sent_commit, self.next_index - 1)
        return True

    def _enter(self, state: ProgressState) -> None:
        self.append_paused = False
        self.pending_snapshot = 0
        self.state = state
        self.inflights.clear()


@dataclass(frozen=True, slots=True)
class Members:
    """A configuration; joint while `outgoing` is not empty. Learners are never voters of either half."""

    incoming: frozenset[int] = frozenset()
    outgoing: frozenset[int] = frozenset()
    learners: frozenset[int] = frozenset()
    learners_next: frozenset[int] = frozenset()
    """Outgoing voters that become learners when the joint configuration is left."""
    auto_leave: bool = False

    @property
    def is_joint(self) -> bool:
        """Whether two majorities are needed."""
        return bool(self.outgoing)

    @property
    def voters(self) -> frozenset[int]:
        """The voters of both halves."""
        return self.incoming | self.outgoing if self.outgoing else self.incoming

    def conf_state(self) -> ConfState:
        """Return it in the form that is stored and sent."""
        return ConfState(
            voters=tuple(sorted(self.incoming)),
            learners=tuple(sorted(self.learners)),
            voters_outgoing=tuple(sorted(self.outgoing)),
            learners_next=tuple(sorted(self.learners_next)),
            auto_leave=self.auto_leave,
        )


@dataclass(slots=True)
class Tracker:
    """The configuration, the progress of each member, and the votes of an election."""

    inflight_messages_max: int
    inflight_bytes_max: int
    members: Members = field(default_factory=Members)
    progress: dict[int, Progress] = field(default_factory=dict)
    votes: dict[int, bool] = field(default_factory=dict)
    sessions: Iterator[int] = field(default_factory=lambda: count(1))

    def new_progress(self, *, match: int, next_index: int, is_learner: bool) -> Progress:
        """Return the progress of a member that has not been heard of, with a session of its own."""
        return Progress(
            match=match,
            next_index=next_index,
            inflights=Inflights(messages_max=self.inflight_messages_max, bytes_max=self.inflight_bytes_max),
            is_learner=is_learner,
            session=next(self.sessions),
        )

    def ids(self) -> list[int]:
        """Return all members, ascending: an order that depends on nothing else keeps every run repeatable."""
        return sorted(self.progress)

    def committed(self) -> int:
        """Return the highest index that enough voters hold."""
        held = {id_: progress.match for id_, progress in self.progress.items()}
        return joint_committed_index(self.members.incoming, self.members.outgoing, held)

    def quorum_active(self) -> bool:
        """Return whether enough voters were heard of since they were last asked for."""
        heard = {id_: progress.recent_active for id_, progress in self.progress.items() if not progress.is_learner}
        return joint_vote(self.members.incoming, self.members.outgoing, heard) is VoteResult.WON

    def record_vote(self, voter: int, *, granted: bool) -> None:
        """Count the first answer of `voter`, and no other."""
        self.votes.setdefault(voter, granted)

    def vote_result(self) -> VoteResult:
        """Return how the election stands."""
        return joint_vote(self.members.incoming, self.members.outgoing, self.votes)

    def copy_progress(self) -> dict[int, Progress]:
        """Return the progress of all members, to be changed without changing this."""
        return {id_: replace(progress) for id_, progress in self.progress.items()}
