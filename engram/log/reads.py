"""Linearizable reads: who waits to be told how far to apply, and what was asked of the leader for them.

Reads that arrive while the core is busy share one question (raft.md, ReadIndex), so that their number does not matter.
"""

import asyncio
from collections.abc import Callable
from itertools import count

from engram.log.consensus.types import ReadState

QUESTION_BYTES = 16


class ReadQuestions:
    """Questions under way. `prefix` tells those of this start of this node from all others."""

    def __init__(self, prefix: bytes) -> None:
        assert len(prefix) == QUESTION_BYTES - 8
        self._prefix = prefix
        self._numbers = count(1)
        self._waiting: list[asyncio.Future[int]] = []
        self._asked: dict[bytes, list[asyncio.Future[int]]] = {}

    def wait(self) -> asyncio.Future[int]:
        """Return a future of the index; cancelled by whoever has waited long enough."""
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        return waiter

    def ask(self, question: Callable[[bytes], None]) -> None:
        """Ask once for all who wait."""
        if not self._waiting:
            return
        self._drop_given_up()
        context = self._prefix + next(self._numbers).to_bytes(8)
        self._asked[context], self._waiting = self._waiting, []
        question(context)

    def answer(self, state: ReadState) -> None:
        """Tell those who asked."""
        for waiter in self._asked.pop(state.context, ()):
            if not waiter.done():
                waiter.set_result(state.index)

    def fail(self, error: Exception) -> None:
        """Tell everyone that there will be no answer."""
        for waiter in [*self._waiting, *(waiter for waiters in self._asked.values() for waiter in waiters)]:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiting.clear()
        self._asked.clear()

    def _drop_given_up(self) -> None:
        for context in [context for context, waiters in self._asked.items() if all(one.done() for one in waiters)]:
            del self._asked[context]
