"""Recording events: encode, propose, and wait for the ledger's verdict. The only way to write."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from engram.clock import Clock
from engram.errors import EngramError, HandingOverError, TimedOutError
from engram.events import Event, encode
from engram.log.position import Position
from engram.projections.verdicts import Verdict

HANDOVER_S = 1.0
"""How long a write waits for the node that leadership is handed to, before it is told that there is no leader."""


class Log(Protocol):
    """The part of the replicated log that the recorder uses."""

    def propose(self, data: bytes) -> Position:
        """Append `data` on the leader, not durable yet.

        Raises:
            NoLeaderError: No leader is known.
            NotLeaderError: Another node leads.
            HandingOverError: This node is about to lead no more.
            OverloadedError: Too many bytes wait to be committed.
        """

    async def wait_handed_over(self, timeout_s: float) -> None:
        """Return when it is known who leads after a handover, or `timeout_s` later."""


class Verdicts(Protocol):
    """The part of the projector that the recorder uses."""

    def expect(self, log_index: int, term: int) -> asyncio.Future[Sequence[Verdict]]:
        """Return a future of the verdicts, one for each event of the entry proposed at that position.

        It fails with NoLeaderError when an entry of another term took that place: nothing was written.
        """


class Receipt(NamedTuple):
    """The entry that an acknowledged write went into, and the ledger's word on each of its events."""

    log_index: int
    verdicts: Sequence[Verdict]


class Recorded(NamedTuple):
    """The receipts of entries that were recorded in order, up to the first that failed, and why it did."""

    receipts: Sequence[Receipt]
    error: EngramError | None


class _Expected(NamedTuple):
    position: Position
    verdicts: asyncio.Future[Sequence[Verdict]]


class Recorder:
    """Makes events durable on a majority and visible to reads on this node.

    `last_at_ms` says the latest stamp that was folded: after a start, it grows until the log is folded.
    """

    def __init__(
        self, log: Log, verdicts: Verdicts, clock: Clock, *, last_at_ms: Callable[[], int], timeout_s: float
    ) -> None:
        self._log = log
        self._verdicts = verdicts
        self._clock = clock
        self._folded_at_ms = last_at_ms
        self._last_at_ms = 0
        self._timeout_s = timeout_s

    def stamp_ms(self) -> int:
        """Return the time for new events: the clock's, but never before an earlier stamp."""
        self._last_at_ms = max(self._clock.now_ms(), self._last_at_ms, self._folded_at_ms())
        return self._last_at_ms

    async def record(self, events: Sequence[Event]) -> Receipt:
        """Record `events`, all of one session, as one atomic entry.

        Raises:
            NoLeaderError, NotLeaderError, OverloadedError: Nothing was written.
            TimedOutError: The outcome is unknown; retry with the same ids.
        """
        position, waiting = self._expect(await self._propose(encode(events)))
        return Receipt(position.log_index, await waiting)

    async def record_in_order(self, entries: Sequence[Sequence[Event]]) -> Recorded:
        """Record `entries`, each atomic, so that none counts unless those before it do; they share flushes.

        What goes wrong is in the answer: what was recorded before that stays.
        """
        expected: list[_Expected] = []
        stopped: EngramError | None = None
        for events in entries:
            try:
                expected.append(self._expect(await self._propose(encode(events))))
            except EngramError as error:
                stopped = error
                break
        receipts: list[Receipt] = []
        outcomes = await asyncio.gather(*(waiting for _, waiting in expected), return_exceptions=True)
        for (position, _), outcome in zip(expected, outcomes, strict=True):
            if isinstance(outcome, EngramError):
                return Recorded(receipts, outcome)
            if isinstance(outcome, BaseException):
                raise outcome
            receipts.append(Receipt(position.log_index, outcome))
        return Recorded(receipts, stopped)

    def _expect(self, position: Position) -> _Expected:
        """Return a future of the verdicts; in the same step of the loop as the proposal, or they might be missed."""
        waiting = self._verdicts.expect(position.log_index, position.term)
        # A timer of its own: asyncio.timeout costs as much as the proposal.
        deadline = asyncio.get_running_loop().call_later(self._timeout_s, self._give_up, waiting, position.log_index)
        waiting.add_done_callback(lambda _: deadline.cancel())
        return _Expected(position, waiting)

    def _give_up(self, waiting: asyncio.Future[Sequence[Verdict]], log_index: int) -> None:
        if not waiting.done():
            waiting.set_exception(
                TimedOutError(
                    f"entry {log_index} was not applied within {self._timeout_s:g} s; "
                    "it may or may not be: retry with the same ids"
                )
            )

    async def _propose(self, data: bytes) -> Position:
        try:
            return self._log.propose(data)
        except HandingOverError:  # a few milliseconds, after which this says who leads
            await self._log.wait_handed_over(HANDOVER_S)
            return self._log.propose(data)
