"""What short-term and core memory promise, wherever they are kept: the same events in, the same reads out."""

import asyncio
from typing import Protocol

from engram.events import TENANT_DEFAULT, Event, VisibilityChanged, WorkAbandoned
from engram.projections.rows import FactRow
from engram.projections.sqlite_reads import Conversation
from tests.projections.histories import created, deleted, embedded, ended, pinned, said, unpinned


class ShortTerm(Protocol):
    """A store, with the log that it is fed from in front of it."""

    async def write(self, *events: Event) -> None:
        """Let one entry of `events` be applied; reads see it when this returns."""

    async def conversation(self, session_id: str, tenant: str, limit: int) -> Conversation | None:
        """Return a session with its last `limit` messages and its facts; None when it is unknown."""

    async def core(self, session_id: str, tenant: str) -> list[FactRow] | None:
        """Return the pinned facts in order of pinning; None when the session is unknown."""


class ShortTermContract:
    """Tests of a `ShortTerm`; a class that inherits it says which, with a fixture `memory`."""

    async def ids(self, memory: ShortTerm, session_id: str = "s", limit: int = 20) -> list[str]:
        known = await memory.conversation(session_id, TENANT_DEFAULT, limit)
        return [] if known is None else [message.message_id for message in known.recent]

    async def facts(self, memory: ShortTerm, session_id: str = "s") -> list[str]:
        return [fact.fact_id for fact in await memory.core(session_id, TENANT_DEFAULT) or ()]

    async def test_what_nobody_wrote_is_unknown(self, memory: ShortTerm) -> None:
        assert await memory.conversation("s", TENANT_DEFAULT, 5) is None
        assert await memory.core("s", TENANT_DEFAULT) is None

    async def test_a_session_can_be_empty(self, memory: ShortTerm) -> None:
        await memory.write(created(agent_id="a", user_id="u"))
        known = await memory.conversation("s", TENANT_DEFAULT, 5)

        assert known is not None
        assert (known.session.agent_id, known.session.user_id, known.session.session_key) == ("a", "u", 1)
        assert (list(known.recent), list(known.facts)) == ([], [])
        assert await memory.core("s", TENANT_DEFAULT) == []

    async def test_messages_come_oldest_first_and_the_latest_of_them(self, memory: ShortTerm) -> None:
        for number in range(7):
            await memory.write(said(f"m{number}", f"text {number}"))

        assert await self.ids(memory, limit=3) == ["m4", "m5", "m6"]
        assert await self.ids(memory, limit=7) == [f"m{number}" for number in range(7)]
        assert await self.ids(memory, limit=0) == []

    async def test_a_message_is_told_in_every_field(self, memory: ShortTerm) -> None:
        await memory.write(said("m1", "Grüße\n\x7f\N{GRINNING FACE}", role="assistant", at_ms=9), embedded("m1"))
        known = await memory.conversation("s", TENANT_DEFAULT, 5)

        assert known is not None
        (message,) = known.recent
        assert (message.text, message.role, message.at_ms, message.log_index, message.embedding) == (
            "Grüße\n\x7f\N{GRINNING FACE}",
            "assistant",
            9,
            1,
            "done",
        )

    async def test_where_an_embedding_stands_is_told(self, memory: ShortTerm) -> None:
        await memory.write(said("m1"))
        await memory.write(said("m2"))
        await memory.write(embedded("m1", 1))
        await memory.write(
            WorkAbandoned(session_id="s", at_ms=2, work="embedding", message_id="m2", error="no", attempts=1)
        )
        known = await memory.conversation("s", TENANT_DEFAULT, 5)

        assert known is not None
        assert [message.embedding for message in known.recent] == ["done", "abandoned"]
        assert (known.session.pending_embeddings, known.session.abandoned_embeddings) == (0, 1)

    async def test_facts_come_in_the_order_of_pinning(self, memory: ShortTerm) -> None:
        for fact_id in ("f3", "f1", "f2"):
            await memory.write(pinned(fact_id, f"text of {fact_id}"))
        await memory.write(unpinned("f1"))
        await memory.write(pinned("f1", "text of f1"))

        assert await self.facts(memory) == ["f3", "f2", "f1"]

    async def test_the_same_fact_again_changes_nothing(self, memory: ShortTerm) -> None:
        await memory.write(pinned("f1", "the same"))
        await memory.write(pinned("f2", "the same"))

        assert await self.facts(memory) == ["f1"]

    async def test_the_same_message_again_changes_nothing(self, memory: ShortTerm) -> None:
        await memory.write(said("m1", "one"))
        before = await memory.conversation("s", TENANT_DEFAULT, 5)
        await memory.write(said("m1", "one"))
        await memory.write(said("m1", "another"))

        assert await memory.conversation("s", TENANT_DEFAULT, 5) == before

    async def test_a_deleted_message_is_gone(self, memory: ShortTerm) -> None:
        for number in range(4):
            await memory.write(said(f"m{number}"))
        await memory.write(deleted("m1"))

        assert await self.ids(memory) == ["m0", "m2", "m3"]
        assert await self.ids(memory, limit=2) == ["m2", "m3"]

    async def test_the_visibility_is_told(self, memory: ShortTerm) -> None:
        await memory.write(said("m1"))
        await memory.write(VisibilityChanged(session_id="s", at_ms=2, visibility="shared"))
        known = await memory.conversation("s", TENANT_DEFAULT, 5)

        assert known is not None
        assert known.session.visibility == "shared"

    async def test_what_is_older_does_not_take_the_last_change_back(self, memory: ShortTerm) -> None:
        await memory.write(said("m1", at_ms=50))
        await memory.write(said("m2", at_ms=9))
        known = await memory.conversation("s", TENANT_DEFAULT, 5)

        assert known is not None
        assert (known.session.updated_at_ms, known.session.updated_index) == (50, 2)
        assert [message.at_ms for message in known.recent] == [50, 9]

    async def test_a_session_that_ended_is_unknown(self, memory: ShortTerm) -> None:
        await memory.write(said("m1"), pinned("f1"))
        await memory.write(ended())

        assert await memory.conversation("s", TENANT_DEFAULT, 5) is None
        assert await memory.core("s", TENANT_DEFAULT) is None

    async def test_a_session_that_begins_again_has_nothing_of_its_earlier_life(self, memory: ShortTerm) -> None:
        await memory.write(said("m1"), pinned("f1"))
        await memory.write(ended())
        await memory.write(said("m2"))
        known = await memory.conversation("s", TENANT_DEFAULT, 5)

        assert known is not None
        assert known.session.session_key == 3
        assert [message.message_id for message in known.recent] == ["m2"]
        assert list(known.facts) == []

    async def test_sessions_are_apart_whatever_they_are_called(self, memory: ShortTerm) -> None:
        names = ["a", "a:b", "a%3Ab", "a:messages", "%", ":", "*", "a b", "é", "{a}"]
        for name in names:
            await memory.write(said(f"of {name}", session_id=name))

        assert [await self.ids(memory, name) for name in names] == [[f"of {name}"] for name in names]

    async def test_readers_at_the_same_time_are_told_the_same(self, memory: ShortTerm) -> None:
        for number in range(5):
            await memory.write(said(f"m{number}"))

        told = await asyncio.gather(*(self.ids(memory) for _ in range(50)))

        assert told == [[f"m{number}" for number in range(5)]] * 50
