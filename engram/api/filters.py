"""The filter of a search on the wire; `conditions` says what it means.

Unlike elsewhere, an unknown field is an error: a misspelt condition that is ignored would find what it should not.
"""

from collections.abc import Mapping
from typing import Annotated, Final, get_args

from msgspec import Meta, Struct, field

from engram.api.times import RFC3339
from engram.commands import METADATA_BYTES_MAX, TIME_MS_MAX, TIME_MS_MIN
from engram.events import Role, Scalar
from engram.recall.filters import SESSION_FIELDS

COMPARISONS_MAX: Final = 64
"""In one filter. Each is a pass over the messages of the scope."""

VALUES_MAX: Final = 100
"""In one `in`. Each message is compared with all of them."""

TEXT_CHARACTERS_MAX: Final = METADATA_BYTES_MAX
"""Of a value: metadata cannot hold a longer one."""

FIELDS: Final = ("role", "name", "timestamp", *SESSION_FIELDS)

_TEXT: Final = {"type": "string", "maxLength": TEXT_CHARACTERS_MAX}
_TIME: Final = {
    "anyOf": [
        {"type": "string", "format": "date-time", "pattern": RFC3339},
        {"type": "integer", "minimum": TIME_MS_MIN, "maximum": TIME_MS_MAX, "description": "milliseconds since 1970"},
    ]
}
_METADATA_PATTERN: Final = r"^metadata\.[\s\S]+$"


def _fields(*types: str, is_part: bool = False, is_list: bool = False) -> Meta:
    """Return what fields may be compared with, where metadata is compared with values of these types."""
    text: Mapping[str, object] = {**_TEXT, "type": ["string", "null"]} if "null" in types else _TEXT
    values: dict[str, object] = {
        "role": _TEXT if is_part else {"enum": list(get_args(Role))},
        "session_id": _TEXT,
        **dict.fromkeys(("name", "agent_id", "user_id"), text),
        **({} if is_part else {"timestamp": _TIME}),
    }
    metadata: object = {**_TEXT, "type": list(types)}
    if is_list:
        values = {name: _listed(schema) for name, schema in values.items()}
        metadata = _listed(metadata)
    return Meta(
        extra_json_schema={
            "properties": values,
            "patternProperties": {_METADATA_PATTERN: metadata},
            "propertyNames": {"pattern": rf"^({'|'.join(values)})$|{_METADATA_PATTERN}"},
        }
    )


def _listed(schema: object) -> object:
    return {"type": "array", "items": schema, "minItems": 1, "maxItems": VALUES_MAX}


When = Annotated[
    str,
    Meta(extra_json_schema={"format": "date-time", "pattern": RFC3339}, description="RFC 3339, with an offset"),
]
Parts = Annotated[list["Filter"], Meta(min_length=1, max_length=COMPARISONS_MAX)]
Values = Annotated[dict[str, Scalar], _fields("string", "number", "boolean", "null")]
Bounds = Annotated[dict[str, str | int | float], _fields("string", "number")]
Lists = Annotated[
    dict[str, Annotated[list[Scalar], Meta(min_length=1, max_length=VALUES_MAX)]],
    _fields("string", "number", "boolean", "null", is_list=True),
]
Texts = Annotated[dict[str, str], _fields("string", is_part=True)]


class Filter(Struct, kw_only=True, forbid_unknown_fields=True):
    """What a message must be to be found; everything that is given must hold.

    A comparison has fields and what to compare them with: `role`, `name`, `timestamp`, `agent_id`, `user_id`,
    `session_id`, or `metadata.` and a key.
    """

    all_of: Parts | None = field(name="and", default=None)
    any_of: Parts | None = field(name="or", default=None)
    none_of: Annotated["Filter", Meta(description="this must not hold")] | None = field(name="not", default=None)
    eq: Annotated[Values, Meta(description="equal, and of the same type")] | None = None
    ne: Annotated[Values, Meta(description="not equal; holds also where there is no such key")] | None = None
    gt: Annotated[Bounds, Meta(description="greater: numbers among numbers, texts among texts")] | None = None
    gte: Bounds | None = None
    lt: Bounds | None = None
    lte: Bounds | None = None
    is_in: Lists | None = field(name="in", default=None)
    contains: Annotated[Texts, Meta(description="a text that has this one in it, case included")] | None = None
    after: Annotated[When, Meta(description="later than this")] | None = None
    before: Annotated[When, Meta(description="earlier than this")] | None = None
    roles: Annotated[list[Role], Meta(min_length=1)] | None = None
    since: Annotated[When, Meta(description="at this time or later")] | None = None
    until: Annotated[When, Meta(description="the same as `before`")] | None = None
    metadata: Annotated[dict[str, Scalar], Meta(description="labels that must have these values")] | None = None
