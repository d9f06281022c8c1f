"""Is in Redis what the primary store says? Every session, message and fact is compared; nothing is changed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Container, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

from engram.projections.redis_filling import Source
from engram.projections.redis_keys import SessionName
from engram.projections.redis_rows import (
    FORMAT,
    Header,
    ShortTerm,
    Stored,
    UnreadableError,
    decode_facts,
    decode_header,
    decode_messages,
    session_of,
)
from engram.projections.redis_source import Wanted, missing, short_terms, stamps
from engram.projections.redis_store import RedisStore
from engram.projections.rows import FactRow, MessageRow

SESSIONS: Final = 32
"""Sessions compared at the same time."""

TRIES: Final = 3
"""How often a session that differs is compared again on a running node, which writes beside this."""


class Difference(NamedTuple):
    """Something that is not in Redis as the primary store has it."""

    name: SessionName
    subject: str
    """`session`, `message m1`, or `fact f1`."""
    log_index: int
    """The entry of the log that made it so in the primary store; 0 when nothing did."""
    what: str
    is_behind: bool = False
    """Redis has an earlier state of the session, which the node's next start or next write brings up to date."""

    def __str__(self) -> str:
        where = f"session {self.name.session_id!r}" + ("" if self.subject == "session" else f", {self.subject}")
        return f"redis: {where}, entry {self.log_index}: {self.what}"


async def differences(
    redis: RedisStore,
    source: Source,
    *,
    log_store: str,
    waiting: Callable[[], Container[SessionName]] = tuple,
    progress: Callable[[int], None] = lambda _: None,
) -> AsyncIterator[Difference]:
    """Yield what differs: the first difference of every session, in the order of their making, then what is too much.

    `log_store` is the store id of the log. `progress` hears how many more sessions were compared. On a running node
    `waiting` is `RedisFeed.waiting`: the sessions that are about to be written anyhow are left out. Reads a page of
    sessions at a time.

    Raises:
        RedisFailedError: Redis failed.
    """
    after = 0
    while page := await source.ask(partial(stamps, after=after, limit=SESSIONS)):
        found = await asyncio.gather(*(_settled(redis, source, stamp.name, log_store, waiting) for stamp in page))
        for difference in found:
            if difference is not None:
                yield difference
        after = page[-1].session_key
        progress(len(page))
    async for difference in _surplus(redis, source):
        yield difference


async def _settled(
    redis: RedisStore,
    source: Source,
    name: SessionName,
    log_store: str,
    waiting: Callable[[], Container[SessionName]],
) -> Difference | None:
    """Return what differs in a session, seen several times in a row: between two looks it may have been written."""
    difference: Difference | None = None
    for _ in range(TRIES):
        if name in waiting():
            return None
        (found,) = await source.ask(partial(short_terms, wanted=[Wanted(name, None)], window=redis.window))
        if found.short_term is None:
            return None  # deleted meanwhile
        stored = await redis.read(name, redis.window)
        difference = next(_compared(found.short_term, stored, log_store), None)
        if difference is None:
            return None
    return difference


async def _surplus(redis: RedisStore, source: Source) -> AsyncIterator[Difference]:
    cursor = 0
    while True:
        scanned = await redis.scan(cursor)
        for name in await source.ask(partial(missing, names=sorted(scanned.names))):
            yield Difference(name, "session", 0, "it is in Redis, but not in the primary store")
        for key in scanned.strays:
            yield Difference(SessionName("", ""), f"key {key.decode(errors='replace')}", 0, "it means nothing")
        cursor = scanned.cursor
        if cursor == 0:
            return


def _compared(wanted: ShortTerm, stored: Stored, log_store: str) -> Iterator[Difference]:
    session = wanted.session
    header = decode_header(stored.header)
    if header is None or header.format != FORMAT or header.store != log_store:
        what = "it is not in Redis" if stored.header is None else "in Redis it is another store's or version's"
        yield Difference(wanted.name, "session", session.updated_index, what)
        return
    if (header.session_key, header.updated_index) != (session.session_key, session.updated_index):
        what = f"in Redis it is as of entry {header.updated_index}"
        is_behind = header.updated_index < session.updated_index
        yield Difference(wanted.name, "session", session.updated_index, what, is_behind=is_behind)
        return
    yield from _session(wanted, header)
    try:
        messages, facts = decode_messages(stored.messages), decode_facts(stored.core)
    except UnreadableError as error:
        yield Difference(wanted.name, "session", session.updated_index, f"what is stored cannot be read: {error}")
        return
    yield from _messages(wanted, messages)
    yield from _facts(wanted, facts)


def _session(wanted: ShortTerm, header: Header) -> Iterator[Difference]:
    there = session_of(header)
    fields = _differing(there._fields, there, wanted.session)
    if fields:
        yield Difference(wanted.name, "session", wanted.session.updated_index, f"stored {fields} differs")


def _messages(wanted: ShortTerm, stored: Sequence[MessageRow]) -> Iterator[Difference]:
    there = {row.message_id: row for row in stored}
    for row in wanted.recent:
        yield from _row(wanted, f"message {row.message_id!r}", there.pop(row.message_id, None), row)
    oldest = wanted.recent[0].ordinal if wanted.recent else None
    for row in there.values():
        if oldest is None or row.ordinal >= oldest:  # a list that was added to may reach further back
            yield Difference(
                wanted.name, f"message {row.message_id!r}", 0, "it is in Redis, but not in the primary store"
            )


def _facts(wanted: ShortTerm, stored: Sequence[FactRow]) -> Iterator[Difference]:
    there = {row.fact_id: row for row in stored}
    for row in wanted.facts:
        yield from _row(wanted, f"fact {row.fact_id!r}", there.pop(row.fact_id, None), row)
    for fact_id in there:
        yield Difference(wanted.name, f"fact {fact_id!r}", 0, "it is in Redis, but not in the primary store")
    if [row.fact_id for row in stored] != [row.fact_id for row in wanted.facts]:
        yield Difference(wanted.name, "session", wanted.session.updated_index, "the facts are in another order")


def _row(
    wanted: ShortTerm, subject: str, found: MessageRow | FactRow | None, row: MessageRow | FactRow
) -> Iterator[Difference]:
    if found is None:
        yield Difference(wanted.name, subject, row.log_index, "it is not in Redis")
    elif found != row:
        yield Difference(wanted.name, subject, row.log_index, f"stored {_differing(row._fields, found, row)} differs")


def _differing(fields: Sequence[str], one: Sequence[object], other: Sequence[object]) -> str:
    return ", ".join(field for field, a, b in zip(fields, one, other, strict=True) if a != b)
