"""Comparing two primary stores read model by read model, and naming the first key that differs and the entry behind it.

The stores are gone through piece by piece, each piece of both in the same state, so that a store which goes on changing
can be compared too: the other one is folded up to where it was read. Texts are never told, only that they differ.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, Literal, NamedTuple, Protocol, TypeVar

from engram.database import Connection
from engram.events import TENANT_DEFAULT
from engram.projections.read_models import READ_MODELS, ReadModel, Row
from engram.projections.sqlite_slices import Key, Names, Slice, names, read_range, read_slice

SLICE_ROWS: Final = 2_000
"""Rows of a piece: some 10 ms of reading, in which the file cannot be cleaned of what was deleted, and a few MB."""

TOLD: Final = frozenset({int, type(None)})
"""Types of values that a difference quotes: everything else may be somebody's text."""

BORN: Final = frozenset({"tenant", "session_id", "agent_id", "user_id", "metadata", "agent_hash", "user_hash"})
"""Columns of a session that only the entry which made it has a say in; the creation time besides."""

EMBEDDING: Final = frozenset({"embedding", "vectors_index", "model"})
"""Columns of a message that a later entry may change."""

Answer = TypeVar("Answer")


class Difference(NamedTuple):
    """Where a projection is not what the log says."""

    projection: Literal["primary", "lancedb", "redis"]
    model: str
    session_id: str | None
    key: str
    """What within the session; empty: the session itself."""
    log_index: int
    """The entry that made it what it should be; 0: none alone."""
    what: str

    def __str__(self) -> str:
        place = [] if self.session_id is None else [f"session {self.session_id}"]
        place += [self.key] if self.key else []
        place += [f"entry {self.log_index}"] if self.log_index else []
        return f"{self.model}: {', '.join([*place]) or 'the whole'}: {self.what}"


class Store(Protocol):
    """What a comparison reads of a primary store."""

    async def ask(self, question: Callable[[Connection], Answer]) -> Answer:
        """Return the answer to a question."""


CatchUp = Callable[[int], Awaitable[None]]
"""Folds the store that is compared with up to a log index, and not beyond it."""


async def compare(
    stored: Store, wanted: Store, catch_up: CatchUp, *, rows: int = SLICE_ROWS, tries: int = 1
) -> AsyncIterator[int | Difference]:
    """Yield how many rows were found equal since, and the first difference of each read model.

    A piece that differs is looked at `tries` times: where entries are erased while they are folded again, the fold is
    behind what is stored until it has seen the deletion too.

    Raises:
        CorruptionError: The file of `stored` cannot be read.
    """
    for model in READ_MODELS:
        async for step in _compare_model(model, stored, wanted, catch_up, rows, tries):
            yield step


async def _compare_model(
    model: ReadModel, stored: Store, wanted: Store, catch_up: CatchUp, limit: int, tries: int
) -> AsyncIterator[int | Difference]:
    after: Key | None = None
    while True:
        piece, pair = await _look(model, stored, wanted, catch_up, after, limit)
        for _ in range(tries - 1):
            if pair is None:
                break
            piece, pair = await _look(model, stored, wanted, catch_up, after, limit)
        if pair is not None:
            yield await _named(model, pair, stored, wanted)
            return
        yield len(piece.rows)
        if piece.end is None:
            return
        after = piece.end


async def _look(
    model: ReadModel, stored: Store, wanted: Store, catch_up: CatchUp, after: Key | None, limit: int
) -> "tuple[Slice, Pair | None]":
    piece = await stored.ask(partial(read_slice, model=model, after=after, limit=limit))
    await catch_up(piece.applied_index)
    should = await wanted.ask(
        partial(read_range, model=model, after=after, end=piece.end, limit=len(piece.rows) + limit)
    )
    return piece, first_pair(model, piece.rows, should)


class Pair(NamedTuple):
    """A row as it is, and as it should be; None where there is none."""

    there: Row | None
    wanted: Row | None


