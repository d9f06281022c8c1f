"""The local embedding server speaks OpenAI's protocol, so that a node can use it, and refuses what it cannot do."""

import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp.test_utils import TestServer

from engram.clock import SystemClock
from engram.inference.builtin import BuiltinEmbedder
from engram.inference.openai_embedder import OpenAIEmbedder
from tools.local_embed_server import Server, main

TEXTS = ["My sister plays the viola.", "The train was late."]


@pytest.fixture(scope="module")
def embedder() -> BuiltinEmbedder:
    return BuiltinEmbedder()


@pytest.fixture
async def url(embedder: BuiltinEmbedder) -> AsyncIterator[str]:
    served = Server(embedder, name="builtin", dimension=64, normalizes=True)
    async with TestServer(served.application()) as server:
        yield f"http://127.0.0.1:{server.port}"


async def ask(url: str, body: Any) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/embeddings", json=body) as answer:
        return answer.status, await answer.json()


async def test_a_nodes_own_client_gets_the_embedders_vectors(url: str, embedder: BuiltinEmbedder) -> None:
    client = OpenAIEmbedder(
        model="any",
        dimension=64,
        sends_dimension=True,
        base_url=url,
        api_key=None,
        clock=SystemClock(),
        rng=random.Random(1),
    )
    try:
        vectors = await client.embed(TEXTS)
    finally:
        await client.close()

    cut = embedder.embed(TEXTS)[:, :64]
    assert np.allclose(vectors, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-6)


async def test_one_text_gets_numbers_under_the_name_that_was_asked(url: str) -> None:
    status, body = await ask(url, {"input": TEXTS[0], "model": "mine", "dimensions": 8})

    assert status == 200
    assert (body["model"], body["usage"]["total_tokens"], len(body["data"][0]["embedding"])) == ("mine", 5, 8)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"input": []}, "at least one"),
        ({"input": ["a", " "]}, "input[1] is blank"),
        ({"input": "a", "dimensions": 65}, "from 1 to 64"),
        ([], "no object"),
    ],
)
async def test_what_cannot_be_embedded_is_refused(url: str, body: Any, told: str) -> None:
    status, answer = await ask(url, body)

    assert status == 400
    assert told in answer["error"]["message"]


async def test_it_says_that_it_is_there_and_what_it_runs(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/health") as answer:
            health = await answer.json()
        async with session.get(f"{url}/v1/models") as answer:
            models = await answer.json()

    assert health == {"status": "ok", "model": "builtin", "embedding_dimension": 64}
    assert [model["id"] for model in models["data"]] == ["builtin"]


def test_more_numbers_than_the_model_has_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--embedding-dimension", "257"]) == 2
    assert "--embedding-dimension is 257: vectors of builtin have 256 numbers" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--embedding-dimension", "385"])
    assert "'385' is no integer from 1 to 384" in capsys.readouterr().err
