"""Whatever happened on a node: exported, and imported into another that runs, it is what it was there."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from engram.api.arrivals import Word
from engram.api.intake import Line, Tally
from engram.events import Chunk, Event, FactPinned, MessageAppended, MessageEmbedded, Role
from engram.moving.export_format import ExportReader
from tests.api.node import Letters, Node, Words, running_node
from tests.projections.contents import contents_of
from tests.projections.histories import deleted, embedded, said, scratch_folder, stamped
from tests.property.test_past import MESSAGES, SESSIONS, TEXTS, chunks, others


@st.composite
def spoken(draw: st.DrawFn) -> list[Event]:
    """Return one or two messages, with their vectors."""
    session_id = draw(SESSIONS)
    events: list[Event] = []
    for message_id in draw(st.lists(MESSAGES, min_size=1, max_size=2, unique=True)):
        role: Role = draw(st.sampled_from(get_args(Role)))
        events.append(said(message_id, draw(TEXTS), session_id=session_id, role=role))
        events.append(embedded(message_id, session_id=session_id, model=Letters.model, chunks=draw(chunks())))
    return events


def as_made(event: Event) -> Event:
    """Return an event as the node makes it: by its own count of tokens, with vectors as its model makes them."""
    if isinstance(event, MessageEmbedded):
        return msgspec.structs.replace(event, dimension=Letters.dimension)
    if isinstance(event, MessageAppended | FactPinned):
        return msgspec.structs.replace(event, tokens=Words().count(event.text))
    return event


def in_time(entries: Sequence[tuple[Sequence[Event], int]]) -> list[list[Event]]:
    """Return what commands make: no entry is older than the one before it."""
    history: list[list[Event]] = []
    at_ms = 1
    for events, pause_ms in entries:
        at_ms += pause_ms
        history.append(stamped([*map(as_made, events)], at_ms))
    return history


def histories(pause_ms_min: int) -> st.SearchStrategy[list[list[Event]]]:
    entries = st.tuples(st.one_of(spoken(), others().filter(is_complete)), st.integers(pause_ms_min, 2))
    return st.lists(entries, min_size=1, max_size=16).map(in_time)


def is_complete(events: Sequence[Event]) -> bool:
    """Return whether nothing of it waits for vectors: here they are made at once, there they are left open."""
    return not any(isinstance(event, MessageAppended) for event in events)


@asynccontextmanager
async def two_nodes() -> AsyncIterator[tuple[Node, Node, Path]]:
    with scratch_folder() as folder:
        for name in ("source", "target"):
            (Path(folder) / name).mkdir()
        async with running_node(Path(folder) / "source") as source, running_node(Path(folder) / "target") as target:
            yield source, target, Path(folder)


async def exported(node: Node) -> bytes:
    copier = node.services().copier
    assert copier is not None
    return b"".join([part async for part in copier.export(after=0, session_id=None)])


async def take(node: Node, content: bytes) -> Tally:
    intake, tally = node.services().intake, Tally()
    assert intake is not None
    lines = [Line(number, entry.events) for number, entry in enumerate(ExportReader().feed(content), start=2)]
    await intake.take(lines, tally, tenant="default", deletions=True, skips_conflicts=False)
    if tally.deleted_index:
        await node.wait_erased(tally.deleted_index)
    return tally


async def record(node: Node, history: Sequence[Sequence[Event]]) -> None:
    recorder = node.services().recorder
    for events in history:
        await recorder.record(events)


async def contents(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    return await asyncio.to_thread(contents_of, folder / "projections.db")


VECTOR = Chunk(start=0, end=1, vector=Letters().embed(["hello"])[0].astype("<f2").tobytes())
BEGUN_BY_WHAT_WAS_FORGOTTEN = in_time(
    [
        (
            [
                event
                for message_id in ("m1", "m2")
                for event in (said(message_id), embedded(message_id, model=Letters.model, chunks=[VECTOR]))
            ],
            0,
        ),
        ([deleted("m1")], 0),
    ]
)


@example(BEGUN_BY_WHAT_WAS_FORGOTTEN)
@given(histories(pause_ms_min=0))
def test_every_read_model_of_a_node_that_took_an_export_in_is_that_of_the_source(history: list[list[Event]]) -> None:
    async def check() -> None:
        async with two_nodes() as (source, target, folder):
            await record(source, history)
            tally = await take(target, await exported(source))
            assert tally.refused == 0
            assert await contents(folder / "target") == await contents(folder / "source")

    asyncio.run(check())


@given(histories(pause_ms_min=1))
def test_the_same_export_twice_records_nothing_the_second_time(history: list[list[Event]]) -> None:
    async def check() -> None:
        async with two_nodes() as (source, target, _):
            await record(source, history)
            content = await exported(source)
            await take(target, content)
            before = len(target.log.held)
            again = await take(target, content)
            assert len(target.log.held) == before
            assert again.words[Word.NEW] == 0

    asyncio.run(check())
