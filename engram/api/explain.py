"""Why a JSON value does not fit a schema, in our own words: which field, what it is, what it takes.

msgspec says yes or no fast; this is the slow path after a no.
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import inspect

from engram.api.parameters import SHOWN_CHARACTERS_MAX, shown


def misfit(value: object, schema: Any, field: str = "the body") -> str | None:
    """Return the first reason why `value` does not fit the type `schema`; None when it fits."""
    return _misfit(value, inspect.type_info(schema), field)


_NOUNS: Mapping[str, set[type[inspect.Type]]] = {
    "a string": {inspect.StrType},
    "a number": {inspect.IntType, inspect.FloatType},
    "true": {inspect.BoolType},
    "false": {inspect.BoolType},
    "null": {inspect.NoneType},
}


def _misfit(value: object, kind: inspect.Type, field: str) -> str | None:
    rule = _RULES.get(type(kind))
    return None if rule is None else rule(value, kind, field)


def _misfit_union(value: object, kind: inspect.UnionType, field: str) -> str | None:
    members = [member for member in kind.types if not isinstance(member, inspect.NoneType)]
    if value is None and len(members) < len(kind.types):
        return None
    if len(members) == 1:
        return _misfit(value, members[0], field)
    if any(_misfit(value, member, field) is None for member in members):
        return None
    return _says(field, value, _either(kind))


def _either(kind: inspect.UnionType) -> str:
    """Return what a union of plain values takes."""
    there = {type(member) for member in kind.types}
    nouns = [noun for noun, kinds in _NOUNS.items() if kinds & there]
    return nouns[0] if len(nouns) == 1 else f"{', '.join(nouns[:-1])} or {nouns[-1]}"


def _misfit_object(value: object, kind: inspect.StructType, field: str) -> str | None:
    if not isinstance(value, dict):
        return _says(field, value, "an object")
    inside = "" if field == "the body" else f"{field}."
    if kind.forbid_unknown_fields:
        known = [member.encode_name for member in kind.fields]
        unknown = next((key for key in value if key not in known), None)
        if unknown is not None:
            return f"{inside}{shown(unknown)[1:-1]} is unknown; it takes {', '.join(known)}"
    for member in kind.fields:
        if member.encode_name not in value:
            if member.required:
                return f"{inside}{member.encode_name} is missing"
            continue
        reason = _misfit(value[member.encode_name], member.type, inside + member.encode_name)
        if reason is not None:
            return reason
    return None


def _misfit_array(value: object, kind: inspect.ListType, field: str) -> str | None:
    if not isinstance(value, list):
        return _says(field, value, "an array")
    least, most = kind.min_length or 0, kind.max_length
    if len(value) < least or (most is not None and len(value) > most):
        takes = f"{least} to {most}" if most is not None else f"at least {least}"
        return f"{field} has {len(value)} items; it takes {takes}"
    reasons = (_misfit(item, kind.item_type, f"{field}[{place}]") for place, item in enumerate(value))
    return next((reason for reason in reasons if reason is not None), None)


def _misfit_map(value: object, kind: inspect.DictType, field: str) -> str | None:
    if not isinstance(value, dict):
        return _says(field, value, "an object")
    reasons = (_misfit(item, kind.value_type, f"{field}[{_shown(key)}]") for key, item in value.items())
    return next((reason for reason in reasons if reason is not None), None)


def _misfit_string(value: object, kind: inspect.StrType, field: str) -> str | None:
    if not isinstance(value, str):
        return _says(field, value, "a string")
    least, most = kind.min_length or 0, kind.max_length
    if len(value) < least or (most is not None and len(value) > most):
        return f"{field} has {len(value)} characters; it takes {least} to {most}"
    return None


def _misfit_number(value: object, kind: inspect.IntType | inspect.FloatType, field: str) -> str | None:
    whole = isinstance(kind, inspect.IntType)
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    least, most = kind.ge, kind.le
    if fits and (least is None or value >= least) and (most is None or value <= most):  # type: ignore[operator]
        return None
    noun = "a whole number" if whole else "a number"
    if least is not None and most is not None:
        return _says(field, value, f"{noun} from {_limit(least)} to {_limit(most)}")
    return _says(field, value, noun if least is None else f"{noun} of at least {_limit(least)}")


def _limit(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def _misfit_literal(value: object, kind: inspect.LiteralType, field: str) -> str | None:
    return None if value in kind.values else _says(field, value, " or ".join(map(repr, kind.values)))


def _misfit_bool(value: object, _kind: inspect.BoolType, field: str) -> str | None:
    return None if isinstance(value, bool) else _says(field, value, "true or false")


_RULES: dict[type[inspect.Type], Callable[[object, Any, str], str | None]] = {
    inspect.Metadata: lambda value, kind, field: _misfit(value, kind.type, field),
    inspect.UnionType: _misfit_union,
    inspect.StructType: _misfit_object,
    inspect.ListType: _misfit_array,
    inspect.DictType: _misfit_map,
    inspect.LiteralType: _misfit_literal,
    inspect.StrType: _misfit_string,
    inspect.IntType: _misfit_number,
    inspect.FloatType: _misfit_number,
    inspect.BoolType: _misfit_bool,
}


def _says(field: str, value: object, takes: str) -> str:
    return f"{field} is {_shown(value)}; it takes {takes}"


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    if isinstance(value, str):
        return shown(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and abs(value) >= 10**SHOWN_CHARACTERS_MAX:
        return f"a number of more than {SHOWN_CHARACTERS_MAX} digits"
    return str(value)
