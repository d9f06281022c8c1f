"""`engram log show`: the events in the log. Texts and metadata belong to somebody, so they are left out unless asked for."""

import argparse
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple, Self, TextIO

import msgspec

from engram.cli.stopped import open_log
from engram.config import Config
from engram.errors import CorruptionError
from engram.events import Chunk, Event, decode
from engram.log.consensus.types import Entry, EntryKind

EMPTY = "(empty)"
"""An entry without events: a term begins with one, and what was erased leaves one."""

MEMBERSHIP = "(membership)"

PRIVATE = frozenset({"text", "metadata"})

COMMON = frozenset({"session_id", "at_ms", "tenant"})
"""Fields that have a column of their own in a table, or go without saying."""


class Wanted(NamedTuple):
    """What to show, and how."""

    first: int
    last: int | None
    session: str | None
    type: str | None
    limit: int | None
    is_json: bool
    with_text: bool

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Self:
        """Return what the arguments ask for."""
        return cls(
            first=arguments.first,
            last=arguments.last,
            session=arguments.session,
            type=arguments.type,
            limit=arguments.limit,
            is_json=arguments.format == "json",
            with_text=arguments.text,
        )

    def has(self, line: "Line") -> bool:
        """Return whether a line is to be shown."""
        if self.session is not None and line.fields.get("session_id") != self.session:
            return False
        return self.type is None or line.type == self.type


class Line(NamedTuple):
    """One event, or an entry that has none."""

    log_index: int
    term: int
    type: str
    fields: Mapping[str, object]


async def run(config: Config, wanted: Wanted, out: TextIO) -> int:
    """Print what is wanted to `out`.

    Raises:
        ConfigError: There is no log.
        CorruptionError: An entry cannot be read; those before it are printed.
        StorageError: A node runs, or the disk failed.
    """
    printed = 0
    async with open_log(config, read_only=True) as log:
        if log.state.last_index == 0:  # a node's first act is an entry, so something is wrong with the file
            for problem in await log.verify():
                raise CorruptionError(f"{config.log_path}: {problem}")
        async for batch in log.history(wanted.first - 1):
            for entry in batch:
                if wanted.last is not None and entry.index > wanted.last:
                    return 0
                for line in filter(wanted.has, _lines(entry, with_text=wanted.with_text)):
                    if printed == wanted.limit:
                        return 0
                    out.write(_json(line) if wanted.is_json else _row(line))
                    printed += 1
    return 0


def _lines(entry: Entry, *, with_text: bool) -> Iterator[Line]:
    if entry.kind != EntryKind.NORMAL:
        yield Line(entry.index, entry.term, MEMBERSHIP, {})
    elif not entry.data:
        yield Line(entry.index, entry.term, EMPTY, {})
    else:
        for event in decode(entry.data):
            yield Line(entry.index, entry.term, type(event).__name__, _fields(event, with_text=with_text))


def _fields(event: Event, *, with_text: bool) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if name == "chunks":
            fields[name] = [_span(chunk) for chunk in value]
        elif name not in PRIVATE or with_text:
            fields[name] = value
        elif name == "text":
            fields["text_characters"] = len(value)
        elif value:
            fields["metadata_keys"] = len(value)
    return {name: value for name, value in fields.items() if value is not None}


def _span(chunk: Chunk) -> tuple[int, int]:
    return chunk.start, chunk.end


def _json(line: Line) -> str:
    head = {"index": line.log_index, "term": line.term, "type": line.type}
    return msgspec.json.encode({**head, **line.fields}).decode() + "\n"


def _row(line: Line) -> str:
    at_ms = line.fields.get("at_ms")
    time = _time(at_ms) if isinstance(at_ms, int) else ""
    rest = " ".join(f"{name}={_quoted(value)}" for name, value in line.fields.items() if name not in COMMON)
    session = str(line.fields.get("session_id", ""))
    return f"{line.log_index:>8} {line.term:>4} {time:<24} {line.type:<17} {session:<24} {rest}".rstrip() + "\n"


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _quoted(value: object) -> str:
    return msgspec.json.encode(value).decode()
