"""The door of the core: ticks, proposals and messages go in; what to write, send and apply comes out as a `Ready`.

Without asynchronous storage writes the driver takes a Ready, makes hard state, snapshot and entries durable, then sends
the messages, then applies the committed entries, then calls `advance`, and only then takes the next one. With them the
writes are themselves messages, to the two local threads, which carry the answers to deliver once they are done; the
next Ready may be taken at once.
"""

from collections.abc import Mapping, Sequence

import msgspec

from engram.log.consensus import leader, membership
from engram.log.consensus.raft import Config, Raft
from engram.log.consensus.stepping import step, tick
from engram.log.consensus.tracker import Members, ProgressState
from engram.log.consensus.types import (
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    LOCAL_ONLY,
    RESPONSES,
    ConfChange,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    InvariantViolation,
    Message,
    MessageRefusedError,
    MessageType,
    ReadState,
    Role,
    Snapshot,
    SoftState,
    encode_conf_change,
    entry_bytes,
    is_local_thread,
)


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done now."""

    soft_state: SoftState | None = None
    """None unless it changed."""
    hard_state: HardState | None = None
    """None unless it changed. To be durable before any message leaves."""
    read_states: Sequence[ReadState] = ()
    entries: Sequence[Entry] = ()
    """To be durable before any message leaves."""
    snapshot: Snapshot | None = None
    """To be durable before any message leaves; it replaces the whole log."""
    committed_entries: Sequence[Entry] = ()
    """To be applied, in order, after all that went before."""
    messages: Sequence[Message] = ()
    must_sync: bool = False
    """Whether hard state and entries must be flushed: a commit index alone may be lost."""


class MemberStatus(msgspec.Struct, frozen=True):
    """A member as the leader sees it."""

    match: int
    next_index: int
    state: ProgressState
    is_learner: bool
    is_paused: bool
    recent_active: bool
    pending_snapshot: int
    inflight: int
    inflight_full: bool


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A node as it sees itself."""

    id: int
    hard_state: HardState
    soft_state: SoftState
    last_index: int
    applied: int
    transferee: int
    members: Members
    progress: Mapping[int, MemberStatus]
    """Of all members, ascending; empty unless this node leads."""


