"""What a text needs before it is recorded: its tokens counted, and its vector where the model runs in this process."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from engram.clock import Clock
from engram.commands import Vectors
from engram.events import Chunk
from engram.inference.embedder import LocalEmbedder
from engram.metrics import Metrics

INLINE_CHARACTERS_MAX = 16 * 1024
"""Up to here the work is shorter than a few hops to a thread; beyond, it would hold up every other request."""


class Counts(Protocol):
    """The token counter."""

    def count(self, text: str) -> int:
        """Return the cl100k_base tokens of `text`."""

    def count_all(self, texts: Sequence[str]) -> list[int]:
        """Return the cl100k_base tokens of each of `texts`."""


class Prepared(NamedTuple):
    """In the order of the texts."""

    tokens: Sequence[int]
    vectors: Sequence[Vectors | None]


class _Waiting(NamedTuple):
    texts: Sequence[str]
    done: asyncio.Future[Prepared]


class Ingest:
    """Prepares texts, those of requests that come in at the same moment together.

    Acknowledgements go out in groups, and so the next requests come in as one: a call of the model for all of them
    costs hardly more than a call for one (104 -> 35 us a message from 64 clients, measured).
    """

    def __init__(self, *, embedder: LocalEmbedder | None, tokens: Counts, clock: Clock, metrics: Metrics) -> None:
        """`embedder` None: vectors come later, from a worker."""
        self._embedder = embedder
        self._tokens = tokens
        self._clock = clock
        self._metrics = metrics
        self._waiting: list[_Waiting] = []
        self._waiting_characters = 0

    def use(self, embedder: LocalEmbedder | None) -> None:
        """Make vectors by `embedder` from now on; None: they come later, from a worker."""
        self._embedder = embedder

    async def prepare(self, texts: Sequence[str]) -> Prepared:
        """Return what `texts` need; long ones are worked on in a thread."""
        characters = sum(map(len, texts))
        if characters > INLINE_CHARACTERS_MAX:
            return await asyncio.to_thread(self._prepare, texts)
        if self._waiting_characters + characters > INLINE_CHARACTERS_MAX:
            self._prepare_waiting()
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._prepare_waiting)  # behind the requests that the loop has read already
        waiting = _Waiting(texts, loop.create_future())
        self._waiting.append(waiting)
        self._waiting_characters += characters
        return await waiting.done

    async def count_tokens(self, text: str) -> int:
        """Return the tokens of `text`."""
        if len(text) <= INLINE_CHARACTERS_MAX:
            return self._tokens.count(text)
        return await asyncio.to_thread(self._tokens.count, text)

    def _prepare_waiting(self) -> None:
        group, self._waiting, self._waiting_characters = self._waiting, [], 0
        if not group:  # the group was full before its turn
            return
        try:
            prepared = self._prepare([text for waiting in group for text in waiting.texts])
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            for waiting in group:
                if not waiting.done.done():
                    waiting.done.set_exception(error)
            return
        start = 0
        for waiting in group:
            part = slice(start, start + len(waiting.texts))
            start = part.stop
            if not waiting.done.done():  # its client may have gone
                waiting.done.set_result(Prepared(prepared.tokens[part], prepared.vectors[part]))

    def _prepare(self, texts: Sequence[str]) -> Prepared:
        tokens = self._tokens.count_all(texts)
        embedder = self._embedder
        if embedder is None:
            return Prepared(tokens, [None] * len(texts))
        started_s = self._clock.monotonic_s()
        rows = embedder.embed(texts).astype("<f2")
        self._metrics.embedded(embedder.model, self._clock.monotonic_s() - started_s)
        return Prepared(
            tokens,
            [
                Vectors(embedder.model, embedder.dimension, [Chunk(start=0, end=len(text), vector=row.tobytes())])
                for text, row in zip(texts, rows, strict=True)
            ],
        )
