"""Events: what was written once is read for ever, and what was never written stops the node."""

import hashlib
from pathlib import Path
from typing import TypedDict, get_args

import msgspec
import pytest
from hypothesis import given
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
    SessionCreated,
    SessionDeleted,
    VisibilityChanged,
    WorkAbandoned,
    decode,
    encode,
)

FOLDER = Path(__file__).parent / "golden" / "events"


class OfSession(TypedDict):
    """The fields that every event has."""

    tenant: str
    session_id: str
    at_ms: int


OF_SESSION = OfSession(tenant="acme", session_id="sesión-1", at_ms=1_764_000_000_123)

GOLDEN: dict[str, tuple[Event, str]] = {
    "session_created": (
        SessionCreated(
            **OF_SESSION,
            agent_id="agent-7",
            user_id="user-9",
            metadata={"plan": "pro", "seats": 3, "beta": True, "x": None},
        ),
        "44889e875be8acf1fc663e9cdd29fb510924d850f82faa4856370f7c39868bb4",
    ),
    "session_created_least": (
        SessionCreated(session_id="s", at_ms=1),
        "9614cfd517f589a1d34e04997d003dc2445c9329526d7981b312cb6882d49266",
    ),
    "message_appended": (
        MessageAppended(
            **OF_SESSION,
            message_id="m-1",
            role="assistant",
            text="The launch is on 3 June. 🚀",
            name="planner",
            occurred_at_ms=-86_400_000,
            tokens=11,
            metadata={"channel": "mail", "score": 0.5},
        ),
        "39471cfcc007c5759eff89ccda445ecbc5034540fb2fbae9f2ee9cd387fa5068",
    ),
    "message_appended_least": (
        MessageAppended(session_id="s", at_ms=1, message_id="m", role="user", text="hi", tokens=1),
        "3597b4aa84eb1334f3f2e1b7fd269aa913839496a38429e9825eed0e35877f9c",
    ),
    "message_embedded": (
        MessageEmbedded(
            **OF_SESSION,
            message_id="m-1",
            source_index=42,
            model="wordllama-l2-supercat-256",
            dimension=2,
            chunks=[
                Chunk(start=0, end=12, vector=b"\x00\x3c\x00\x00"),
                Chunk(start=12, end=26, vector=b"\x00\x00\x00\xbc"),
            ],
        ),
        "d37fff5237deca61be28775ef7c274fa8bbb1bfe18cee0c4ff6d992cb70f2261",
    ),
    "message_deleted": (
        MessageDeleted(**OF_SESSION, message_id="m-1"),
        "c6f4214d59459b4084373213f7cd59fd3de2a316240da8e26e222e9451141dc0",
    ),
    "fact_pinned": (
        FactPinned(**OF_SESSION, fact_id="f-1", text="Ana is allergic to nuts.", tokens=7),
        "ef31a58399f18f4409d29cb6f9dc4e591fe5fe8c4603664254abe4eff686c229",
    ),
    "fact_unpinned": (
        FactUnpinned(**OF_SESSION, fact_id="f-1"),
        "88781c672e1b0221dddf637d7a124f1176f2a0925eba3a42b911b037ed56cbc6",
    ),
    "session_deleted": (
        SessionDeleted(**OF_SESSION),
        "fb4f72a54e3db8d2fea814e1a1cb148f58d2a2b5a18d9fcb943149874c36be5e",
    ),
    "visibility_changed": (
        VisibilityChanged(**OF_SESSION, visibility="shared"),
        "9a99e27ad62ff01cb2a24f6cdd00f683deddd9e4082f7478455e69ec49f99ddd",
    ),
    "work_abandoned": (
        WorkAbandoned(**OF_SESSION, work="embedding", message_id="m-1", error="the embedder refused it", attempts=5),
        "79a5e97eef4fa6a452029ea04f9616e8d9937e3d99c25f49d74498d109834540",
    ),
}
"""File name -> the event in it, and the SHA-256 of the file. A line is added with a new event, never changed."""


def test_every_event_has_been_written_down_once() -> None:
    written = {type(event) for event, _ in GOLDEN.values()}

    assert written == set(get_args(Event))
    assert {path.stem for path in FOLDER.glob("*.msgpack")} == set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_payload_of_long_ago_decodes_to_what_it_meant(name: str) -> None:
    event, _ = GOLDEN[name]

    assert decode((FOLDER / f"{name}.msgpack").read_bytes()) == [event]


@pytest.mark.parametrize("name", GOLDEN)
def test_a_payload_of_long_ago_is_never_edited(name: str) -> None:
    _, digest = GOLDEN[name]

    assert hashlib.sha256((FOLDER / f"{name}.msgpack").read_bytes()).hexdigest() == digest


def test_fields_of_a_newer_version_are_skipped() -> None:
    payload = msgspec.msgpack.encode(
        [{"type": "MessageDeleted", "session_id": "s", "at_ms": 1, "message_id": "m", "why": 1}]
    )

    assert decode(payload) == [MessageDeleted(session_id="s", at_ms=1, message_id="m")]


def test_defaults_take_no_room() -> None:
    assert b"tenant" not in encode([SessionDeleted(session_id="s", at_ms=1)])


@given(st.text(), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=64))
def test_an_entry_comes_back_as_it_was_written(text: str, at_ms: int, vector: bytes) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    events: list[Event] = [
        MessageAppended(session_id="s", at_ms=at_ms, message_id="m", role="tool", text=text, tokens=0),
        MessageEmbedded(
            session_id="s",
            at_ms=at_ms,
            message_id="m",
            source_index=0,
            model="model",
            dimension=1,
            chunks=[Chunk(start=0, end=1, vector=vector)],
        ),
    ]

    assert decode(encode(events)) == events


GOOD = encode([SessionDeleted(session_id="s", at_ms=1)])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        GOOD[:-1],
        GOOD + b"\x00",
        msgspec.msgpack.encode({"type": "SessionDeleted", "session_id": "s", "at_ms": 1}),
        msgspec.msgpack.encode([{"type": "SessionExploded", "session_id": "s", "at_ms": 1}]),
        msgspec.msgpack.encode([{"type": "SessionDeleted", "session_id": "s"}]),
        msgspec.msgpack.encode([{"type": "SessionDeleted", "session_id": 7, "at_ms": 1}]),
        b"\x91" * 100_000,
    ],
    ids=["nothing", "cut", "more behind", "no list", "unknown event", "field missing", "wrong type", "too deep"],
)
def test_a_payload_that_nobody_wrote_is_corruption(payload: bytes) -> None:
    with pytest.raises(CorruptionError, match=rf"undecodable payload of {len(payload)} bytes"):
        decode(payload)


def test_an_entry_is_of_one_session() -> None:
    with pytest.raises(AssertionError):
        encode([SessionDeleted(session_id="s", at_ms=1), SessionDeleted(session_id="t", at_ms=1)])


def test_an_entry_holds_an_event() -> None:
    with pytest.raises(AssertionError):
        encode([])
