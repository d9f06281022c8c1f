"""Preparing texts: together when they come together, each request getting its own."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from engram.api.ingest import INLINE_CHARACTERS_MAX, Ingest
from engram.inference.embedder import Matrix
from engram.metrics import Metrics
from tests.api.node import Letters, StoppedClock, Words


class Watched(Letters):
    """Remembers which texts came together, and fails on one that says so."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> Matrix:
        self.calls.append(list(texts))
        if "fail" in texts:
            raise ValueError("cannot embed this")
        return super().embed(texts)


def ingest(embedder: Letters | None) -> Ingest:
    return Ingest(embedder=embedder, tokens=Words(), clock=StoppedClock(), metrics=Metrics(version="0"))


async def test_requests_of_one_moment_share_a_call_and_get_their_own_texts_back() -> None:
    embedder = Watched()
    shared = ingest(embedder)

    first, second = await asyncio.gather(shared.prepare(["a b", "c"]), shared.prepare(["e e e"]))

    assert embedder.calls == [["a b", "c", "e e e"]]
    assert (first.tokens, second.tokens) == ([2, 1], [3])
    assert [vectors is not None and vectors.chunks[0].end for vectors in first.vectors] == [3, 1]
    expected = Letters().embed(["e e e"]).astype("<f2").tobytes()
    assert second.vectors[0] is not None
    assert second.vectors[0].chunks[0].vector == expected


async def test_one_request_waits_for_nobody() -> None:
    prepared = await asyncio.wait_for(ingest(Watched()).prepare(["a"]), timeout=5)

    assert prepared.tokens == [1]


async def test_a_group_is_bounded() -> None:
    embedder = Watched()
    shared = ingest(embedder)
    half = "a" * (INLINE_CHARACTERS_MAX // 2 + 1)

    await asyncio.gather(shared.prepare([half]), shared.prepare([half]), shared.prepare(["b"]))

    assert [sum(map(len, call)) <= INLINE_CHARACTERS_MAX for call in embedder.calls] == [True, True]


async def test_a_long_text_does_not_hold_up_the_others() -> None:
    embedder = Watched()
    shared = ingest(embedder)

    await asyncio.gather(shared.prepare(["a" * (INLINE_CHARACTERS_MAX + 1)]), shared.prepare(["b"]))

    assert sorted(map(len, embedder.calls)) == [1, 1]


async def test_a_failure_reaches_everyone_who_waits_and_nobody_later() -> None:
    shared = ingest(Watched())

    answers = await asyncio.gather(shared.prepare(["fail"]), shared.prepare(["b"]), return_exceptions=True)
    later = await shared.prepare(["c"])

    assert [type(answer) for answer in answers] == [ValueError, ValueError]
    assert later.tokens == [1]


async def test_a_client_that_gives_up_does_not_take_the_others_along() -> None:
    shared = ingest(Watched())
    async with asyncio.TaskGroup() as tasks:
        gone = tasks.create_task(shared.prepare(["a"]))
        waiting = tasks.create_task(shared.prepare(["b"]))
        await asyncio.sleep(0)
        gone.cancel()

    assert gone.cancelled()
    assert waiting.result().tokens == [1]


@pytest.mark.parametrize("texts", [["a"], ["a", "b c"]])
async def test_without_a_local_model_there_are_no_vectors_yet(texts: list[str]) -> None:
    prepared = await ingest(None).prepare(texts)

    assert prepared.vectors == [None] * len(texts)
    assert np.sum(prepared.tokens) == sum(map(Words().count, texts))
