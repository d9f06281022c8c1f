"""Embeddings over a real socket, from a server that fails in every way."""

import math
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime

import numpy as np
import pytest

from engram.inference.embedder import EmbedderError
from engram.inference.openai_embedder import (
    BACKOFF_S,
    PATIENCE_S,
    REQUEST_BYTES_MAX,
    REQUEST_TEXTS_MAX,
    OpenAIEmbedder,
    read_answer,
)
from tests.fake_openai import (
    FakeOpenAI,
    Fault,
    as_numbers,
    drips,
    hangs,
    has_no_index,
    is_a_page,
    is_long,
    is_malformed,
    is_not_finite,
    is_short,
    is_shuffled,
    is_too_wide,
    refuses,
    repeats_an_index,
    resets,
    vector,
)
from tests.server_process import PROJECT

NOW_MS = 1_777_636_800_000
SECRET = "my secret text"


class Clock:
    def now_ms(self) -> int:
        return NOW_MS

    def monotonic_s(self) -> float:
        return 0.0


class Naps:
    """A sleep that only takes notes."""

    def __init__(self) -> None:
        self.taken_s: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken_s.append(seconds)


@pytest.fixture
async def server() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as running:
        yield running


@pytest.fixture
def naps() -> Naps:
    return Naps()


@pytest.fixture
async def embedder(server: FakeOpenAI, naps: Naps) -> AsyncIterator[OpenAIEmbedder]:
    made = connect(server.url, naps)
    yield made
    await made.close()


def connect(
    base_url: str,
    naps: Naps,
    *,
    api_key: str | None = None,
    sends_dimension: bool = False,
    deadline_s: float = 10.0,
) -> OpenAIEmbedder:
    return OpenAIEmbedder(
        model="fake-model",
        dimension=8,
        sends_dimension=sends_dimension,
        base_url=base_url,
        api_key=api_key,
        clock=Clock(),
        rng=random.Random(1),
        sleep=naps,
        deadline_s=deadline_s,
    )


