"""Messages in memory, with the read models and the recorder that the workers see, and clocks and naps for them."""

import asyncio
from collections.abc import Callable, Sequence

from engram.errors import UnavailableError
from engram.events import TENANT_DEFAULT, Event, MessageEmbedded, WorkAbandoned
from engram.projections.lance_rows import Space
from engram.projections.rows import PendingEmbedding
from engram.projections.sqlite_census import Others
from engram.projections.verdicts import Outcome, Verdict
from engram.recorder import Receipt

AT_MS = 1_777_636_800_000


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now_ms(self) -> int:
        return AT_MS

    def monotonic_s(self) -> float:
        return self.now_s


class Naps:
    """A sleep that takes notes, and lets others run instead."""

    def __init__(self, nap: Callable[[], None] = lambda: None) -> None:
        self.taken_s: list[float] = []
        self._nap = nap

    async def __call__(self, seconds: float) -> None:
        self.taken_s.append(seconds)
        self._nap()
        await asyncio.sleep(0)


class Notes:
    """An observer that takes notes."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float]] = []
        self.given_up: list[str] = []

    def embedded(self, model: str, seconds: float) -> None:
        self.calls.append((model, seconds))

    def abandoned(self, work: str) -> None:
        self.given_up.append(work)


def page(messages: Sequence[PendingEmbedding], after: int, limit: int) -> list[PendingEmbedding]:
    """Return the first messages behind `after`, to the end of an entry."""
    behind = [message for message in messages if message.log_index > after]
    last = behind[limit - 1].log_index if len(behind) > limit else None
    return [message for message in behind if last is None or message.log_index <= last]


class Memory:
    """A log of one node, and what its projections make of it."""

    def __init__(self, texts: Sequence[str] = (), *, entry_messages: int = 1, sessions: int = 1) -> None:
        self.messages: list[PendingEmbedding] = []
        self.vectors: dict[str, MessageEmbedded] = {}
        self.abandoned: dict[str, WorkAbandoned] = {}
        self.entries: list[Sequence[Event]] = []
        self.away: UnavailableError | None = None
        self.changed = asyncio.Event()
        self.looks = 0
        self.looked = asyncio.Event()
        for place, text in enumerate(texts):
            self.append(text, session_id=f"s{place % sessions}", log_index=1 + place // entry_messages)

    def append(self, text: str, *, session_id: str = "s0", log_index: int | None = None) -> None:
        place = len(self.messages)
        index = place + 1 if log_index is None else log_index
        self.messages.append(PendingEmbedding(TENANT_DEFAULT, session_id, f"m{place}", index, text))

    def waiting(self) -> list[PendingEmbedding]:
        return [
            message
            for message in self.messages
            if message.message_id not in self.vectors and message.message_id not in self.abandoned
        ]

    async def pending_embeddings(self, *, after: int, limit: int) -> list[PendingEmbedding]:
        self.looks += 1
        self.looked.set()
        return page(self.waiting(), after, limit)

    async def abandoned_embeddings(self, *, after: int, limit: int) -> list[PendingEmbedding]:
        given_up = [message for message in self.messages if message.message_id in self.abandoned]
        return page([message for message in given_up if message.message_id not in self.vectors], after, limit)

    async def embedded_otherwise(self, space: Space, *, after: int, limit: int) -> Others:
        stretch = self.messages[after : after + limit]
        embedded = [message for message in stretch if message.message_id in self.vectors]
        return Others(
            [message for message in embedded if self._space(message.message_id) != space],
            after + limit if len(stretch) == limit else None,
        )

    def _space(self, message_id: str) -> Space:
        event = self.vectors[message_id]
        return Space(event.model, event.dimension)

    def stamp_ms(self) -> int:
        return AT_MS

    async def record(self, events: Sequence[Event]) -> Receipt:
        await asyncio.sleep(0)
        if self.away is not None:
            raise self.away
        self.entries.append(events)
        verdicts = [Verdict(self._fold(event), len(self.entries)) for event in events]
        if not self.waiting():
            self.changed.set()
        return Receipt(len(self.entries), verdicts)

    def _fold(self, event: Event) -> Outcome:
        assert isinstance(event, MessageEmbedded | WorkAbandoned), "workers say nothing else"
        if not any(message.message_id == event.message_id for message in self.messages):
            return Outcome.UNKNOWN
        if isinstance(event, MessageEmbedded):
            self.vectors[event.message_id] = event
        else:
            self.abandoned[event.message_id] = event
        return Outcome.ACCEPTED
