"""Printing the state of memory at one place in the log: a table for people, one JSON document for programs."""

from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple, TextIO

import msgspec

from engram.api.times import format_time
from engram.api.views import view_fact, view_message, view_session
from engram.errors import NotFoundError
from engram.projections.rows import FactRow, MessageRow, SessionRow
from engram.projections.sqlite_store import PrimaryStore

PAGE: Final = 200
"""Rows that are held at a time."""


class Replayed(NamedTuple):
    """A store that was folded up to the place, and whose sessions to show."""

    store: PrimaryStore
    tenant: str


async def print_all(replayed: Replayed, out: TextIO, *, is_json: bool) -> None:
    """Print every session with its counts, the totals, and the digest of each read model."""
    store = replayed.store
    counts, digests = await store.counts(), await store.digest()
    if is_json:
        head = {
            "index": store.applied_index,
            "at": _time(store.last_at_ms),
            "counts": {"sessions": counts.sessions, "messages": counts.messages, "facts": counts.facts},
            "digests": digests,
        }
        out.write(_json(head)[:-1] + ',"sessions":[')
        separator = ""
        async for row in _sessions(replayed):
            out.write(separator + _json(view_session(row)))
            separator = ","
        out.write("]}\n")
        return
    out.write(_moment(store))
    out.write(f"{'index':>8} {'messages':>8} {'facts':>6} {'tokens':>8} {'last change':<24} session\n")
    async for row in _sessions(replayed):
        changed = format_time(row.updated_at_ms)
        numbers = f"{row.session_key:>8} {row.message_count:>8} {row.fact_count:>6} {row.token_count:>8}"
        out.write(f"{numbers} {changed:<24} {row.session_id}\n")
    out.write(f"{counts.sessions} sessions, {counts.messages} messages, {counts.facts} facts\n")
    out.writelines(f"digest of {name:<10} {digest}\n" for name, digest in digests.items())


async def print_session(replayed: Replayed, session_id: str, out: TextIO, *, is_json: bool) -> None:
    """Print a session, its facts and its messages, each with the entry that it comes from.

    Raises:
        NotFoundError: It was not there, or is forgotten since.
    """
    store = replayed.store
    row = await store.session(session_id, replayed.tenant)
    if row is None:
        raise NotFoundError("session", session_id, as_of=store.applied_index)
    facts = await store.facts(row.session_key)
    if is_json:
        head = {
            "index": store.applied_index,
            "at": _time(store.last_at_ms),
            "session": view_session(row),
            "facts": [view_fact(fact) for fact in facts],
        }
        out.write(_json(head)[:-1] + ',"messages":[')
        separator = ""
        async for message in _messages(store, row):
            out.write(separator + _json(view_message(message)))
            separator = ","
        out.write("]}\n")
        return
    out.write(_moment(store))
    out.writelines(_described(row))
    out.writelines(map(_fact, facts))
    async for message in _messages(store, row):
        out.write(_message(message))


async def _sessions(replayed: Replayed) -> AsyncIterator[SessionRow]:
    after: int | None = None
    while page := await replayed.store.sessions(tenant=replayed.tenant, after=after, limit=PAGE):
        for row in page:
            yield row
        after = page[-1].session_key


async def _messages(store: PrimaryStore, row: SessionRow) -> AsyncIterator[MessageRow]:
    after: int | None = None
    while page := await store.messages(row.session_key, after=after, limit=PAGE):
        for message in page:
            yield message
        after = page[-1].ordinal


def _moment(store: PrimaryStore) -> str:
    at = _time(store.last_at_ms)
    return f"entry {store.applied_index}" + ("\n" if at is None else f" ({at})\n")


def _time(at_ms: int) -> str | None:
    return format_time(at_ms) if at_ms else None


def _described(row: SessionRow) -> Sequence[str]:
    owners = [f"{name} {value}" for name, value in (("agent", row.agent_id), ("user", row.user_id)) if value]
    about = ", ".join([*owners, row.visibility, f"made {format_time(row.created_at_ms)}"])
    counts = f"{row.message_count} messages, {row.fact_count} facts, {row.token_count} tokens"
    waiting = f", {row.pending_embeddings} without vectors" if row.pending_embeddings else ""
    return [f"session {row.session_id}: {about}\n", f"{counts}{waiting}\n"]


def _fact(fact: FactRow) -> str:
    return f"{fact.log_index:>8} {format_time(fact.at_ms)} fact {fact.fact_id}: {_line(fact.text)}\n"


def _message(message: MessageRow) -> str:
    return f"{message.log_index:>8} {format_time(message.when_ms)} {message.role} {message.message_id}: {_line(message.text)}\n"


def _line(text: str) -> str:
    """Return a text as one line without characters that would command a terminal."""
    return "".join(each if each.isprintable() else " " for each in text)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
