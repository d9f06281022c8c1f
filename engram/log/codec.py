"""What goes over the wire, as bytes, and back: batches of messages, and the two greetings of a stream.

Only what may come from a network is encoded or accepted: no message of a node to itself, and none in the name of its
disk or its state machine, which the core would believe.
"""

from collections.abc import Sequence

import msgspec
from google.protobuf.message import DecodeError

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
"""No message needs more beside its entries, context and snapshot: ten numbers of at most ten bytes, and framing."""

ENTRY_OVERHEAD_BYTES = 40

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


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """Who took a stream."""

    cluster_id: str
    node_id: int
    boot_epoch: int


class Batch(msgspec.Struct, frozen=True):
    """One frame. The first of a stream has a `hello`, no other has."""

    hello: Hello | None
    messages: Sequence[Message]


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
        _add(batch, message)
    return batch.SerializeToString()


def decode_batch(data: bytes) -> Batch:
    """Return what `encode_batch` was given.

    Raises:
        MalformedError: It cannot have been.
    """
    batch = wire.Batch()
    _parse(batch, data)
    hello = _hello(batch.hello) if batch.HasField("hello") else None
    return Batch(hello, [_message(message) for message in batch.messages])


def encode_welcome(welcome: Welcome) -> bytes:
    """Return the frame that answers a hello."""
    return wire.Welcome(**msgspec.structs.asdict(welcome)).SerializeToString()


def decode_welcome(data: bytes) -> Welcome:
    """Return what `encode_welcome` was given.

    Raises:
        MalformedError: It cannot have been.
    """
    welcome = wire.Welcome()
    _parse(welcome, data)
    return Welcome(cluster_id=welcome.cluster_id, node_id=welcome.node_id, boot_epoch=welcome.boot_epoch)


def _parse(into: wire.Batch | wire.Welcome, data: bytes) -> None:
    try:
        into.ParseFromString(data)
    except DecodeError as error:
        raise MalformedError(f"undecodable {type(into).__name__} of {len(data)} bytes: {error}") from error


def _add(batch: wire.Batch, message: Message) -> None:
    if complaint := _complaint(message.type, message.sender, message.to) or (message.responses and "responses"):
        raise ValueError(f"{message.type.name} is not for the network: {complaint}")
    # Filled in place: protobuf copies a message that is made elsewhere by encoding and decoding it.
    added = batch.messages.add(
        type=message.type,
        to=message.to,
        sender=message.sender,
        term=message.term,
        log_term=message.log_term,
        index=message.index,
        commit=message.commit,
        vote=message.vote,
        reject=message.reject,
        reject_hint=message.reject_hint,
        context=message.context,
    )
    entries = added.entries
    for entry in message.entries:
        entries.add(term=entry.term, index=entry.index, kind=entry.kind, data=entry.data)
    if message.snapshot is not None:
        _fill_snapshot(added.snapshot, message.snapshot)


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


def _hello(hello: wire.Hello) -> Hello:
    return Hello(
        cluster_id=hello.cluster_id,
        sender=hello.sender,
        to=hello.to,
        boot_epoch=hello.boot_epoch,
        stream=hello.stream,
        address=hello.address,
    )


def _complaint(kind: MessageType, sender: int, to: int) -> str:
    """Return why such a message is not for the network; empty if it is."""
    if kind in LOCAL_ONLY:
        return "it never leaves a node"
    for name, node_id in (("sender", sender), ("addressee", to)):
        if node_id == NO_NODE or is_local_thread(node_id):
            return f"{name} {node_id} is no node"
    return ""
