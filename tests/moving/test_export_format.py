"""An export loses nothing of an event, and says where it is damaged."""

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.errors import CorruptionError
from engram.events import Event, MessageAppended, SessionCreated, decode, encode
from engram.moving.export import export
from engram.moving.export_format import ExportEntry, ExportHead, ExportReader, ExportWriter
from tests.projections.histories import (
    Entry,
    MemoryLog,
    apply,
    deleted,
    embedded,
    ended,
    entries_of,
    open_store,
    pinned,
    said,
    scratch_folder,
    stamped,
    unpinned,
)
from tests.test_events import GOLDEN

HEAD = ExportHead(engram="0", created_at_ms=1, store_id="a-store", cluster_id="", after=0, session_id=None)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = st.one_of(
    TEXTS, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()
)
EVENTS = st.one_of(
    st.builds(
        MessageAppended,
        session_id=TEXTS,
        at_ms=st.integers(0, 2**50),
        message_id=TEXTS,
        role=st.sampled_from(["user", "tool"]),
        text=TEXTS,
        name=st.none() | TEXTS,
        occurred_at_ms=st.none() | st.integers(-(2**50), 2**50),
        tokens=st.integers(0, 2**40),
        metadata=st.dictionaries(TEXTS, SCALARS, max_size=3),
    ),
    st.builds(SessionCreated, session_id=TEXTS, at_ms=st.integers(0, 2**50), metadata=st.dictionaries(TEXTS, SCALARS)),
    st.sampled_from([event for event, _ in GOLDEN.values()]),
)


class QuietLog(MemoryLog):
    """A log of which nothing is erased."""

    rewrites = 0

    @property
    def applied_index(self) -> int:
        return len(self.committed)


def exported(entries: Sequence[Entry], head: ExportHead = HEAD) -> bytes:
    """Return the export of a node that has folded `entries`."""

    async def collect() -> bytes:
        with scratch_folder() as folder:
            store = await open_store(Path(folder))
            await apply(store, entries)
            content = b"".join([part async for part in export(QuietLog(entries), store, head)])
            await store.close()
            return content

    return asyncio.run(collect())


def written(entries: Sequence[Entry]) -> bytes:
    """Return the lines of `entries`, whatever they did."""
    writer = ExportWriter()
    lines = [writer.begin(HEAD), *(writer.add(entry.index, decode(entry.data)) for entry in entries)]
    return b"".join(lines) + writer.end(len(entries))


def read(content: bytes, size: int = 1 << 20) -> tuple[list[ExportEntry], ExportReader]:
    """Read `content`, so many bytes at a time, to its end."""
    reader = ExportReader()
    found = [entry for at in range(0, len(content), size) for entry in reader.feed(content[at : at + size])]
    reader.finish()
    return found, reader


@given(st.lists(EVENTS, min_size=1, max_size=5), st.integers(1, 200))
def test_what_is_read_are_the_same_bytes_of_the_log(events: list[Event], size: int) -> None:
    entries = entries_of([[event] for event in events])

    found, _ = read(written(entries), size)

    assert [(entry.index, encode(entry.events)) for entry in found] == [(entry.index, entry.data) for entry in entries]


def test_every_event_ever_released_can_be_exported() -> None:
    entries = entries_of([[event] for event, _ in GOLDEN.values()])

    found, _ = read(written(entries))

    assert [entry.events[0] for entry in found] == [event for event, _ in GOLDEN.values()]


def test_entries_without_events_are_left_out_and_the_end_says_how_far_it_goes() -> None:
    entries = [
        *entries_of([said("m1"), stamped([said("m2"), embedded("m2")], 5)]),
        Entry(3, b""),
        Entry(4, b"x", kind=2),
    ]

    found, reader = read(exported(entries))

    assert [entry.index for entry in found] == [1, 2]
    assert reader.end is not None
    assert (reader.end.index, reader.end.entries, reader.end.events) == (4, 2, 3)


def test_what_is_behind_an_index_and_of_one_session_can_be_asked_for() -> None:
    entries = entries_of(
        [said("m1"), said("m1", session_id="other"), said("m2"), pinned("f1", session_id="other"), deleted("m1")]
    )

    found, _ = read(exported(entries, msgspec.structs.replace(HEAD, after=1, session_id="s")))

    assert [entry.index for entry in found] == [3, 5]


