"""Short-term and core memory as readers see it: out of Redis when it is current, else out of the primary store.

A reader waits for Redis once, for DEADLINE_S at most. Then nobody asks it again until the feed has found it to be well.
"""

import asyncio
from typing import Final, NamedTuple, Protocol

from engram.projections.redis_feed import RedisFeed
from engram.projections.redis_keys import SessionName
from engram.projections.redis_rows import (
    FORMAT,
    Header,
    Stored,
    UnreadableError,
    decode_facts,
    decode_header,
    decode_messages,
    decode_state,
    session_of,
)
from engram.projections.redis_store import RedisFailedError, RedisStore
from engram.projections.rows import FactRow, SessionRow
from engram.projections.sqlite_reads import Conversation

DEADLINE_S: Final = 0.05
"""A hundred times what an answer takes, and no more than a reader can bear to lose once."""


class Primary(Protocol):
    """The part of the primary store that answers when Redis cannot."""

    @property
    def applied_index(self) -> int:
        """Index of the last log entry that reads see."""

    async def conversation(self, session_id: str, tenant: str, limit: int) -> Conversation | None:
        """Return a session with its last `limit` messages and its facts; None when it is unknown."""

    async def scope(self, tenant: str, *, agent_id: str | None = None, user_id: str | None = None) -> list[SessionRow]:
        """Return every session of an agent or user."""


class _Incomplete(NamedTuple):
    """Redis has less of a session than it should, or nothing."""


class ShortTermMemory:
    """Answers as the primary store does, field by field."""

    def __init__(self, redis: RedisStore, feed: RedisFeed, primary: Primary, *, deadline_s: float = DEADLINE_S) -> None:
        self._redis = redis
        self._feed = feed
        self._primary = primary
        self._deadline_s = deadline_s

    @property
    def applied_index(self) -> int:
        """Index of the last log entry that reads see."""
        return self._primary.applied_index

    async def scope(self, tenant: str, *, agent_id: str | None = None, user_id: str | None = None) -> list[SessionRow]:
        """Return every session of an agent or user."""
        return await self._primary.scope(tenant, agent_id=agent_id, user_id=user_id)

    async def core(self, session_id: str, tenant: str) -> list[FactRow] | None:
        """Return the pinned facts in order of pinning; None when the session is unknown."""
        known = await self.conversation(session_id, tenant, 0)
        return None if known is None else known.facts

    async def conversation(self, session_id: str, tenant: str, limit: int) -> Conversation | None:
        """Return a session with its last `limit` messages and its facts; None when it is unknown."""
        name = SessionName(tenant, session_id)
        found = await self._ask(name, limit)
        if isinstance(found, Conversation):
            return found
        known = await self._primary.conversation(session_id, tenant, limit)
        if known is not None and isinstance(found, _Incomplete):
            self._feed.repair(name)
        return known

    async def _ask(self, name: SessionName, limit: int) -> Conversation | _Incomplete | None:
        """Return what Redis says; None when it is not to be asked, or its answer cannot be used."""
        since = self._feed.trusted(name)
        if since is None:
            return None
        try:
            async with asyncio.timeout(self._deadline_s):
                stored = await self._redis.read(name, limit)
        except (RedisFailedError, TimeoutError) as error:
            self._feed.suspect("read", str(error) or f"no answer within {self._deadline_s:g} s")
            return None
        if not self._feed.is_trusted(decode_state(stored.state), since):
            self._feed.suspect("read", "the state of Redis is not the one that was written last")
            return None
        return _conversation(stored, name, limit)


def _conversation(stored: Stored, name: SessionName, limit: int) -> Conversation | _Incomplete | None:
    header = decode_header(stored.header)
    if header is None or header.format != FORMAT or (header.tenant, header.session_id) != name:
        return _Incomplete()
    if min(limit, header.message_count) > header.messages:
        return None  # more than is kept there
    if len(stored.messages) != min(limit, header.messages) or len(stored.core) != header.facts:
        return _Incomplete()
    return _decoded(header, stored)


def _decoded(header: Header, stored: Stored) -> Conversation | _Incomplete:
    try:
        return Conversation(session_of(header), decode_messages(stored.messages), decode_facts(stored.core))
    except UnreadableError:
        return _Incomplete()
