"""The real primary store, fed by a log that keeps nothing: what is recorded is applied at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from engram.commands import MessageDraft, Vectors, append_messages, pin_fact
from engram.events import Event, Role, encode
from engram.inference.tokens import TokenCounter
from engram.projections.sqlite_store import PrimaryStore
from engram.recorder import Receipt

AT_MS = 1_777_636_800_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A committed entry."""

    index: int
    data: bytes
    term: int = 1
    kind: int = 0


class AtOnce:
    """A recorder of one node without a disk."""

    def __init__(self, store: PrimaryStore, tokens: TokenCounter) -> None:
        self._store = store
        self._tokens = tokens

    def stamp_ms(self) -> int:
        return AT_MS

    async def record(self, events: Sequence[Event]) -> Receipt:
        index = self._store.applied_index + 1
        (verdicts,) = await self._store.apply([Entry(index, encode(events))])
        return Receipt(index, verdicts)

    async def say(
        self,
        message_id: str,
        text: str,
        role: Role = "user",
        *,
        session_id: str = "s1",
        vectors: Vectors | None = None,
    ) -> Receipt:
        draft = MessageDraft(message_id, role, text, None, None, {}, self._tokens.count(text))
        return await self.record(append_messages(session_id=session_id, drafts=[draft], vectors=[vectors], at_ms=AT_MS))

    async def pin(self, fact_id: str, text: str) -> Receipt:
        return await self.record(
            pin_fact(session_id="s1", fact_id=fact_id, text=text, tokens=self._tokens.count(text), at_ms=AT_MS)
        )