def test_the_last_line_has_the_checksum_of_those_before_it() -> None:
    content = exported(entries_of([said("m1")]))
    *lines, last = content.splitlines(keepends=True)

    assert msgspec.json.decode(last)["sha256"] == hashlib.sha256(b"".join(lines)).hexdigest()


CONTENT = exported(entries_of([said("m1", "hello"), said("m2", "there")]))
LINES = CONTENT.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (CONTENT.replace(b"hello", b"hullo"), "line 4 of the export has another SHA-256"),
        (b"".join([LINES[0], LINES[2], LINES[3]]), "line 3 of the export has another SHA-256"),
        (b"".join(LINES[:3]), "line 4 of the export is not the end"),
        (CONTENT[:-1], "line 4 of the export is not the end"),
        (b"", "line 1 of the export is not the end"),
        (CONTENT + b"\n", "line 5 of the export follows the end"),
        (b"".join([LINES[0], LINES[2], LINES[1], LINES[3]]), "line 3 of the export has entry 1, behind entry 2"),
        (b"not json\n", "line 1 of the export cannot be read"),
        (CONTENT.replace(b"engram-export", b"somebody-else"), "line 1 of the export cannot be read"),
        (CONTENT.replace(b'"version":1', b'"version":2'), "is of version 2; this engram reads version 1"),
        (CONTENT.replace(b'"MessageAppended"', b'"MessageImagined"'), "line 2 of the export cannot be read"),
    ],
)
def test_what_is_wrong_with_an_export_is_named(content: bytes, said: str) -> None:
    with pytest.raises(CorruptionError, match=said.replace(".", r"\.")):
        read(content)


def test_an_entry_of_two_sessions_is_none() -> None:
    writer = ExportWriter()
    content = writer.begin(HEAD) + writer.add(1, [said("m1"), said("m1", session_id="other")])

    with pytest.raises(CorruptionError, match="line 2 of the export has not one session"):
        list(ExportReader().feed(content))


def test_an_entry_of_two_times_is_none() -> None:
    writer = ExportWriter()
    content = writer.begin(HEAD) + writer.add(1, [said("m1", at_ms=1), said("m2", at_ms=2)])

    with pytest.raises(CorruptionError, match="line 2 of the export has not one time"):
        list(ExportReader().feed(content))


@pytest.mark.parametrize(
    "idle",
    [
        said("m1", "something else"),
        said("m1"),
        pinned("f2", "a fact"),
        pinned("f1", "another fact"),
        SessionCreated(session_id="s", at_ms=9, agent_id="somebody"),
        embedded("m9"),
    ],
)
def test_what_the_ledger_refused_or_knew_already_is_left_out(idle: Event) -> None:
    entries = entries_of([said("m1"), pinned("f1"), idle, said("m2")])

    found, reader = read(exported(entries))

    assert [entry.index for entry in found] == [1, 2, 4]
    assert reader.end is not None
    assert (reader.end.index, reader.end.entries) == (4, 3)


def test_a_deletion_is_never_left_out_nor_what_cannot_be_told_of_a_life_that_is_over() -> None:
    first = [said("m1"), said("m1"), ended("s"), ended("unknown"), deleted("m1"), unpinned("f1")]
    entries = entries_of([*first, said("m1"), said("m1")])

    found, _ = read(exported(entries))

    assert [entry.index for entry in found] == [1, 2, 3, 4, 5, 6, 7]


async def test_what_is_not_folded_yet_is_not_exported_yet() -> None:
    entries = entries_of([said("m1"), said("m1", "something else"), said("m2")])
    with scratch_folder() as folder:
        store = await open_store(Path(folder))
        await store.apply(entries[:1])

        content = b"".join([part async for part in export(QuietLog(entries), store, HEAD)])

        await store.close()
    found, reader = read(content)
    assert [entry.index for entry in found] == [1]
    assert reader.end is not None
    assert reader.end.index == 1


def test_a_line_without_an_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.moving.export_format.LINE_BYTES_MAX", 1000)

    with pytest.raises(CorruptionError, match="is longer than 1000 bytes"):
        list(ExportReader().feed(b"{" * 1001))