def directions(texts: list[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    rows = [vector(text, 8) for text in texts]
    return np.stack([row / np.linalg.norm(row) for row in rows])


async def test_each_text_gets_its_normalized_vector(embedder: OpenAIEmbedder) -> None:
    vectors = await embedder.embed(["one", "two"])

    np.testing.assert_allclose(vectors, directions(["one", "two"]), atol=1e-6)
    assert vectors.dtype == np.float32


def test_once_prepared_no_request_waits_for_an_import() -> None:
    program = """
import asyncio, random, sys
from engram.clock import SystemClock
from engram.inference.openai_embedder import OpenAIEmbedder
clock, rng = SystemClock(), random.Random(1)
embedder = OpenAIEmbedder(
    model="m", dimension=8, sends_dimension=True, base_url="http://127.0.0.1:9", api_key=None, clock=clock, rng=rng
)
before = "openai" in sys.modules
asyncio.run(embedder.prepare())
print(before, "openai" in sys.modules)
"""

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PROJECT)

    assert said.stdout == "False True\n"


async def test_no_text_needs_no_request(embedder: OpenAIEmbedder, server: FakeOpenAI) -> None:
    assert (await embedder.embed([])).shape == (0, 8)
    assert server.requests == []


async def test_numbers_are_as_good_as_base64(embedder: OpenAIEmbedder, server: FakeOpenAI) -> None:
    server.form = as_numbers

    np.testing.assert_allclose(await embedder.embed(["one"]), directions(["one"]), atol=1e-6)


@pytest.mark.parametrize("fault", [is_shuffled, has_no_index])
async def test_the_index_says_which_text_a_vector_is_of(
    fault: Fault, embedder: OpenAIEmbedder, server: FakeOpenAI
) -> None:
    server.faults.append(fault)

    np.testing.assert_allclose(await embedder.embed(["one", "two"]), directions(["one", "two"]), atol=1e-6)


async def test_requests_are_bounded_in_texts_and_bytes(embedder: OpenAIEmbedder, server: FakeOpenAI) -> None:
    many = [str(number) for number in range(REQUEST_TEXTS_MAX + 1)]
    large = ["x" * (REQUEST_BYTES_MAX // 2), "y" * (REQUEST_BYTES_MAX // 2), "z"]

    vectors = await embedder.embed([*many, *large])

    assert [len(request.texts) for request in server.requests] == [REQUEST_TEXTS_MAX, 2, 2]
    np.testing.assert_allclose(vectors, directions([*many, *large]), atol=1e-6)


async def test_the_width_is_sent_only_when_the_model_takes_it(server: FakeOpenAI, naps: Naps) -> None:
    for sends_dimension in (False, True):
        embedder = connect(server.url, naps, sends_dimension=sends_dimension)
        await embedder.embed(["x"])
        await embedder.close()

    without, with_width = (request.body for request in server.requests)
    assert "dimensions" not in without
    assert with_width["dimensions"] == 8
    assert with_width["model"] == "fake-model"


async def test_a_key_is_sent_when_there_is_one(server: FakeOpenAI, naps: Naps) -> None:
    for api_key in (None, "sk-1"):
        embedder = connect(server.url + "/v1/", naps, api_key=api_key)
        await embedder.embed(["x"])
        await embedder.close()

    without, with_key = (request.headers for request in server.requests)
    assert "Authorization" not in without
    assert with_key["Authorization"] == "Bearer sk-1"


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
async def test_what_may_pass_is_tried_again(
    status: int, embedder: OpenAIEmbedder, server: FakeOpenAI, naps: Naps
) -> None:
    server.faults.extend([refuses(status)] * 2)

    np.testing.assert_allclose(await embedder.embed(["one"]), directions(["one"]), atol=1e-6)
    assert len(server.requests) == 3
    assert 0.5 * BACKOFF_S <= naps.taken_s[0] <= 1.5 * BACKOFF_S
    assert BACKOFF_S <= naps.taken_s[1] <= 3 * BACKOFF_S


@pytest.mark.parametrize("fault", [resets, is_malformed, is_a_page, is_short, is_long, repeats_an_index])
async def test_a_broken_answer_is_asked_for_again(
    fault: Fault, embedder: OpenAIEmbedder, server: FakeOpenAI, naps: Naps
) -> None:
    server.faults.append(fault)

    np.testing.assert_allclose(await embedder.embed(["one", "two"]), directions(["one", "two"]), atol=1e-6)
    assert len(naps.taken_s) == 1


@pytest.mark.parametrize("fault", [hangs, drips])
async def test_a_server_that_takes_for_ever_is_left_at_the_deadline(
    fault: Fault, server: FakeOpenAI, naps: Naps
) -> None:
    embedder = connect(server.url, naps, deadline_s=0.2)
    server.faults.append(fault)

    await embedder.embed(["one"])

    assert len(server.requests) == 2
    await embedder.close()


async def test_a_server_that_is_away_is_a_temporary_failure(free_port: int, naps: Naps) -> None:
    embedder = connect(f"http://127.0.0.1:{free_port}", naps)

    with pytest.raises(EmbedderError, match="cannot be reached") as caught:
        await embedder.embed(["one"])

    assert not caught.value.permanent
    assert len(naps.taken_s) == 4
    await embedder.close()


async def test_a_timeout_says_how_long_it_was_waited(server: FakeOpenAI, naps: Naps) -> None:
    embedder = connect(server.url, naps, deadline_s=0.05)
    server.always = hangs

    with pytest.raises(EmbedderError, match=r"did not answer within 0\.05 s") as caught:
        await embedder.embed(["one"])

    assert not caught.value.permanent
    await embedder.close()


async def test_the_server_says_how_long_to_wait(embedder: OpenAIEmbedder, server: FakeOpenAI, naps: Naps) -> None:
    date = format_datetime(datetime.fromtimestamp(NOW_MS / 1000 + 7, UTC), usegmt=True)
    past = format_datetime(datetime.fromtimestamp(NOW_MS / 1000 - 7, UTC), usegmt=True)
    server.faults.extend([refuses(429, "2"), refuses(503, date), refuses(429, past)])

    await embedder.embed(["one"])

    assert [math.floor(nap) for nap in naps.taken_s] == [2, 7, 0]


@pytest.mark.parametrize("retry_after", ["soon", "nan", ""])
async def test_a_wait_that_cannot_be_read_is_none(
    retry_after: str, embedder: OpenAIEmbedder, server: FakeOpenAI, naps: Naps
) -> None:
    server.faults.append(refuses(429, retry_after))

    await embedder.embed(["one"])

    assert 0.5 * BACKOFF_S <= naps.taken_s[0] <= 1.5 * BACKOFF_S


async def test_a_long_wait_is_left_to_the_caller(embedder: OpenAIEmbedder, server: FakeOpenAI, naps: Naps) -> None:
    server.faults.append(refuses(429, str(PATIENCE_S + 1)))

    with pytest.raises(EmbedderError) as caught:
        await embedder.embed(["one"])

    assert not caught.value.permanent
    assert caught.value.retry_after_s == PATIENCE_S + 1
    assert naps.taken_s == []


async def test_tries_are_bounded(embedder: OpenAIEmbedder, server: FakeOpenAI) -> None:
    server.always = refuses(500)

    with pytest.raises(EmbedderError) as caught:
        await embedder.embed(["one"])

    assert not caught.value.permanent
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    "fault",
    [refuses(400), refuses(401), refuses(403), refuses(404), refuses(413), refuses(418), is_too_wide, is_not_finite],
)
async def test_what_cannot_pass_is_not_tried_again(
    fault: Fault, embedder: OpenAIEmbedder, server: FakeOpenAI, naps: Naps
) -> None:
    server.always = fault

    with pytest.raises(EmbedderError) as caught:
        await embedder.embed(["one"])

    assert caught.value.permanent
    assert len(server.requests) == 1
    assert naps.taken_s == []


@pytest.mark.parametrize("fault", [refuses(400), refuses(500), is_malformed, is_too_wide, resets])
async def test_no_error_holds_the_text_or_the_answer(
    fault: Fault, embedder: OpenAIEmbedder, server: FakeOpenAI
) -> None:
    server.always = fault

    with pytest.raises(EmbedderError) as caught:
        await embedder.embed([SECRET])

    assert SECRET not in str(caught.value)
    assert "because" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_wrong_width_is_said_with_both_numbers(embedder: OpenAIEmbedder, server: FakeOpenAI) -> None:
    server.faults.append(is_too_wide)

    with pytest.raises(EmbedderError, match="9 numbers; the dimension is set to 8"):
        await embedder.embed(["one"])


def test_a_vector_of_zeros_stays_one() -> None:
    body = b'{"data": [{"index": 0, "embedding": [0.0, 0.0]}, {"index": 1, "embedding": [3e38, 0.0]}]}'

    assert read_answer(body, 2, 2).tolist() == [[0.0, 0.0], [1.0, 0.0]]
