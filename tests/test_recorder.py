"""The recorder: one entry, one verdict, and what a caller may conclude when none comes."""

import asyncio
from collections.abc import Sequence

import pytest

from engram.errors import HandingOverError, NoLeaderError, NotLeaderError, OverloadedError, TimedOutError
from engram.events import Event, FactPinned, decode
from engram.log.position import Position
from engram.projections.verdicts import Outcome, Verdict
from engram.recorder import Recorder

EVENT = FactPinned(session_id="s1", at_ms=1, fact_id="f1", text="likes tea", tokens=2)
ACCEPTED = Verdict(Outcome.ACCEPTED, 7)


class StoppedClock:
    """A clock that shows what it is told."""

    def __init__(self, now_ms: int) -> None:
        self.shown_ms = now_ms

    def now_ms(self) -> int:
        return self.shown_ms

    def monotonic_s(self) -> float:
        return 0.0


class OneNodeLog:
    """Appends to a list, at term 3, from index 7 on."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []

    def propose(self, data: bytes) -> Position:
        self.entries.append(data)
        return Position(6 + len(self.entries), 3)

    async def wait_handed_over(self, timeout_s: float) -> None:
        raise AssertionError("nobody hands over")


class FullLog:
    """Refuses, as a log does whose uncommitted bytes are at the limit."""

    def propose(self, data: bytes) -> Position:
        raise OverloadedError(f"no room for {len(data)} bytes")

    async def wait_handed_over(self, timeout_s: float) -> None:
        raise AssertionError("nobody hands over")


class HandsOver:
    """A leader that is about to be one no more, to node 2 or, if that fails, to nobody."""

    def __init__(self, *, succeeds: bool) -> None:
        self._succeeds = succeeds
        self._has_waited = False

    def propose(self, data: bytes) -> Position:
        if not self._has_waited:
            raise HandingOverError("node 2 is about to lead")
        if self._succeeds:
            raise NotLeaderError(2)
        return Position(7, 3)

    async def wait_handed_over(self, timeout_s: float) -> None:
        self._has_waited = True


class Applies:
    """Answers at once with what it was made with."""

    def __init__(self, answer: Sequence[Verdict] | Exception) -> None:
        self._answer = answer
        self.expected: list[tuple[int, int]] = []

    def expect(self, log_index: int, term: int) -> asyncio.Future[Sequence[Verdict]]:
        self.expected.append((log_index, term))
        future: asyncio.Future[Sequence[Verdict]] = asyncio.get_running_loop().create_future()
        if isinstance(self._answer, Exception):
            future.set_exception(self._answer)
        else:
            future.set_result(self._answer)
        return future


class NeverApplies:
    """A projector that is stuck."""

    def expect(self, log_index: int, term: int) -> asyncio.Future[Sequence[Verdict]]:
        return asyncio.get_running_loop().create_future()


def recorder(
    log: OneNodeLog | FullLog | HandsOver, verdicts: Applies | NeverApplies, clock: StoppedClock | None = None
) -> Recorder:
    return Recorder(log, verdicts, clock or StoppedClock(1000), last_at_ms=lambda: 0, timeout_s=0.01)


async def test_a_write_is_one_entry_and_answers_with_its_index_and_the_ledgers_word() -> None:
    log, verdicts = OneNodeLog(), Applies([ACCEPTED])

    receipt = await recorder(log, verdicts).record([EVENT])

    events: list[Event] = [EVENT]
    assert decode(log.entries[0]) == events
    assert receipt == (7, [ACCEPTED])
    assert verdicts.expected == [(7, 3)]


async def test_a_stalled_projector_leaves_the_outcome_unknown() -> None:
    with pytest.raises(TimedOutError, match=r"entry 7 .* within 0\.01 s.* retry with the same ids"):
        await recorder(OneNodeLog(), NeverApplies()).record([EVENT])


async def test_an_overwritten_entry_is_not_taken_for_a_write() -> None:
    with pytest.raises(NoLeaderError):
        await recorder(OneNodeLog(), Applies(NoLeaderError("another leader"))).record([EVENT])


async def test_a_refused_proposal_is_waited_for_by_nobody() -> None:
    verdicts = Applies([ACCEPTED])

    with pytest.raises(OverloadedError):
        await recorder(FullLog(), verdicts).record([EVENT])
    assert verdicts.expected == []


async def test_a_write_during_a_handover_learns_who_leads() -> None:
    with pytest.raises(NotLeaderError) as raised:
        await recorder(HandsOver(succeeds=True), Applies([ACCEPTED])).record([EVENT])

    assert raised.value.leader_id == 2


async def test_a_write_during_a_handover_that_fails_is_taken() -> None:
    receipt = await recorder(HandsOver(succeeds=False), Applies([ACCEPTED])).record([EVENT])

    assert receipt.log_index == 7


def test_stamps_never_go_backwards_even_when_the_clock_does() -> None:
    clock = StoppedClock(5000)
    stamping = recorder(OneNodeLog(), Applies([ACCEPTED]), clock)

    first = stamping.stamp_ms()
    clock.shown_ms = 4000
    second = stamping.stamp_ms()
    clock.shown_ms = 6000

    assert [first, second, stamping.stamp_ms()] == [5000, 5000, 6000]


def test_stamps_go_on_after_the_last_one_in_the_log() -> None:
    folded_at_ms = [0]
    stamping = Recorder(
        OneNodeLog(), Applies([ACCEPTED]), StoppedClock(10), last_at_ms=lambda: folded_at_ms[-1], timeout_s=1
    )
    before = stamping.stamp_ms()
    folded_at_ms.append(99)

    assert [before, stamping.stamp_ms()] == [10, 99]


class FillsUp(OneNodeLog):
    """Takes one entry, refuses the next, and would take more then."""

    def propose(self, data: bytes) -> Position:
        if len(self.entries) == 1:
            self.entries.append(b"")
            raise OverloadedError("full")
        return super().propose(data)


async def test_of_entries_in_order_none_counts_behind_one_that_was_refused() -> None:
    log = FillsUp()

    recorded = await recorder(log, Applies([ACCEPTED])).record_in_order([[EVENT]] * 3)

    assert recorded.receipts == [(7, [ACCEPTED])]
    assert isinstance(recorded.error, OverloadedError)
    assert len(log.entries) == 2


async def test_entries_in_order_say_which_of_them_are_known_to_count() -> None:
    recorded = await recorder(OneNodeLog(), NeverApplies()).record_in_order([[EVENT]] * 2)

    assert recorded.receipts == []
    assert isinstance(recorded.error, TimedOutError)
