"""Filters: which messages of a scope a search may find. Pure.

A condition is a tree of comparisons. It is decided for all rows of a session at once, column by column, so that a search
can pass over rows before it takes the best: what is found with a filter is what would be found without one, less what
does not fit, to the last row of the scope.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from engram.events import Scalar
from engram.projections.rows import SessionRow
from engram.recall.index import Rows

Operator = Literal["eq", "gt", "gte", "lt", "lte", "in", "contains"]
Booleans = npt.NDArray[np.bool_]

METADATA_PREFIX: Final = "metadata."
SESSION_FIELDS: Final = ("agent_id", "user_id", "session_id")
LABEL_FIELDS: Final = ("role", "name")
"""What has to be read of each message; so have its metadata."""

_MISSING: Final = object()
"""What a message has under a key that is not among its metadata: nothing compares with it."""

_ORDERS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
"""Between numbers, or between texts; the times of all rows at once are numbers too."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field, compared with one value, or with several for `in`. Times are milliseconds since the Unix epoch."""

    field: str
    """`role`, `name`, `timestamp`, `agent_id`, `user_id`, `session_id`, or `metadata.` and a key."""
    operator: Operator
    values: Sequence[Scalar]


@dataclass(frozen=True, slots=True)
class All:
    """Every part must hold."""

    parts: Sequence["Condition"]


@dataclass(frozen=True, slots=True)
class Some:
    """One part at least must hold."""

    parts: Sequence["Condition"]


@dataclass(frozen=True, slots=True)
class Not:
    """The part must not hold."""

    part: "Condition"


Condition = Comparison | All | Some | Not


class Labels(NamedTuple):
    """What a client said about each message of a session; sequences of one length, in order of ordinals."""

    ordinals: npt.NDArray[np.uint32]
    roles: Sequence[str]
    names: Sequence[str | None]
    metadata: Sequence[Mapping[str, Scalar]]


class _Decided(dict[tuple[type, object], bool]):
    """Whether a comparison holds for a value and its type: each is compared once, however many messages have it."""

    def __init__(self, leaf: Comparison) -> None:
        super().__init__()
        self._leaf = leaf

    def __missing__(self, key: tuple[type, object]) -> bool:
        self[key] = holds = _fits(self._leaf, key[1])
        return holds


def comparisons(condition: Condition) -> Iterator[Comparison]:
    """Yield the leaves of a condition."""
    match condition:
        case Comparison():
            yield condition
        case Not(part):
            yield from comparisons(part)
        case All(parts) | Some(parts):
            for part in parts:
                yield from comparisons(part)


def needs_labels(condition: Condition) -> bool:
    """Return whether a condition asks for more than times and sessions."""
    return any(leaf.field in LABEL_FIELDS or leaf.field.startswith(METADATA_PREFIX) for leaf in comparisons(condition))


def mask(condition: Condition, session: SessionRow, rows: Rows, labels: Labels | None) -> Booleans:
    """Return for each of a session's rows whether `condition` holds.

    `labels` may hold more messages than there are rows; a row without labels is a message that was deleted meanwhile.
    """
    match condition:
        case Comparison():
            return _compared(condition, session, rows, labels)
        case Not(part):
            return ~mask(part, session, rows, labels)
        case All(parts):
            held = np.ones(len(rows.ordinals), np.bool_)
            for part in parts:
                held &= mask(part, session, rows, labels)
            return held
        case Some(parts):
            held = np.zeros(len(rows.ordinals), np.bool_)
            for part in parts:
                held |= mask(part, session, rows, labels)
            return held


def may_hold(condition: Condition, session: SessionRow) -> bool:
    """Return whether `condition` can hold for any message of a session, as far as the session itself tells."""
    return _verdict(condition, session) is not False


def _verdict(condition: Condition, session: SessionRow) -> bool | None:
    """Return what the session alone says of a condition; None: that depends on the message."""
    match condition:
        case Comparison(field):
            return _fits(condition, getattr(session, field)) if field in SESSION_FIELDS else None
        case Not(part):
            verdict = _verdict(part, session)
            return None if verdict is None else not verdict
        case All(parts) | Some(parts):
            # One part that says so decides, whatever the others depend on.
            decides = isinstance(condition, Some)
            verdicts = {_verdict(part, session) for part in parts}
            if decides in verdicts:
                return decides
            return None if None in verdicts else not decides


def _compared(leaf: Comparison, session: SessionRow, rows: Rows, labels: Labels | None) -> Booleans:
    if leaf.field == "timestamp":
        return _timed(leaf, rows.whens_ms)
    if leaf.field in SESSION_FIELDS:
        return np.full(len(rows.ordinals), _fits(leaf, getattr(session, leaf.field)))
    assert labels is not None, "a condition on labels comes with them"
    found = list(_column(leaf.field, labels))
    decided = _Decided(leaf)
    held = np.fromiter(map(decided.__getitem__, zip(map(type, found), found, strict=True)), np.bool_, len(found))
    return _aligned(held, labels.ordinals, rows.ordinals)


def _timed(leaf: Comparison, whens_ms: npt.NDArray[np.int64]) -> Booleans:
    order = _ORDERS.get(leaf.operator)
    if order is None:
        return np.isin(whens_ms, np.array(leaf.values, np.int64))
    [bound] = leaf.values
    held: Booleans = order(whens_ms, bound)
    return held


def _column(field: str, labels: Labels) -> Iterator[object]:
    match field:
        case "role":
            return iter(labels.roles)
        case "name":
            return iter(labels.names)
        case _:
            key = field.removeprefix(METADATA_PREFIX)
            return (each.get(key, _MISSING) for each in labels.metadata)


def _aligned(held: Booleans, ordinals: npt.NDArray[np.uint32], wanted: npt.NDArray[np.uint32]) -> Booleans:
    """Return what holds for the messages with the ordinals `wanted`; False for those that are not there."""
    if np.array_equal(ordinals, wanted):
        return held
    places = ordinals.searchsorted(wanted)
    there = places < len(ordinals)
    there[there] = ordinals[places[there]] == wanted[there]
    aligned = np.zeros(len(wanted), np.bool_)
    aligned[there] = held[places[there]]
    return aligned


def _fits(leaf: Comparison, found: object) -> bool:
    match leaf.operator:
        case "eq" | "in":
            return any(_is_equal(found, value) for value in leaf.values)
        case "contains":
            [part] = leaf.values
            return isinstance(found, str) and isinstance(part, str) and part in found
        case _:
            [bound] = leaf.values
            return _kind(found) is _kind(bound) is not None and bool(_ORDERS[leaf.operator](found, bound))


def _is_equal(found: object, wanted: Scalar) -> bool:
    """Return whether two values are the same for JSON: 1 is 1.0, but neither is true, nor is either a text."""
    return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)


def _kind(value: object) -> type | None:
    """Return what a value can be ordered among: numbers or texts; nothing else has an order."""
    if isinstance(value, str):
        return str
    return float if isinstance(value, int | float) and not isinstance(value, bool) else None
