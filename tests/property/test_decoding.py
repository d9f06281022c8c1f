"""Bytes from a disk: what was written comes back, and anything else is named as damage, whatever it is."""

import contextlib
from collections.abc import Callable
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engram.errors import CorruptionError
from engram.events import (
    Chunk,
    Event,
    FactPinned,
    FactUnpinned,
    MessageAppended,
    MessageDeleted,
    MessageEmbedded,
    Role,
    SessionCreated,
    SessionDeleted,
    Visibility,
    VisibilityChanged,
    Work,
    WorkAbandoned,
    decode,
    encode,
)
from engram.log.consensus.types import (
    Change,
    ChangeKind,
    ConfChange,
    Entry,
    EntryKind,
    Transition,
    decode_conf_change,
    encode_conf_change,
)
from engram.log.members import Member, decode_book, encode_book
from tests.test_events import FOLDER, GOLDEN

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
COUNTS = st.integers(0, 2**32)
METADATA = st.dictionaries(
    TEXTS, TEXTS | NUMBERS | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none(), max_size=3
)
CHUNKS = st.builds(Chunk, start=COUNTS, end=COUNTS, vector=st.binary(max_size=8))
DEEP = b"\x91" * 100_000
"""Lists in lists: more of them than Python would go into."""


@st.composite
def entries(draw: st.DrawFn) -> list[Event]:
    """One or more events of one session."""
    session = {"session_id": draw(TEXTS), "tenant": draw(TEXTS)}
    kinds: list[Callable[..., Event]] = [
        lambda **a: SessionCreated(
            **a, agent_id=draw(st.none() | TEXTS), user_id=draw(st.none() | TEXTS), metadata=draw(METADATA)
        ),
        lambda **a: MessageAppended(
            **a,
            message_id=draw(TEXTS),
            role=draw(st.sampled_from(get_args(Role))),
            text=draw(TEXTS),
            name=draw(st.none() | TEXTS),
            occurred_at_ms=draw(st.none() | NUMBERS),
            tokens=draw(COUNTS),
            metadata=draw(METADATA),
        ),
        lambda **a: MessageEmbedded(
            **a,
            message_id=draw(TEXTS),
            source_index=draw(COUNTS),
            model=draw(TEXTS),
            dimension=draw(COUNTS),
            chunks=draw(st.lists(CHUNKS, max_size=3)),
        ),
        lambda **a: MessageDeleted(**a, message_id=draw(TEXTS)),
        lambda **a: FactPinned(**a, fact_id=draw(TEXTS), text=draw(TEXTS), tokens=draw(COUNTS)),
        lambda **a: FactUnpinned(**a, fact_id=draw(TEXTS)),
        SessionDeleted,
        lambda **a: VisibilityChanged(**a, visibility=draw(st.sampled_from(get_args(Visibility)))),
        lambda **a: WorkAbandoned(
            **a,
            work=draw(st.sampled_from(get_args(Work))),
            message_id=draw(TEXTS),
            error=draw(TEXTS),
            attempts=draw(COUNTS),
        ),
    ]
    assert len(kinds) == len(get_args(Event)), "every event is made here"
    return [
        kind(at_ms=draw(NUMBERS), **session) for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=4))
    ]


MEMBERS = st.builds(Member, address=TEXTS, http_address=TEXTS, store_id=TEXTS)
BOOKS = st.dictionaries(st.integers(1, 2**63), MEMBERS, max_size=4)
CHANGES = st.builds(
    ConfChange,
    changes=st.lists(st.builds(Change, st.sampled_from(ChangeKind), st.integers(0, 2**63)), max_size=4).map(tuple),
    transition=st.sampled_from(Transition),
    context=BOOKS.map(encode_book),
)


def change_of(data: bytes) -> ConfChange:
    return decode_conf_change(Entry(1, 1, EntryKind.CONF_CHANGE_V2, data))


DECODERS: list[Callable[[bytes], object]] = [decode, decode_book, change_of]


@given(entries())
def test_every_event_comes_back_as_it_was_written(events: list[Event]) -> None:
    assert decode(encode(events)) == events


@given(BOOKS)
def test_every_address_book_comes_back_as_it_was_written(book: dict[int, Member]) -> None:
    assert decode_book(encode_book(book)) == book


@given(CHANGES)
def test_every_membership_change_comes_back_as_it_was_written(change: ConfChange) -> None:
    assert change_of(encode_conf_change(change)) == change


@pytest.mark.parametrize("read", DECODERS)
@given(data=st.binary(max_size=200))
@example(data=DEEP)
@example(data=b"\x81\x01\x81\xa1x" + DEEP)
@example(data=b"\x94\x90\x00\xc4\x00" + DEEP)
def test_arbitrary_bytes_are_read_or_named_as_damage(read: Callable[[bytes], object], data: bytes) -> None:
    with contextlib.suppress(CorruptionError):
        read(data)


@given(
    st.one_of(
        entries().map(encode),
        st.sampled_from([(FOLDER / f"{name}.msgpack").read_bytes() for name in GOLDEN]),
        BOOKS.map(encode_book),
        CHANGES.map(encode_conf_change),
    ),
    st.data(),
)
def test_damaged_bytes_are_read_or_named_as_damage(written: bytes, data: st.DataObject) -> None:
    """Also those of another kind: a change is no event."""
    damaged = bytearray(written)
    for _ in range(data.draw(st.integers(0, 3), "bytes")):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1), "place")] = data.draw(st.integers(0, 255), "value")
    cut = data.draw(st.integers(0, len(damaged)), "cut")
    for read in DECODERS:
        for payload in (bytes(damaged), bytes(damaged[:cut])):
            with contextlib.suppress(CorruptionError):
                read(payload)