class RawNode:
    """One node, driven from one task. Nothing here blocks, and nothing happens between calls."""

    def __init__(self, config: Config) -> None:
        self.raft = Raft(config)
        self._is_async = config.async_storage_writes
        self._soft_state = self.raft.soft_state
        self._hard_state = self.raft.hard_state
        self._steps_on_advance: list[Message] = []

    @property
    def last_index(self) -> int:
        """The index of the last entry, durable or not."""
        return self.raft.log.last_index

    @property
    def term(self) -> int:
        """The current term."""
        return self.raft.term

    @property
    def committed(self) -> int:
        """The last index that is known to be committed."""
        return self.raft.log.committed

    # In.

    def tick(self) -> None:
        """Let one tick pass; after a pause, still only one."""
        tick(self.raft)

    def campaign(self) -> None:
        """Stand for election now, if this node may."""
        self._local(MessageType.HUP)

    def propose(self, data: bytes, *more: bytes) -> None:
        """Append `data` on the leader: it is at `last_index`, in `term`, if this node leads.

        With `more`, each is an entry, in this order, and the last of them is at `last_index`. Proposed together they
        share the appends that carry them, which costs a fraction of what proposing each by itself does.

        Raises:
            ProposalDroppedError: None of them was appended.
        """
        entries = tuple(Entry(0, 0, EntryKind.NORMAL, payload) for payload in (data, *more))
        step(self.raft, Message(type=MessageType.PROPOSE, sender=self.raft.id, entries=entries))

    def propose_conf_change(self, change: ConfChange, *, simple: bool = False) -> None:
        """Append a change of the membership.

        A leader puts an empty entry in its place while another one is under way, or if it does not fit the membership.

        Args:
            change: What is to change.
            simple: Mark the entry as one of a single change.

        Raises:
            ProposalDroppedError: It was not appended.
        """
        kind = EntryKind.CONF_CHANGE if simple else EntryKind.CONF_CHANGE_V2
        entries = (Entry(0, 0, kind, encode_conf_change(change)),)
        step(self.raft, Message(type=MessageType.PROPOSE, sender=self.raft.id, entries=entries))

    def apply_conf_change(self, change: ConfChange) -> ConfState:
        """Go by `change`, which must be that of a committed entry, from now on; return the new membership.

        An application that decides against a change, as every node must, passes one of node 0 in its place.
        """
        return membership.apply_change(self.raft, change)

    def step(self, message: Message) -> None:
        """Let a message of a peer, or an answer of a local thread, have its effect.

        Raises:
            MessageRefusedError: It had none; its sender is not a member, or must not send this.
            ProposalDroppedError: It was a proposal that was forwarded, and nothing was appended.
        """
        if not is_local_thread(message.sender):
            if message.type in LOCAL_ONLY:
                raise MessageRefusedError(f"{message.type.name} must not come from node {message.sender}")
            if message.type in RESPONSES and message.sender not in self.raft.tracker.progress:
                raise MessageRefusedError(f"{message.type.name} from node {message.sender}, which is not a member")
        step(self.raft, message)

    def read_index(self, context: bytes) -> None:
        """Ask how far to apply before a linearizable read; the answer is a ReadState with `context`, if there is one.

        Messages may be lost: ask again with another context after a while.
        """
        entries = (Entry(0, 0, EntryKind.NORMAL, context),)
        step(self.raft, Message(type=MessageType.READ_INDEX, sender=self.raft.id, entries=entries))

    def transfer_leadership(self, to: int) -> None:
        """Hand over to `to`, within the time of an election; no proposal is taken meanwhile."""
        step(self.raft, Message(type=MessageType.TRANSFER_LEADER, sender=to))

    def forget_leader(self) -> None:
        """Believe in no leader until one is heard of, so that this node helps a candidate at once.

        For when the connection to the leader broke: a `campaign()` that follows soon succeeds if most have seen the
        same. While a majority still hears of the leader it does not, and the leader's next heartbeat ends it.
        """
        self._local(MessageType.FORGET_LEADER)

    def step_down(self) -> None:
        """Lead no more: follow nobody, in the same term. It is this node's own decision, and no other is told.

        For when its disk hangs, or it is about to stop and has nobody to hand over to: the others elect a leader once
        they miss its heartbeats. What it has proposed may still be committed.
        """
        if self.raft.role is Role.LEADER:
            leader.step_down(self.raft)

    def report_unreachable(self, node_id: int) -> None:
        """Note that a message to `node_id` was lost."""
        step(self.raft, Message(type=MessageType.UNREACHABLE, sender=node_id))

    def report_snapshot(self, node_id: int, *, ok: bool) -> None:
        """Note that the snapshot for `node_id` arrived, or did not. Without this a failed one is never sent again."""
        step(self.raft, Message(type=MessageType.SNAPSHOT_STATUS, sender=node_id, reject=not ok))

    # Out.

    def has_ready(self) -> bool:
        """Return whether there is anything to do."""
        raft = self.raft
        log = raft.log
        return bool(
            raft.messages
            or raft.messages_after_append
            or raft.read_states
            or log.unstable.has_next
            or log.has_next_committed(allow_unstable=not self._is_async)
            or self._soft_state_changed()
            or self._hard_state_changed()
        )

    def ready(self) -> Ready:
        """Return what is to be done, which then is this driver's duty: it is not returned again."""
        raft = self.raft
        entries = raft.log.unstable.next_entries()
        soft_state = raft.soft_state if self._soft_state_changed() else None
        hard_state = raft.hard_state if self._hard_state_changed() else None
        snapshot = raft.log.unstable.next_snapshot()
        committed = raft.log.next_committed(allow_unstable=not self._is_async)
        ready = Ready(
            soft_state=soft_state,
            hard_state=hard_state,
            read_states=raft.read_states,
            entries=entries,
            snapshot=snapshot,
            committed_entries=committed,
            messages=self._outgoing(tuple(entries), hard_state, snapshot, tuple(committed)),
            must_sync=bool(entries) or (raft.term, raft.vote) != (self._hard_state.term, self._hard_state.vote),
        )
        self._accept(ready)
        return ready

    def advance(self) -> None:
        """Note that the last Ready is done with: written, sent, and applied."""
        if self._is_async:
            raise InvariantViolation("advance() is for a node without asynchronous storage writes")
        steps, self._steps_on_advance = self._steps_on_advance, []
        for message in steps:
            step(self.raft, message)

    def status(self) -> Status:
        """Return what this node knows of itself, and of the others if it leads."""
        raft = self.raft
        return Status(
            id=raft.id,
            hard_state=raft.hard_state,
            soft_state=raft.soft_state,
            last_index=raft.log.last_index,
            applied=raft.log.applied,
            transferee=raft.transferee,
            members=raft.tracker.members,
            progress=self._member_statuses() if raft.role is Role.LEADER else {},
        )

    def _local(self, kind: MessageType) -> None:
        step(self.raft, Message(type=kind, sender=self.raft.id))

    def _soft_state_changed(self) -> bool:
        raft, known = self.raft, self._soft_state
        return raft.leader_id != known.leader_id or raft.role is not known.role

    def _hard_state_changed(self) -> bool:
        raft, known = self.raft, self._hard_state
        return raft.log.committed != known.commit or raft.term != known.term or raft.vote != known.vote

    def _outgoing(
        self,
        entries: tuple[Entry, ...],
        hard_state: HardState | None,
        snapshot: Snapshot | None,
        committed: tuple[Entry, ...],
    ) -> list[Message]:
        raft = self.raft
        after_append = raft.messages_after_append
        if not self._is_async:
            return [*raft.messages, *(message for message in after_append if message.to != raft.id)]
        messages = raft.messages.copy()
        if entries or hard_state or snapshot or after_append:
            messages.append(self._storage_append(entries, hard_state or HardState(), snapshot))
        if committed:
            messages.append(self._storage_apply(committed))
        return messages

    def _storage_append(self, entries: tuple[Entry, ...], hard_state: HardState, snapshot: Snapshot | None) -> Message:
        return Message(
            type=MessageType.STORAGE_APPEND,
            to=LOCAL_APPEND_THREAD,
            sender=self.raft.id,
            term=hard_state.term,
            vote=hard_state.vote,
            commit=hard_state.commit,
            entries=entries,
            snapshot=snapshot,
            responses=(*self.raft.messages_after_append, *self._storage_append_response(snapshot)),
        )

    def _storage_append_response(self, snapshot: Snapshot | None) -> Sequence[Message]:
        """Return the answer that says what is durable, if there is anything to say.

        It has the node's term, and is ignored in a later one: by then the entries may have been replaced and, in yet
        another term, brought back. They would count as durable while their replacement is what is on disk.
        """
        raft = self.raft
        has_entries = raft.log.has_unstable()
        if not has_entries and snapshot is None:
            return ()
        answer = Message(
            type=MessageType.STORAGE_APPEND_RESPONSE,
            to=raft.id,
            sender=LOCAL_APPEND_THREAD,
            term=raft.term,
            index=raft.log.last_index if has_entries else 0,
            log_term=raft.log.last_term if has_entries else 0,
            snapshot=snapshot,
        )
        return (answer,)

    def _storage_apply(self, committed: tuple[Entry, ...]) -> Message:
        return Message(
            type=MessageType.STORAGE_APPLY,
            to=LOCAL_APPLY_THREAD,
            sender=self.raft.id,
            entries=committed,
            responses=(self._storage_apply_response(committed),),
        )

    def _storage_apply_response(self, committed: tuple[Entry, ...]) -> Message:
        return Message(
            type=MessageType.STORAGE_APPLY_RESPONSE,
            to=self.raft.id,
            sender=LOCAL_APPLY_THREAD,
            entries=committed,
        )

    def _accept(self, ready: Ready) -> None:
        raft = self.raft
        if not self._is_async:
            self._plan_advance(ready)
        self._soft_state = ready.soft_state or self._soft_state
        self._hard_state = ready.hard_state or self._hard_state
        raft.read_states = []
        raft.messages = []
        raft.messages_after_append = []
        raft.log.unstable.accept_in_progress()
        if ready.committed_entries:
            raft.log.accept_applying(
                ready.committed_entries[-1].index,
                sum(map(entry_bytes, ready.committed_entries)),
                allow_unstable=not self._is_async,
            )

    def _plan_advance(self, ready: Ready) -> None:
        if self._steps_on_advance:
            raise InvariantViolation("ready() before advance()")
        raft = self.raft
        self._steps_on_advance.extend(message for message in raft.messages_after_append if message.to == raft.id)
        self._steps_on_advance.extend(self._storage_append_response(ready.snapshot))
        if ready.committed_entries:
            self._steps_on_advance.append(self._storage_apply_response(tuple(ready.committed_entries)))

    def _member_statuses(self) -> dict[int, MemberStatus]:
        tracker = self.raft.tracker
        return {
            node_id: MemberStatus(
                match=progress.match,
                next_index=progress.next_index,
                state=progress.state,
                is_learner=progress.is_learner,
                is_paused=progress.is_paused,
                recent_active=progress.recent_active,
                pending_snapshot=progress.pending_snapshot,
                inflight=len(progress.inflights),
                inflight_full=progress.inflights.full,
            )
            for node_id, progress in ((node_id, tracker.progress[node_id]) for node_id in tracker.ids())
        }
