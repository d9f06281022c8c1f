"""What goes over the wire, as bytes, and back: messages, greetings, and the parts of a snapshot.

Only what may come from a network is encoded or accepted: no message of a node to itself, and none in the name of its
disk or its state machine, which the core would believe.
"""

from collections.abc import Sequence
from typing import TypeVar

import google_crc32c
import msgspec
from google.protobuf import message as protobuf
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from engram.log import raft_pb2 as wire
from engram.log.consensus.types import (
    LOCAL_ONLY,
    NO_NODE,
    ConfState,
    Entry,
    EntryKind,
    Message,
    MessageType,
    Snapshot,
    SnapshotMeta,
    is_local_thread,
)

MESSAGE_OVERHEAD_BYTES = 128
"""No message needs more beside its entries, context and snapshot: eleven numbers of at most ten bytes, and framing."""

ENTRY_OVERHEAD_BYTES = 40

_Flat = TypeVar("_Flat", bound=msgspec.Struct)
Encoded = TypeVar("Encoded", bound=protobuf.Message)

_TYPES = {int(kind): kind for kind in MessageType if kind not in LOCAL_ONLY}
_KINDS = {int(kind): kind for kind in EntryKind}


class MalformedError(Exception):
    """Bytes from the network are not what this version can have been sent. Nothing of them was taken."""


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Who opens a stream, and to whom."""

    cluster_id: str
    sender: int
    to: int
    boot_epoch: int
    """Higher at each start of the sender."""
    stream: int
    """Higher at each stream of one start."""
    address: str
    """Where the sender can be reached."""
    store_id: str
    """Of the sender's disk."""
    to_store_id: str
    """Of the disk that the sender believes the other node to have; empty: it knows of none."""
    http_address: str
    """Where clients reach the sender."""
    applied_index: int = 0
    """Up to where the sender has applied the log, by which it is a member with this disk; 0: by that it is none."""


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """Who took a stream."""

    cluster_id: str
    node_id: int
    boot_epoch: int
    store_id: str
    http_address: str


class Introduction(msgspec.Struct, frozen=True, kw_only=True):
    """Who a node is, as it says itself to whoever asks."""

    node_id: int
    store_id: str
    cluster_id: str
    """Empty: it is in no cluster yet."""
    address: str
    """host:port where other nodes reach it."""
    http_address: str
    """host:port where clients reach it."""


class Batch(msgspec.Struct, frozen=True):
    """One frame. The first of a stream has a `hello`, no other has."""

    hello: Hello | None
    messages: Sequence[Message]


class SnapshotPart(msgspec.Struct, frozen=True, kw_only=True):
    """Some rows of the log, still encoded."""

    rows: bytes
    """For `decode_rows`."""
    sha256: bytes
    """Of the `rows` of all parts of a stream up to and with this one."""
    is_last: bool


class SnapshotFrame(msgspec.Struct, frozen=True, kw_only=True):
    """One frame of a transfer. The first has a `hello` and an `offer`, every other a `part`."""

    hello: Hello | None = None
    offer: Message | None = None
    """The message that is stepped once the rows are there."""
    part: SnapshotPart | None = None


class SnapshotAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the receiver of a transfer says: first `welcome`, then `after`, at the end `is_installed`."""

    welcome: Welcome | None = None
    after: int | None = None
    """The index up to which it has the rows."""
    is_installed: bool = False


def message_bytes(message: Message) -> int:
    """Return a size that the encoded `message` does not exceed, and comes close to where size matters."""
    size = MESSAGE_OVERHEAD_BYTES + len(message.context)
    for entry in message.entries:
        size += ENTRY_OVERHEAD_BYTES + len(entry.data)
    if message.snapshot is not None:
        size += _snapshot_bytes(message.snapshot)
    return size


def encode_batch(messages: Sequence[Message], hello: Hello | None = None) -> bytes:
    """Return the frame that carries `messages`, in this order.

    Raises:
        ValueError: One of them is not for the network, or a number in it is not from 0 to 2^64 - 1.
    """
    batch = wire.Batch()
    if hello is not None:
        batch.hello.CopyFrom(wire.Hello(**msgspec.structs.asdict(hello)))
    for message in messages:
        _fill(batch.messages.add(), message)  # in place: protobuf copies what is made elsewhere, by way of its bytes
    return batch.SerializeToString()


def decode_batch(data: bytes) -> Batch:
    """Return what `encode_batch` was given.

    Raises:
        MalformedError: It cannot have been.
    """
    batch = _parsed(wire.Batch, data)
    hello = _fields(Hello, batch.hello) if batch.HasField("hello") else None
    return Batch(hello, [_message(message) for message in batch.messages])


def encode_welcome(welcome: Welcome) -> bytes:
    """Return the frame that answers a hello."""
    return wire.Welcome(**msgspec.structs.asdict(welcome)).SerializeToString()


def decode_welcome(data: bytes) -> Welcome:
    """Return what `encode_welcome` was given.

    Raises:
        MalformedError: It cannot have been.
    """
    return _fields(Welcome, _parsed(wire.Welcome, data))


def encode_introduction(introduction: Introduction) -> bytes:
    """Return the answer to whoever asks who is there."""
    return wire.Introduction(**msgspec.structs.asdict(introduction)).SerializeToString()


def decode_introduction(data: bytes) -> Introduction:
    """Return what `encode_introduction` was given.

    Raises:
        MalformedError: It cannot have been.
    """
    return _fields(Introduction, _parsed(wire.Introduction, data))


def encode_rows(entries: Sequence[Entry]) -> bytes:
    """Return `entries` as the rows of a part."""
    rows = wire.Rows()
    _fill_entries(rows.entries, entries)
    return rows.SerializeToString()


def decode_rows(data: bytes) -> Sequence[Entry]:
    """Return what `encode_rows` was given.

    Raises:
        MalformedError: It cannot have been.
    """
    return [_entry(entry) for entry in _parsed(wire.Rows, data).entries]


def encode_frame(frame: SnapshotFrame) -> bytes:
    """Return `frame`, its part with a checksum.

    Raises:
        ValueError: The offer is not for the network.
    """
    encoded = wire.SnapshotFrame()
    if frame.hello is not None:
        encoded.hello.CopyFrom(wire.Hello(**msgspec.structs.asdict(frame.hello)))
    if frame.offer is not None:
        _fill(encoded.offer, frame.offer)
    if frame.part is not None:
        part = encoded.part
        part.rows = frame.part.rows
        part.crc32c = google_crc32c.value(frame.part.rows)
        part.sha256 = frame.part.sha256
        part.is_last = frame.part.is_last
    return encoded.SerializeToString()


def decode_frame(data: bytes) -> SnapshotFrame:
    """Return what `encode_frame` was given.

    Raises:
        MalformedError: It cannot have been.
    """
    frame = _parsed(wire.SnapshotFrame, data)
    return SnapshotFrame(
        hello=_fields(Hello, frame.hello) if frame.HasField("hello") else None,
        offer=_message(frame.offer) if frame.HasField("offer") else None,
        part=_part(frame.part) if frame.HasField("part") else None,
    )


def encode_answer(answer: SnapshotAnswer) -> bytes:
    """Return what the receiver of a transfer says, as a frame."""
    welcome = None if answer.welcome is None else wire.Welcome(**msgspec.structs.asdict(answer.welcome))
    encoded = wire.SnapshotAnswer(welcome=welcome, after=answer.after, is_installed=answer.is_installed)
    return encoded.SerializeToString()


def decode_answer(data: bytes) -> SnapshotAnswer:
    """Return what `encode_answer` was given.

    Raises:
        MalformedError: It cannot have been.
    """
    answer = _parsed(wire.SnapshotAnswer, data)
    return SnapshotAnswer(
        welcome=_fields(Welcome, answer.welcome) if answer.HasField("welcome") else None,
        after=answer.after if answer.HasField("after") else None,
        is_installed=answer.is_installed,
    )


def _parsed(kind: type[Encoded], data: bytes) -> Encoded:
    into = kind()
    try:
        into.ParseFromString(data)
    except protobuf.DecodeError as error:
        raise MalformedError(f"undecodable {kind.__name__} of {len(data)} bytes: {error}") from error
    return into


def _fill(into: wire.Message, message: Message) -> None:
    if complaint := _complaint(message.type, message.sender, message.to) or (message.responses and "responses"):
        raise ValueError(f"{message.type.name} is not for the network: {complaint}")
    into.type = message.type
    into.to = message.to
    into.sender = message.sender
    into.term = message.term
    into.log_term = message.log_term
    into.index = message.index
    into.commit = message.commit
    into.vote = message.vote
    into.reject = message.reject
    into.reject_hint = message.reject_hint
    into.context = message.context
    into.session = message.session
    _fill_entries(into.entries, message.entries)
    if message.snapshot is not None:
        _fill_snapshot(into.snapshot, message.snapshot)


def _fill_entries(into: "RepeatedCompositeFieldContainer[wire.Entry]", entries: Sequence[Entry]) -> None:
    for entry in entries:
        added = into.add()
        added.term = entry.term
        added.index = entry.index
        added.kind = entry.kind
        added.data = entry.data


def _fill_snapshot(into: wire.Snapshot, snapshot: Snapshot) -> None:
    members = into.conf_state
    members.SetInParent()
    for name, value in msgspec.structs.asdict(snapshot.meta.conf_state).items():
        if isinstance(value, bool):
            setattr(members, name, value)
        else:
            getattr(members, name).extend(value)
    into.index = snapshot.meta.index
    into.term = snapshot.meta.term
    into.data = snapshot.data
    into.SetInParent()


def _message(message: wire.Message) -> Message:
    kind = _TYPES.get(message.type)
    if kind is None:
        raise MalformedError(f"message type {message.type} does not exist, or must not come from a network")
    if complaint := _complaint(kind, message.sender, message.to):
        raise MalformedError(f"{kind.name}: {complaint}")
    return Message(
        type=kind,
        to=message.to,
        sender=message.sender,
        term=message.term,
        log_term=message.log_term,
        index=message.index,
        entries=tuple([_entry(entry) for entry in message.entries]),
        commit=message.commit,
        vote=message.vote,
        snapshot=_snapshot(message.snapshot) if message.HasField("snapshot") else None,
        reject=message.reject,
        reject_hint=message.reject_hint,
        context=message.context,
        session=message.session,
    )


def _entry(entry: wire.Entry) -> Entry:
    kind = _KINDS.get(entry.kind)
    if kind is None:
        raise MalformedError(f"entry {entry.index}: kind {entry.kind} does not exist")
    return Entry(entry.term, entry.index, kind, entry.data)


def _snapshot(snapshot: wire.Snapshot) -> Snapshot:
    members = snapshot.conf_state
    conf_state = ConfState(
        voters=tuple(members.voters),
        learners=tuple(members.learners),
        voters_outgoing=tuple(members.voters_outgoing),
        learners_next=tuple(members.learners_next),
        auto_leave=members.auto_leave,
    )
    return Snapshot(SnapshotMeta(snapshot.index, snapshot.term, conf_state), snapshot.data)


def _snapshot_bytes(snapshot: Snapshot) -> int:
    members = snapshot.meta.conf_state
    listed = (members.voters, members.learners, members.voters_outgoing, members.learners_next)
    return MESSAGE_OVERHEAD_BYTES + len(snapshot.data) + 10 * sum(map(len, listed))


def _fields(of: type[_Flat], message: protobuf.Message) -> _Flat:
    """Return what has the same fields on the wire, none of them nested."""
    return of(**{name: getattr(message, name) for name in of.__struct_fields__})


def _part(part: wire.SnapshotPart) -> SnapshotPart:
    if google_crc32c.value(part.rows) != part.crc32c:
        raise MalformedError(f"a part of {len(part.rows)} bytes fails its checksum")
    return SnapshotPart(rows=part.rows, sha256=part.sha256, is_last=part.is_last)


def _complaint(kind: MessageType, sender: int, to: int) -> str:
    """Return why such a message is not for the network; empty if it is."""
    if kind in LOCAL_ONLY:
        return "it never leaves a node"
    for name, node_id in (("sender", sender), ("addressee", to)):
        if node_id == NO_NODE or is_local_thread(node_id):
            return f"{name} {node_id} is no node"
    return ""
