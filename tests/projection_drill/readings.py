"""Everything that can be read of a node, and how two nodes' answers differ."""

import random
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any
from urllib.parse import quote

import msgspec

from benchmarks.connection import Answer, Connection, build_request, session_path
from benchmarks.conversations import Conversations
from tests.cluster.asking import AnswerError, told
from tests.projection_drill.expectations import Expected, shown

NOW = "2027-01-01T12:00:00Z"
"""What "last week" is relative to: the two nodes are asked one after the other."""

QUERIES = 4
WORDS = 5
PAST_MOMENTS = 3
"""Into so many parts the time up to the last write is cut."""
SCOPES = ("session", "agent", "user")
BUDGETS = (0, 200, 1_000_000)
FORMATS = ("text", "openai", "anthropic")
STATUSES = frozenset({200, 404})

Readings = dict[str, Any]
"""What was answered, by what was asked."""


async def read_everything(port: int, sessions: Sequence[Expected], seed: str) -> Readings:
    """Read every session in every way. Both nodes are asked the same, for the same seed.

    Raises:
        AnswerError: The node cannot answer.
    """
    rng = random.Random(seed)
    queries = [Conversations(rng.randrange(2**32)).query() for _ in range(QUERIES)]
    found: Readings = {}
    async with Connection.to(port) as connection:
        found["GET /sessions"] = await _pages(connection, "/sessions?limit=200", "sessions")
        found["GET /events"] = await _pages(connection, "/events?limit=200", "events")
        for expected in sessions:
            await _read_session(connection, expected, queries, found)
    return found


def messages_path(session_id: str) -> str:
    """Return what a session's messages stand under among what was read."""
    return f"GET {session_path(session_id, '/messages?order=asc&limit=200')}"


def facts_path(session_id: str) -> str:
    """Return what a session's facts stand under among what was read."""
    return f"GET {session_path(session_id, '/core-memory')}"


async def _read_session(connection: Connection, expected: Expected, queries: Sequence[str], found: Readings) -> None:
    path = session_path(expected.session_id)
    found[messages_path(expected.session_id)] = await _pages(
        connection, f"{path}/messages?order=asc&limit=200", "messages"
    )
    found[f"GET {path}/history"] = await _pages(connection, f"{path}/history?limit=200", "events")
    for read in (path, f"{path}/core-memory", *_contexts(path, queries), *_past(path, expected.log_index)):
        found[f"GET {read}"] = _comparable(await _asked(connection, "GET", read))
    for query, scope in product((*queries, *_words(expected)), SCOPES):
        body = {"query": query, "top_k": 50, "now": NOW, "scope": scope, "explain": True}
        answer = await _asked(connection, "POST", f"{path}/search", body)
        found[f"POST {path}/search {body}"] = _comparable(answer)


def _contexts(path: str, queries: Sequence[str]) -> list[str]:
    """Return contexts to ask for: every scope, and budgets for nothing, for some and for all."""
    asked = [f"query={quote(query)}&scope={scope}&explain=true" for query, scope in product(queries, SCOPES)]
    packed = [f"max_tokens={tokens}&format={form}" for tokens, form in product(BUDGETS, FORMATS)]
    return [f"{path}/context?now={NOW}&{parameters}" for parameters in (*asked, *packed)]


def _past(path: str, log_index: int) -> list[str]:
    """Return what to ask of earlier moments."""
    moments = [log_index * share // PAST_MOMENTS for share in range(1, PAST_MOMENTS)]
    return [f"{path}/{what}as_of={moment}" for moment in moments for what in (f"context?now={NOW}&", "core-memory?")]


def _words(expected: Expected) -> list[str]:
    """Return the words that only one message has, of a few messages."""
    texts = [message.text for message in expected.messages.values()]
    return [text.rpartition(" ")[2] for text in texts[:: max(1, len(texts) // WORDS)]]


async def _pages(connection: Connection, path: str, key: str) -> list[Any] | None:
    """Return a whole list; None when there is none."""
    items: list[Any] = []
    cursor = ""
    while True:
        answer = await _asked(connection, "GET", f"{path}{cursor}")
        if answer.status == 404:
            return None
        page = msgspec.json.decode(answer.body)
        items += page[key]
        if page["next_cursor"] is None:
            return items
        cursor = f"&cursor={quote(page['next_cursor'])}"


async def _asked(connection: Connection, method: str, path: str, body: object = None) -> Answer:
    answer = await connection.ask(build_request(method, path, body))
    if answer.status not in STATUSES:
        raise AnswerError(f"{method} {path}: {told(answer)}")
    return answer


def _comparable(answer: Answer) -> Any:
    """Return an answer without the entry that it was read at: a start adds an entry of its own to a log."""
    if answer.status == 404:
        return 404
    body = msgspec.json.decode(answer.body)
    if "context" in body:
        del body["index"]
    return _timeless(body)


def _timeless(value: Any) -> Any:
    """Return a part of an answer without what its stages took."""
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if key != "took_ms"}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def differing(wanted: Readings, found: Readings) -> list[str]:
    """Return what differs, one line for each question, with the place of the first difference."""
    return [
        f"{asked}: {_first_difference(wanted.get(asked), found.get(asked), '')}"
        for asked in sorted({*wanted, *found})
        if wanted.get(asked) != found.get(asked)
    ]


def _first_difference(wanted: Any, found: Any, place: str) -> str:
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for key in (*wanted, *(key for key in found if key not in wanted)):
            if wanted.get(key) != found.get(key):
                return _first_difference(wanted.get(key), found.get(key), f"{place}.{key}")
    if isinstance(wanted, list) and isinstance(found, list):
        for number, (one, other) in enumerate(zip(wanted, found, strict=False)):
            if one != other:
                return _first_difference(one, other, f"{place}[{number}]")
        return f"{place} has {len(found)} items, a fresh fold {len(wanted)}"
    return f"{place} is {shown(found)}, of a fresh fold {shown(wanted)}"