def first_pair(model: ReadModel, there: Sequence[Row], wanted: Sequence[Row]) -> Pair | None:
    """Return the first rows that differ, in log order; None when all are the same."""
    there = [model.comparable(row) for row in there]
    wanted = [model.comparable(row) for row in wanted]
    if there == wanted:
        return None
    by_key, should = _by_identity(model, there), _by_identity(model, wanted)
    for key in sorted(by_key.keys() | should.keys()):
        pair = Pair(by_key.get(key), should.get(key))
        if pair.there != pair.wanted:
            return pair
    first = next(place for place, row in enumerate(there) if place >= len(wanted) or row != wanted[place])
    return Pair(there[first], there[first])  # the same rows in another order, or one of them twice


def _by_identity(model: ReadModel, rows: Sequence[Row]) -> Mapping[Row, Row]:
    width = len(model.key)
    return {(*row[:width], *(model.value(row, name) for name in model.identity)): row for row in rows}


async def _named(model: ReadModel, pair: Pair, stored: Store, wanted: Store) -> Difference:
    row = pair.wanted or pair.there
    assert row is not None
    session_key = 0 if model.name == "totals" else int(model.value(row, "session_key"))
    ordinal = int(model.value(row, "ordinal")) if "ordinal" in model.columns else None
    name = await wanted.ask(partial(names, session_key=session_key, ordinal=ordinal))
    if name.session_id is None:
        name = await stored.ask(partial(names, session_key=session_key, ordinal=ordinal))
    return Difference(
        "primary", model.name, _session_of(name), _key_of(model, row, name), _entry(model, pair), _what(model, pair)
    )


def _session_of(name: Names) -> str | None:
    if name.tenant in {None, TENANT_DEFAULT}:
        return name.session_id
    return f"{name.session_id} of tenant {name.tenant}"


def _key_of(model: ReadModel, row: Row, name: Names) -> str:
    match model.name:
        case "messages" | "tombstones":
            return f"message {model.value(row, 'message_id')}"
        case "vectors":
            return f"message {name.message_id}, chunk {model.value(row, 'chunk')}"
        case "facts":
            return f"fact {model.value(row, 'fact_id')}"
        case _:
            return ""


def _entry(model: ReadModel, pair: Pair) -> int:
    """Return the entry that made a row what it should be, as far as the row says."""
    row = pair.wanted or pair.there
    assert row is not None
    changed = set(_changed(model, pair))
    match model.name:
        case "sessions":
            is_born = changed and changed <= BORN | {"created_at_ms"}
            return int(model.value(row, "session_key" if is_born else "updated_index"))
        case "messages" if changed and changed <= EMBEDDING:
            return int(model.value(row, "vectors_index")) or int(row[0])
        case "messages" | "vectors" | "facts":
            return int(row[0])
        case "timeline":
            return int(model.value(row, "log_index"))
        case _:
            return 0


def _what(model: ReadModel, pair: Pair) -> str:
    if pair.there is None:
        return "is missing"
    if pair.wanted is None:
        return "is there, but the log says that it is not"
    changed = _changed(model, pair)
    if not changed:
        return "is not in its place, or is there twice"
    return "; ".join(_difference(name, *values) for name, values in changed.items())


def _difference(name: str, there: object, wanted: object) -> str:
    if type(there) in TOLD and type(wanted) in TOLD and not name.endswith("_hash"):  # of what a client calls somebody
        return f"{name} is {there}, the log says {wanted}"
    return f"{name} differs"


def _changed(model: ReadModel, pair: Pair) -> dict[str, tuple[object, object]]:
    if pair.there is None or pair.wanted is None:
        return {}
    columns = [column.strip('"') for column in model.columns]
    return {
        name: (model.value(pair.there, name), model.value(pair.wanted, name))
        for name in columns
        if model.value(pair.there, name) != model.value(pair.wanted, name)
    }
