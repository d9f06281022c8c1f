"""Bringing a key space up to what the primary store holds, whatever is there: in steps, each of bounded size.

First every session of the primary store is compared by its stamp with what Redis has under its name, and written if
that differs. Then every key of the key space is looked at, and removed where no session has its name. A session that
changes meanwhile is among the changes, which are written beside this.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeVar

from engram.database import Connection
from engram.projections.redis_keys import SessionName
from engram.projections.redis_rows import FORMAT, ShortTerm, decode_header, encode_facts, encode_header, encode_message
from engram.projections.redis_source import ROWS_MAX, Known, Stamp, Wanted, missing, short_terms, stamps
from engram.projections.redis_store import Probe, Put, RedisStore

STAMPS: Final = 200
"""Sessions compared in one step."""

Answer = TypeVar("Answer")


class Source(Protocol):
    """The part of the primary store that Redis is fed from."""

    @property
    def applied_index(self) -> int:
        """Index of the last log entry that reads see."""

    async def ask(self, question: Callable[[Connection], Answer]) -> Answer:
        """Return the answer to a question, in one hop into the thread of the reading connection."""


class Written(NamedTuple):
    """What is to be written of some sessions."""

    puts: Sequence[Put]
    removals: Sequence[SessionName]
    known: dict[SessionName, Known]
    """What Redis knows afterwards of the sessions that can be added to."""

    @property
    def names(self) -> list[SessionName]:
        """The sessions that it is about."""
        return [*(put.name for put in self.puts), *self.removals]


Write = Callable[[Written, bool], Awaitable[None]]
"""Writes it in one transaction; told whether something may be taken out that the server's files still hold."""


async def read(
    source: Source,
    names: Sequence[SessionName],
    known: dict[SessionName, Known],
    *,
    window: int,
    store: str,
    rows_max: int = ROWS_MAX,
) -> Written:
    """Return what is to be written for the first of `names`, as many as fit into a step; one at least."""
    wanted = [Wanted(name, known.get(name)) for name in names]
    found = await source.ask(partial(short_terms, wanted=wanted, window=window, rows_max=rows_max))
    puts: list[Put] = []
    learnt: dict[SessionName, Known] = {}
    for name, short_term, is_whole in found:
        if short_term is None:
            continue
        after = _known(short_term, None if is_whole else known[name], window)
        puts.append(
            Put(
                name=name,
                header=encode_header(
                    short_term.session, store, window=window, messages=after.messages, facts=len(short_term.facts)
                ),
                messages=list(map(encode_message, short_term.recent)),
                is_whole=is_whole,
                core=encode_facts(short_term.facts),
            )
        )
        if not (short_term.session.pending_embeddings or short_term.session.abandoned_embeddings):
            learnt[name] = after  # else the messages that are there will change when their vectors come
    return Written(puts, [each.name for each in found if each.short_term is None], learnt)


def _known(short_term: ShortTerm, before: Known | None, window: int) -> Known:
    """Return what Redis knows of a session with `short_term` written, behind what it knew before or alone."""
    session, recent = short_term.session, short_term.recent
    messages = len(recent) + (0 if before is None else before.messages)
    characters = sum(len(message.text) for message in recent) + (0 if before is None else before.characters)
    return Known(session.session_key, session.next_ordinal, session.deletions, min(window, messages), characters)


class Filling:
    """One pass through everything. Its steps are called one after the other until it is done."""

    def __init__(
        self, source: Source, redis: RedisStore, *, store: str, write: Write, rows_max: int = ROWS_MAX
    ) -> None:
        self._source = source
        self._redis = redis
        self._store = store
        self._write = write
        self._rows_max = rows_max
        self._after = 0
        self._cursor: int | None = None
        """Where SCAN is; None while sessions are compared."""
        self.compared = 0
        """Sessions of the primary store so far."""
        self.messages = 0
        """Messages written so far."""
        self.is_done = False

    async def step(self) -> None:
        """Do the next part of it."""
        if self._cursor is None:
            await self._compare()
        else:
            await self._sweep(self._cursor)

    async def _compare(self) -> None:
        page = await self._source.ask(partial(stamps, after=self._after, limit=STAMPS))
        if not page:
            self._cursor = 0
            return
        probes = await self._redis.probe([stamp.name for stamp in page])
        await self._bring(
            [
                (stamp.name, probe.header is not None or bool(probe.messages or probe.facts))
                for stamp, probe in zip(page, probes, strict=True)
                if not is_current(stamp, probe, self._store, self._redis.window)
            ]
        )
        self._after = page[-1].session_key
        self.compared += len(page)

    async def _bring(self, differing: Sequence[tuple[SessionName, bool]]) -> None:
        replaced = {name for name, is_there in differing if is_there}
        names = [name for name, _ in differing]
        while names:
            written = await read(
                self._source, names, {}, window=self._redis.window, store=self._store, rows_max=self._rows_max
            )
            await self._write(written, not replaced.isdisjoint(written.names))
            done = set(written.names)
            names = [name for name in names if name not in done]
            self.messages += sum(len(put.messages) for put in written.puts)

    async def _sweep(self, cursor: int) -> None:
        scanned = await self._redis.scan(cursor)
        gone = await self._source.ask(partial(missing, names=list(scanned.names))) if scanned.names else []
        if gone:
            await self._write(Written((), gone, {}), True)  # noqa: FBT003  a callable has no names
        if scanned.strays:
            await self._redis.remove_strays(scanned.strays)
        self._cursor = scanned.cursor
        self.is_done = scanned.cursor == 0


async def clear(redis: RedisStore) -> None:
    """Remove every key of the key space, the state first: whoever trusted it does no more.

    Raises:
        RedisFailedError: Redis failed.
    """
    await redis.remove_strays([redis.keys.state.encode()])
    cursor = 0
    while True:
        scanned = await redis.scan(cursor)
        keys = [key.encode() for name in scanned.names for key in redis.keys.of(name)]
        if keys or scanned.strays:
            await redis.remove_strays([*keys, *scanned.strays])
        cursor = scanned.cursor
        if cursor == 0:
            return


def is_current(stamp: Stamp, probe: Probe, store: str, window: int) -> bool:
    """Return whether what is there of a session is what the primary store holds."""
    header = decode_header(probe.header)
    return (
        header is not None
        and header.format == FORMAT
        and header.store == store
        and (header.session_key, header.updated_index, header.updated_at_ms)
        == (stamp.session_key, stamp.updated_index, stamp.updated_at_ms)
        and header.window == window
        and header.messages == probe.messages
        and header.facts == stamp.fact_count == probe.facts
    )
