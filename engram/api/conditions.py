"""What the filter of a search means: checked, place by place, and turned into a condition of `recall`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeVar, get_args

from engram.api.filters import COMPARISONS_MAX, FIELDS, TEXT_CHARACTERS_MAX, Filter
from engram.api.parameters import shown
from engram.api.times import parse_time
from engram.commands import TIME_MS_MAX, TIME_MS_MIN
from engram.errors import InvalidError
from engram.events import Role, Scalar
from engram.recall.filters import METADATA_PREFIX, All, Comparison, Condition, Not, Operator, Some

DEPTH_MAX: Final = 8
"""Of `and`, `or` and `not` inside one another: more than anybody reads."""

Value = TypeVar("Value")

_WINDOWS: Final[Mapping[str, Operator]] = {"after": "gt", "before": "lt", "since": "gte", "until": "lt"}
_ORDERS: Final[Sequence[Operator]] = ("gt", "gte", "lt", "lte")


def condition_of(wanted: Filter | None, place: str = "filter") -> Condition | None:
    """Return what a filter means; None: that every message fits.

    Raises:
        InvalidError: It is over a limit, names a field that there is none of, or compares one with what it cannot be.
            The message begins with the place: `filter.and[1].gt['timestamp']`.
    """
    return None if wanted is None else _Reading().condition(wanted, place, 1)


class _Reading:
    """Reads one filter, and counts its comparisons."""

    def __init__(self) -> None:
        self._comparisons = 0

    def condition(self, wanted: Filter, place: str, depth: int) -> Condition | None:
        if depth > DEPTH_MAX:
            raise InvalidError(f"{place} is {depth} filters deep; the limit is {DEPTH_MAX}")
        parts = [*self._nested(wanted, place, depth), *self._leaves(wanted, place)]
        if len(parts) <= 1:
            return parts[0] if parts else None
        return All(parts)

    def _nested(self, wanted: Filter, place: str, depth: int) -> Iterator[Condition]:
        for inner, word in ((wanted.all_of, "and"), (wanted.any_of, "or")):
            if inner is not None:
                parts = [
                    self.condition(part, f"{place}.{word}[{n}]", depth + 1) or All(()) for n, part in enumerate(inner)
                ]
                yield All(parts) if word == "and" else Some(parts)
        if wanted.none_of is not None:
            yield Not(self.condition(wanted.none_of, f"{place}.not", depth + 1) or All(()))

    def _leaves(self, wanted: Filter, place: str) -> Iterator[Condition]:
        for leaf in _leaves(wanted, place):
            self._comparisons += 1
            if self._comparisons > COMPARISONS_MAX:
                raise InvalidError(
                    f"{place} is where the filter has more than {COMPARISONS_MAX} comparisons, the limit"
                )
            yield leaf


def _leaves(wanted: Filter, place: str) -> Iterator[Condition]:
    yield from _published(wanted, place)
    for key, value, at in _items(wanted.eq, place, "eq"):
        yield Comparison(key, "eq", [_value(key, value, at)])
    for key, value, at in _items(wanted.ne, place, "ne"):
        yield Not(Comparison(key, "eq", [_value(key, value, at)]))
    for order in _ORDERS:
        for key, value, at in _items(getattr(wanted, order), place, order):
            yield Comparison(key, order, [_value(key, value, at)])
    for key, values, at in _items(wanted.is_in, place, "in"):
        yield Comparison(key, "in", [_value(key, value, f"{at}[{n}]") for n, value in enumerate(values)])
    for key, part, at in _items(wanted.contains, place, "contains"):
        yield Comparison(key, "contains", [_part(key, part, at)])


def _published(wanted: Filter, place: str) -> Iterator[Condition]:
    """Yield the comparisons that have names of their own."""
    for name, operator in _WINDOWS.items():
        time: str | None = getattr(wanted, name)
        if time is not None:
            yield Comparison("timestamp", operator, [parse_time(f"{place}.{name}", time)])
    if wanted.roles is not None:
        yield Comparison("role", "in", wanted.roles)
    for key, value in (wanted.metadata or {}).items():
        yield Comparison(METADATA_PREFIX + key, "eq", [value])


def _items(compared: Mapping[str, Value] | None, place: str, word: str) -> Iterator[tuple[str, Value, str]]:
    """Yield each field with its value and its place."""
    for key, value in (compared or {}).items():
        at = f"{place}.{word}[{shown(key)}]"
        if key not in FIELDS and (not key.startswith(METADATA_PREFIX) or key == METADATA_PREFIX):
            raise InvalidError(f"{at} is no field; it takes {', '.join(FIELDS)}, or 'metadata.' and a key")
        yield key, value, at


def _value(key: str, value: Scalar, at: str) -> Scalar:
    if key.startswith(METADATA_PREFIX):
        return _short(value, at) if isinstance(value, str) else value
    if key == "timestamp":
        return _time(value, at)
    if value is None and key not in {"role", "session_id"}:
        return None
    if not isinstance(value, str):
        raise InvalidError(f"{at} is {_shown(value)}; it takes a string")
    if key == "role" and value not in get_args(Role):
        raise InvalidError(f"{at} is {shown(value)}; it takes {' or '.join(map(repr, get_args(Role)))}")
    return _short(value, at)


def _part(key: str, part: str, at: str) -> str:
    if key == "timestamp":
        raise InvalidError(f"{at} cannot be: a timestamp is no text; compare it with gt, gte, lt or lte")
    return _short(part, at)


def _time(value: Scalar, at: str) -> int:
    if isinstance(value, str):
        return parse_time(at, value)
    if isinstance(value, int) and not isinstance(value, bool) and TIME_MS_MIN <= value <= TIME_MS_MAX:
        return value
    raise InvalidError(
        f"{at} is {_shown(value)}; it takes an RFC 3339 time, or whole milliseconds from {TIME_MS_MIN} to {TIME_MS_MAX}"
    )


def _short(value: str, at: str) -> str:
    if len(value) > TEXT_CHARACTERS_MAX:
        raise InvalidError(f"{at} has {len(value)} characters; the limit is {TEXT_CHARACTERS_MAX}")
    return value


def _shown(value: Scalar) -> str:
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )
