"""Questions about reads: many who ask share one, and none is left without an answer."""

import asyncio

import pytest

from engram.errors import NotReadyError
from engram.log.consensus.types import ReadState
from engram.log.reads import ReadQuestions

PREFIX = bytes(8)


async def test_who_waits_at_the_same_time_shares_a_question() -> None:
    reads, asked = ReadQuestions(PREFIX), list[bytes]()
    waiting = [reads.wait() for _ in range(3)]

    reads.ask(asked.append)
    later = reads.wait()
    reads.ask(asked.append)
    reads.answer(ReadState(7, asked[0]))

    assert await asyncio.gather(*waiting) == [7, 7, 7]
    assert not later.done()
    assert len(set(asked)) == 2


async def test_nobody_waits_and_nothing_is_asked() -> None:
    asked = list[bytes]()

    ReadQuestions(PREFIX).ask(asked.append)

    assert asked == []


async def test_an_answer_to_another_nodes_question_is_nobodys() -> None:
    reads, asked = ReadQuestions(PREFIX), list[bytes]()
    waiting = reads.wait()
    reads.ask(asked.append)

    reads.answer(ReadState(9, b"another"))

    assert not waiting.done()


async def test_who_gave_up_is_in_nobodys_way() -> None:
    reads, asked = ReadQuestions(PREFIX), list[bytes]()
    gave_up, stays = reads.wait(), reads.wait()
    reads.ask(asked.append)

    gave_up.cancel()
    reads.answer(ReadState(7, asked[0]))

    assert await stays == 7


async def test_at_the_end_everyone_is_told() -> None:
    reads, asked = ReadQuestions(PREFIX), list[bytes]()
    first = reads.wait()
    reads.ask(asked.append)
    second = reads.wait()

    reads.fail(NotReadyError("the node has stopped"))

    for waiting in (first, second):
        with pytest.raises(NotReadyError):
            await waiting
