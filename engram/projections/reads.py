"""What readers ask the primary store: every question is one hop into the thread of its read-only connection."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from engram.database import Connection, Database
from engram.events import TENANT_DEFAULT
from engram.projections import effects, sqlite_census, sqlite_reads
from engram.projections.lance_rows import Space
from engram.projections.ledger import Decoded
from engram.projections.retention import Standing
from engram.projections.rows import (
    FactRow,
    LabelRow,
    MessageRow,
    PendingEmbedding,
    RecallBlob,
    RecallDelta,
    SessionRow,
)
from engram.projections.sqlite_census import Counted, Others
from engram.projections.sqlite_reads import Conversation, Counts, EmbeddedRow
from engram.projections.sqlite_standing import standing

EVERY: int = -1
"""A limit that is none."""

Answer = TypeVar("Answer")


class PrimaryReads:
    """The reads of the primary store. They see every entry whose verdicts have been given."""

    def __init__(self, reader: Database) -> None:
        self._reader = reader

    async def ask(self, question: Callable[[Connection], Answer]) -> Answer:
        """Return the answer to a question of another module, which changes nothing."""
        return await self._reader.run(question)

    async def session(self, session_id: str, tenant: str = TENANT_DEFAULT) -> SessionRow | None:
        """Return a session; None when it is unknown."""
        return await self._reader.run(partial(sqlite_reads.session, tenant=tenant, session_id=session_id))

    async def sessions(
        self,
        *,
        tenant: str = TENANT_DEFAULT,
        agent_id: str | None = None,
        user_id: str | None = None,
        after: int | None = None,
        limit: int,
    ) -> list[SessionRow]:
        """Return sessions in order of their making, from behind the session key `after`."""
        return await self._reader.run(
            partial(sqlite_reads.sessions, tenant=tenant, agent_id=agent_id, user_id=user_id, after=after, limit=limit)
        )

    async def scope(self, tenant: str, *, agent_id: str | None = None, user_id: str | None = None) -> list[SessionRow]:
        """Return every session of an agent or user, in order of their making."""
        return await self._reader.run(
            partial(sqlite_reads.sessions, tenant=tenant, agent_id=agent_id, user_id=user_id, after=None, limit=EVERY)
        )

    async def messages(
        self, session_key: int, *, after: int | None = None, limit: int, descending: bool = False
    ) -> list[MessageRow]:
        """Return messages by ordinal, from behind the ordinal `after`."""
        return await self._reader.run(
            partial(sqlite_reads.messages, session_key=session_key, after=after, limit=limit, descending=descending)
        )

    async def message(self, session_key: int, message_id: str) -> MessageRow | None:
        """Return a message; None when it is unknown or deleted."""
        return await self._reader.run(partial(sqlite_reads.message, session_key=session_key, message_id=message_id))

    async def messages_at(self, wanted: Sequence[tuple[int, int]]) -> list[MessageRow]:
        """Return messages by (session key, ordinal), in the order of `wanted`; missing ones are left out."""
        return await self._reader.run(partial(sqlite_reads.messages_at, wanted=wanted))

    async def labels(self, session_key: int, *, first: int, limit: int) -> list[LabelRow]:
        """Return the labels of messages with ordinals from `first` on, in their order."""
        return await self._reader.run(partial(sqlite_reads.labels, session_key=session_key, first=first, limit=limit))

    async def facts(self, session_key: int) -> list[FactRow]:
        """Return the pinned facts in order of pinning."""
        return await self._reader.run(partial(sqlite_reads.facts, session_key=session_key))

    async def conversation(self, session_id: str, tenant: str = TENANT_DEFAULT, limit: int = 20) -> Conversation | None:
        """Return a session with its last `limit` messages and its facts; None when it is unknown."""
        return await self._reader.run(
            partial(sqlite_reads.conversation, tenant=tenant, session_id=session_id, limit=limit)
        )

    async def core(self, session_id: str, tenant: str = TENANT_DEFAULT) -> list[FactRow] | None:
        """Return the pinned facts in order of pinning; None when the session is unknown."""
        known = await self.conversation(session_id, tenant, 0)
        return None if known is None else known.facts

    async def timeline(self, session_key: int, *, after: int = 0, limit: int) -> list[int]:
        """Return the log indexes of the entries that had an effect on a session, from behind `after`."""
        return await self._reader.run(partial(sqlite_reads.timeline, session_key=session_key, after=after, limit=limit))

    async def named(self, session_key: int, *, after: int = 0, limit: int) -> list[int]:
        """Return the log indexes of the entries that are about a session, whether they had an effect or not."""
        return await self._reader.run(partial(effects.named, session_key=session_key, after=after, limit=limit))

    async def effective(self, entries: Sequence[Decoded]) -> list[list[bool]]:
        """Return for each event of each entry whether it counts; see `effects`."""
        return await self._reader.run(partial(effects.effective, entries=entries))

    async def standing(self, entries: Sequence[Decoded]) -> Standing:
        """Return what has become of entries, all of which must have been folded."""
        return await self._reader.run(partial(standing, entries=entries))

    async def recall_delta(self, session_key: int, *, next_ordinal: int, vectors_index: int) -> RecallDelta:
        """Return messages from `next_ordinal` on, and vectors given at log indexes above `vectors_index`."""
        return await self._reader.run(
            partial(
                sqlite_reads.recall_delta,
                session_key=session_key,
                next_ordinal=next_ordinal,
                vectors_index=vectors_index,
            )
        )

    async def recall_blob(self, session_key: int) -> RecallBlob | None:
        """Return a session's sealed recall index; None when there is none."""
        return await self._reader.run(partial(sqlite_reads.recall_blob, session_key=session_key))

    async def unsealed(self, min_rows: int, limit: int) -> list[SessionRow]:
        """Return the sessions with the most messages beyond their sealed index; `min_rows` is 256 at least."""
        return await self._reader.run(partial(sqlite_reads.unsealed, min_rows=min_rows, limit=limit))

    async def pending_embeddings(self, *, after: int = 0, limit: int) -> list[PendingEmbedding]:
        """Return messages that wait for vectors, from behind the log index `after`.

        An entry is never cut, so that the last row's log index is the next `after`: there may be more rows than
        `limit` by what is left of the last entry.
        """
        return await self._reader.run(partial(sqlite_reads.waiting, status="pending", after=after, limit=limit))

    async def abandoned_embeddings(self, *, after: int = 0, limit: int) -> list[PendingEmbedding]:
        """Return messages whose embedding was given up; paged as `pending_embeddings` is."""
        return await self._reader.run(partial(sqlite_reads.waiting, status="abandoned", after=after, limit=limit))

    async def embedded_otherwise(self, space: Space, *, after: int, limit: int) -> Others:
        """Return which of the next `limit` messages behind the slot `after` have vectors, but not of `space`."""
        return await self._reader.run(partial(sqlite_census.others, space=space, after=after, limit=limit))

    async def census(self, *, after: int, limit: int) -> Counted:
        """Count whose vectors the next `limit` messages behind the slot `after` have."""
        return await self._reader.run(partial(sqlite_census.count, after=after, limit=limit))

    async def embedded_after(self, cursor: int, limit: int) -> list[EmbeddedRow]:
        """Return chunks whose vectors were given behind the log index `cursor`; paged as `pending_embeddings` is."""
        return await self._reader.run(partial(sqlite_reads.embedded_after, cursor=cursor, limit=limit))

    async def embedding_space(self) -> Space | None:
        """Return whose the newest vectors are; None when there are none."""
        return await self._reader.run(sqlite_reads.embedding_space)

    async def counts(self) -> Counts:
        """Return how much there is of everything."""
        return await self._reader.run(sqlite_reads.counts)
