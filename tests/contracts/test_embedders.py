"""All embedders keep the contract: the built-in one, MiniLM where its extra is installed, and a server's."""

import asyncio
import random
from collections.abc import AsyncIterator
from importlib.util import find_spec

import pytest

from engram.inference import minilm
from engram.inference.builtin import BuiltinEmbedder
from engram.inference.embedder import RemoteEmbedder
from engram.inference.minilm import HINT, MiniLmEmbedder
from engram.inference.openai_embedder import OpenAIEmbedder
from engram.recall.query_vectors import Embedder
from engram.workers.reembedding import InThread
from tests.contracts.embedder_contract import EmbedderContract
from tests.fake_openai import FakeOpenAI
from tests.workers.memory import Clock

HAS_MINILM = find_spec(minilm.PACKAGE) is not None and find_spec(minilm.RUNTIME) is not None


class TestBuiltin(EmbedderContract):
    @pytest.fixture
    async def local(self) -> BuiltinEmbedder:
        return await asyncio.to_thread(BuiltinEmbedder)

    @pytest.fixture
    def embedder(self, local: BuiltinEmbedder) -> RemoteEmbedder:
        return InThread(local)

    @pytest.fixture
    def asked(self, local: BuiltinEmbedder) -> Embedder:
        return local


@pytest.mark.skipif(not HAS_MINILM, reason=f"NOT CHECKED: the extra is not installed: {HINT}")
class TestMiniLm(EmbedderContract):
    @pytest.fixture
    async def embedder(self) -> AsyncIterator[RemoteEmbedder]:
        made = await asyncio.to_thread(MiniLmEmbedder)
        yield made
        await made.close()


class TestServer(EmbedderContract):
    @pytest.fixture
    async def embedder(self) -> AsyncIterator[RemoteEmbedder]:
        async with FakeOpenAI(64) as server:
            made = OpenAIEmbedder(
                model="fake-model", dimension=64, sends_dimension=True, base_url=server.url, api_key=None,
                clock=Clock(), rng=random.Random(1), tries_max=1,
            )  # fmt: skip
            yield made
            await made.close()
