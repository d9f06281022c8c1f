"""What the core takes in and gives out: entries, messages, membership, and the two ways to say no.

Values never change once they are made, so a message may share entries with the log it came from. `0` stands for "no
node" wherever an id is expected, and for "none yet" wherever an index or a term is.
"""

from enum import IntEnum, StrEnum

import msgspec

from engram.errors import CorruptionError, FatalError

NO_NODE = 0

LOCAL_APPEND_THREAD = 2**64 - 1
"""The addressee of STORAGE_APPEND: whoever writes this node's log."""

LOCAL_APPLY_THREAD = 2**64 - 2
"""The addressee of STORAGE_APPLY: whoever applies what is committed."""

UNLIMITED = 2**63 - 1
"""A count or a size that is never reached."""

ENTRY_OVERHEAD_BYTES = 16
"""Counted for each entry beside its payload, so that a million empty ones are not free."""


class InvariantViolation(FatalError):  # noqa: N818 - the word the literature uses
    """The core, or whoever drives it, has a bug. Going on could lose committed entries: stop the node."""


class DropReason(StrEnum):
    """Why a proposal was not appended."""

    NO_LEADER = "no_leader"
    NOT_LEADER = "not_leader"
    """This node follows, and was told not to forward."""
    TRANSFERRING = "transferring"
    """Leadership is on its way to another node."""
    LOG_FULL = "log_full"
    """Too many bytes wait to be committed."""
    NOT_MEMBER = "not_member"
    """This node leads only until its removal takes effect."""
    MALFORMED = "malformed"
    """A membership change that does not decode."""


class ProposalDroppedError(Exception):
    """Nothing was appended; proposing again is safe."""

    def __init__(self, reason: DropReason) -> None:
        super().__init__(f"proposal dropped: {reason}")
        self.reason = reason


class MessageRefusedError(Exception):
    """A message that must not come from the network, or an answer of a node that is not a member: drop it."""


class Role(IntEnum):
    """What a node is in its term."""

    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2
    PRE_CANDIDATE = 3


class EntryKind(IntEnum):
    """Who an entry is for. An unknown kind must stop the node, never be skipped: it would diverge."""

    NORMAL = 0
    """For the application; an empty one is a leader's first, and says nothing."""
    CONF_CHANGE = 1
    """One simple change of the membership."""
    CONF_CHANGE_V2 = 2
    """Any change of the membership; an empty one leaves the joint configuration."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One slot of the log. `term` and `index` are 0 until a leader appends it."""

    term: int
    index: int
    kind: EntryKind = EntryKind.NORMAL
    data: bytes = b""

    def __repr__(self) -> str:  # never the payload: it is what somebody said
        return f"Entry({self.term}/{self.index} {self.kind.name} {len(self.data)} bytes)"


class HardState(msgspec.Struct, frozen=True, gc=False):
    """What must be on disk before a vote or an acknowledgement leaves; `commit` alone may lag."""

    term: int = 0
    vote: int = NO_NODE
    commit: int = 0


class SoftState(msgspec.Struct, frozen=True, gc=False):
    """What a restart may forget."""

    leader_id: int = NO_NODE
    role: Role = Role.FOLLOWER


class ReadState(msgspec.Struct, frozen=True, gc=False):
    """A read that was asked for with `context` is linearizable once `index` has been applied."""

    index: int
    context: bytes


class ConfState(msgspec.Struct, frozen=True, gc=False):
    """Who belongs to the cluster. `voters_outgoing` is empty unless the configuration is joint."""

    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    voters_outgoing: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    """Outgoing voters that become learners when the joint configuration is left."""
    auto_leave: bool = False
    """The leader leaves the joint configuration by itself."""


class SnapshotMeta(msgspec.Struct, frozen=True, gc=False):
    """Where a snapshot was taken, and who belonged to the cluster there."""

    index: int = 0
    term: int = 0
    conf_state: ConfState = ConfState()


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """The state after entry `meta.index`; index 0 means there is none. `data` is the application's business."""

    meta: SnapshotMeta = SnapshotMeta()
    data: bytes = b""


class ChangeKind(IntEnum):
    """What happens to one member."""

    ADD_VOTER = 0
    REMOVE = 1
    UPDATE = 2
    """Nothing: the application keeps addresses and the like, and may want them changed in log order."""
    ADD_LEARNER = 3


class Transition(IntEnum):
    """How a change takes effect."""

    AUTO = 0
    """At once if it is simple, else through a joint configuration that is left by itself."""
    JOINT_IMPLICIT = 1
    """Through a joint configuration that is left by itself."""
    JOINT_EXPLICIT = 2
    """Through a joint configuration that an empty change leaves."""


