"""What goes over the wire comes out as it went in, and nothing else comes out."""

import contextlib
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.log import raft_pb2 as wire
from engram.log.codec import (
    Batch,
    Hello,
    Introduction,
    MalformedError,
    SnapshotAnswer,
    SnapshotFrame,
    SnapshotPart,
    Welcome,
    decode_answer,
    decode_batch,
    decode_frame,
    decode_introduction,
    decode_rows,
    decode_welcome,
    encode_answer,
    encode_batch,
    encode_frame,
    encode_introduction,
    encode_rows,
    encode_welcome,
    message_bytes,
)
from engram.log.consensus.types import (
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    LOCAL_ONLY,
    ConfState,
    Entry,
    EntryKind,
    Message,
    MessageType,
    Snapshot,
    SnapshotMeta,
)
from tests.log.generate import GENERATED, PROJECT, generate

NUMBERS = st.integers(0, 2**64 - 1)
NODE_IDS = st.integers(1, LOCAL_APPLY_THREAD - 1)
ENTRIES = st.builds(Entry, NUMBERS, NUMBERS, st.sampled_from(EntryKind), st.binary(max_size=50))
MEMBERS = st.lists(NUMBERS, max_size=3).map(tuple)
CONF_STATES = st.builds(
    ConfState,
    voters=MEMBERS,
    learners=MEMBERS,
    voters_outgoing=MEMBERS,
    learners_next=MEMBERS,
    auto_leave=st.booleans(),
)
SNAPSHOTS = st.builds(Snapshot, st.builds(SnapshotMeta, NUMBERS, NUMBERS, CONF_STATES), st.binary(max_size=50))
MESSAGES = st.builds(
    Message,
    type=st.sampled_from(sorted(set(MessageType) - LOCAL_ONLY)),
    to=NODE_IDS,
    sender=NODE_IDS,
    term=NUMBERS,
    log_term=NUMBERS,
    index=NUMBERS,
    entries=st.lists(ENTRIES, max_size=5).map(tuple),
    commit=NUMBERS,
    vote=NUMBERS,
    snapshot=st.none() | SNAPSHOTS,
    reject=st.booleans(),
    reject_hint=NUMBERS,
    context=st.binary(max_size=50),
    session=NUMBERS,
)
HELLOS = st.builds(
    Hello,
    cluster_id=st.text(),
    sender=NUMBERS,
    to=NUMBERS,
    boot_epoch=NUMBERS,
    stream=NUMBERS,
    address=st.text(),
    store_id=st.text(),
    to_store_id=st.text(),
    http_address=st.text(),
)
WELCOMES = st.builds(
    Welcome, cluster_id=st.text(), node_id=NUMBERS, boot_epoch=NUMBERS, store_id=st.text(), http_address=st.text()
)
INTRODUCTIONS = st.builds(
    Introduction,
    node_id=NUMBERS,
    store_id=st.text(),
    cluster_id=st.text(),
    address=st.text(),
    http_address=st.text(),
)
PARTS = st.builds(SnapshotPart, rows=st.binary(max_size=50), sha256=st.binary(max_size=32), is_last=st.booleans())
FRAMES = st.builds(SnapshotFrame, hello=st.none() | HELLOS, offer=st.none() | MESSAGES, part=st.none() | PARTS)
ANSWERS = st.builds(SnapshotAnswer, welcome=st.none() | WELCOMES, after=st.none() | NUMBERS, is_installed=st.booleans())

VOTE = Message(type=MessageType.VOTE, to=2, sender=1, term=3)


@given(st.lists(MESSAGES, max_size=5), st.none() | HELLOS)
def test_a_batch_comes_back_as_it_was_sent(messages: list[Message], hello: Hello | None) -> None:
    assert decode_batch(encode_batch(messages, hello)) == Batch(hello, messages)


@given(WELCOMES)
def test_a_welcome_comes_back_as_it_was_sent(welcome: Welcome) -> None:
    assert decode_welcome(encode_welcome(welcome)) == welcome


@given(INTRODUCTIONS)
def test_an_introduction_comes_back_as_it_was_sent(introduction: Introduction) -> None:
    assert decode_introduction(encode_introduction(introduction)) == introduction