class Change(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What happens to member `node_id`."""

    kind: ChangeKind
    node_id: int


class ConfChange(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A change of the membership; without `changes` it leaves the joint configuration."""

    changes: tuple[Change, ...] = ()
    transition: Transition = Transition.AUTO
    context: bytes = b""
    """The application's own."""

    @property
    def leaves_joint(self) -> bool:
        """Whether this is the second half of a joint change."""
        return not self.changes and self.transition is Transition.AUTO

    @property
    def enters_joint(self) -> bool:
        """Whether a joint configuration is needed, or wanted."""
        return self.transition is not Transition.AUTO or len(self.changes) > 1

    @property
    def auto_leave(self) -> bool:
        """Whether a joint configuration entered by this is left by itself."""
        return self.transition is not Transition.JOINT_EXPLICIT


_decoder = msgspec.msgpack.Decoder(ConfChange)


def encode_conf_change(change: ConfChange) -> bytes:
    """Return the payload of an entry that carries `change`; empty for one that leaves the joint configuration."""
    return b"" if change == ConfChange() else msgspec.msgpack.encode(change)


def decode_conf_change(entry: Entry) -> ConfChange:
    """Return the change that `entry` carries.

    Raises:
        CorruptionError: The payload is not one.
    """
    if not entry.data:
        return ConfChange()
    try:
        return _decoder.decode(entry.data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise CorruptionError(f"log entry {entry.index}: undecodable membership change: {error}") from error


class MessageType(IntEnum):
    """What a message says. The numbers are etcd's."""

    HUP = 0
    """Local: campaign."""
    BEAT = 1
    """Local: send heartbeats."""
    PROPOSE = 2
    APPEND = 3
    APPEND_RESPONSE = 4
    VOTE = 5
    VOTE_RESPONSE = 6
    SNAPSHOT = 7
    HEARTBEAT = 8
    HEARTBEAT_RESPONSE = 9
    UNREACHABLE = 10
    """Local: a message to `sender` was lost."""
    SNAPSHOT_STATUS = 11
    """Local: a snapshot reached `sender`, or with `reject` it did not."""
    CHECK_QUORUM = 12
    """Local: step down unless a majority was heard of."""
    TRANSFER_LEADER = 13
    """Let `sender` lead."""
    TIMEOUT_NOW = 14
    """Campaign at once: the leader hands over."""
    READ_INDEX = 15
    READ_INDEX_RESPONSE = 16
    PRE_VOTE = 17
    PRE_VOTE_RESPONSE = 18
    STORAGE_APPEND = 19
    STORAGE_APPEND_RESPONSE = 20
    STORAGE_APPLY = 21
    STORAGE_APPLY_RESPONSE = 22
    FORGET_LEADER = 23
    """Local: stop believing in the leader, so that this node may vote for another before it times out."""


class Message(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Everything that reaches or leaves the core, from peers, from the disk, and from the node itself.

    STORAGE_APPEND asks to write, in this order and atomically: `term`, `vote` and `commit` (unless `term` is 0),
    `snapshot`, and `entries`, which replace whatever is at their first index and beyond. When all of that is durable,
    and never before, `responses` are to be delivered to whom they are addressed. STORAGE_APPLY asks to apply `entries`
    and then to deliver `responses`. From the moment that a snapshot is asked to be written, entries up to its index are
    not to be applied any more, only to be answered for: the membership is that of the snapshot already. Messages to the same local thread keep their order and are never lost.
    """

    type: MessageType
    to: int = NO_NODE
    sender: int = NO_NODE
    term: int = 0
    """0 for what is local: it belongs to whatever term the receiver is in."""
    log_term: int = 0
    """The term of the entry at `index`."""
    index: int = 0
    entries: tuple[Entry, ...] = ()
    commit: int = 0
    vote: int = NO_NODE
    snapshot: Snapshot | None = None
    reject: bool = False
    reject_hint: int = 0
    """Where a follower that rejects `index` believes that the logs may still agree; its term there is `log_term`."""
    context: bytes = b""
    responses: "tuple[Message, ...]" = ()
    session: int = 0
    """Which stay of a member in the cluster an append or its answer belongs to; 0: not said."""


RESPONSES = frozenset(
    {
        MessageType.APPEND_RESPONSE,
        MessageType.VOTE_RESPONSE,
        MessageType.HEARTBEAT_RESPONSE,
        MessageType.UNREACHABLE,
        MessageType.READ_INDEX_RESPONSE,
        MessageType.PRE_VOTE_RESPONSE,
        MessageType.STORAGE_APPEND_RESPONSE,
        MessageType.STORAGE_APPLY_RESPONSE,
    }
)
"""Answers: from a node that is not a member they mean nothing."""

LOCAL_ONLY = frozenset(
    {
        MessageType.HUP,
        MessageType.BEAT,
        MessageType.UNREACHABLE,
        MessageType.SNAPSHOT_STATUS,
        MessageType.CHECK_QUORUM,
        MessageType.STORAGE_APPEND,
        MessageType.STORAGE_APPEND_RESPONSE,
        MessageType.STORAGE_APPLY,
        MessageType.STORAGE_APPLY_RESPONSE,
        MessageType.FORGET_LEADER,
    }
)
"""Never accepted from the network."""


def is_local_thread(node_id: int) -> bool:
    """Return whether `node_id` stands for the disk or the state machine rather than for a node."""
    return node_id >= LOCAL_APPLY_THREAD


def entry_bytes(entry: Entry) -> int:
    """Return what an entry counts against the limits on messages and on what is being applied."""
    return len(entry.data) + ENTRY_OVERHEAD_BYTES


def is_empty(snapshot: Snapshot) -> bool:
    """Return whether `snapshot` stands for none."""
    return snapshot.meta.index == 0