@given(FRAMES)
def test_a_frame_of_a_snapshot_comes_back_as_it_was_sent(frame: SnapshotFrame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


@given(ANSWERS)
def test_an_answer_to_a_snapshot_comes_back_as_it_was_sent(answer: SnapshotAnswer) -> None:
    assert decode_answer(encode_answer(answer)) == answer


@given(st.lists(ENTRIES, max_size=5))
def test_rows_come_back_as_they_were_sent(entries: list[Entry]) -> None:
    assert decode_rows(encode_rows(entries)) == entries


def test_a_part_with_a_flipped_bit_is_refused() -> None:
    rows = encode_rows([Entry(1, 1, data=b"a row of the log")])
    frame = bytearray(encode_frame(SnapshotFrame(part=SnapshotPart(rows=rows, sha256=b"", is_last=False))))
    frame[frame.index(b"a row")] ^= 1

    with pytest.raises(MalformedError, match=f"a part of {len(rows)} bytes fails its checksum"):
        decode_frame(bytes(frame))


def test_every_field_of_a_message_but_the_local_one_has_a_place_on_the_wire() -> None:
    """So that a field which the core gains is not lost between nodes."""
    assert set(Message.__struct_fields__) - {"responses"} == {field.name for field in wire.Message.DESCRIPTOR.fields}
    assert set(Entry.__struct_fields__) == {field.name for field in wire.Entry.DESCRIPTOR.fields}
    assert set(ConfState.__struct_fields__) == {field.name for field in wire.ConfState.DESCRIPTOR.fields}


@given(MESSAGES)
def test_the_size_of_a_message_is_never_underestimated(message: Message) -> None:
    assert len(encode_batch([message])) <= message_bytes(message)


def test_the_size_of_a_large_message_is_nearly_exact() -> None:
    message = msgspec.structs.replace(VOTE, entries=tuple(Entry(1, index, data=bytes(4_000)) for index in range(250)))

    assert message_bytes(message) < 1.01 * len(encode_batch([message]))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    for decode in (decode_batch, decode_welcome, decode_introduction, decode_frame, decode_answer, decode_rows):
        with contextlib.suppress(MalformedError):
            decode(data)


@given(st.lists(MESSAGES, min_size=1, max_size=3), st.data())
def test_damaged_bytes_are_read_or_refused(messages: list[Message], data: st.DataObject) -> None:
    frame = bytearray(encode_batch(messages))
    place = data.draw(st.integers(0, len(frame) - 1))
    frame[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedError):
        decode_batch(bytes(frame))


@pytest.mark.parametrize("kind", [*LOCAL_ONLY, 24, 99])
def test_a_type_that_must_not_come_from_a_network_is_refused(kind: int) -> None:
    batch = wire.Batch(messages=[wire.Message(type=kind, to=2, sender=1)])

    with pytest.raises(MalformedError, match=f"message type {int(kind)} does not exist"):
        decode_batch(batch.SerializeToString())


@pytest.mark.parametrize("node_id", [0, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD])
def test_nobody_speaks_in_the_name_of_a_disk(node_id: int) -> None:
    batch = wire.Batch(messages=[wire.Message(type=MessageType.VOTE, to=2, sender=node_id)])

    with pytest.raises(MalformedError, match=f"sender {node_id} is no node"):
        decode_batch(batch.SerializeToString())


def test_an_entry_of_an_unknown_kind_is_never_skipped() -> None:
    message = wire.Message(type=MessageType.APPEND, to=2, sender=1, entries=[wire.Entry(index=7, kind=3)])

    with pytest.raises(MalformedError, match="entry 7: kind 3 does not exist"):
        decode_batch(wire.Batch(messages=[message]).SerializeToString())


@pytest.mark.parametrize(
    "message",
    [
        *(Message(type=kind, to=2, sender=1) for kind in sorted(LOCAL_ONLY)),
        msgspec.structs.replace(VOTE, to=LOCAL_APPEND_THREAD),
        msgspec.structs.replace(VOTE, sender=0),
        msgspec.structs.replace(VOTE, responses=(VOTE,)),
        msgspec.structs.replace(VOTE, term=-1),
        msgspec.structs.replace(VOTE, term=2**64),
    ],
)
def test_what_is_not_for_the_network_is_not_encoded(message: Message) -> None:
    with pytest.raises(ValueError, match=r"not for the network|out of range"):
        encode_batch([message])


def test_the_generated_code_is_that_of_the_proto_file(tmp_path: Path) -> None:
    generate(tmp_path)

    for name in GENERATED:
        assert unversioned((tmp_path / name).read_text()) == unversioned((PROJECT / name).read_text())


def unversioned(code: str) -> str:
    """Return generated code without the version of what generated it: `make pins` may bring another."""
    return re.sub(r"(?m)^# Protobuf Python Version: .*$|^    \d+,$", "", code)
