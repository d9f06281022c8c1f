"""What embeds in `recall_quality`: the built-in embedder, MiniLM, or a server that speaks OpenAI's protocol."""

import argparse
import asyncio
import os
import random
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from engram.clock import SystemClock
from engram.inference import minilm
from engram.inference.builtin import BuiltinEmbedder
from engram.inference.chunking import Span, split
from engram.inference.embedder import LocalEmbedder, Matrix, Pool
from engram.inference.minilm import MiniLm
from engram.inference.openai_embedder import OpenAIEmbedder
from engram.projections.rows import VectorRow


@runtime_checkable
class QueryEmbedder(Protocol):
    """An embedder that reads each query as a whole; what it describes well in one vector has a limit."""

    @property
    def chunk_bytes_max(self) -> int:
        """UTF-8 bytes of the longest text that gets a single vector."""

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Return one row a text, L2-normalized."""

    def pool(self, query: str) -> Pool:
        """Return what makes the vector of a query from its words' weights."""


AnyEmbedder = LocalEmbedder | QueryEmbedder


class MiniLmReader:
    """MiniLM, as a node runs it."""

    chunk_bytes_max = minilm.CHUNK_BYTES_MAX

    def __init__(self) -> None:
        """Load the model.

        Raises:
            ConfigError: The extra is not installed.
        """
        self._model = MiniLm()

    def embed(self, texts: Sequence[str]) -> Matrix:
        return self._model.embed(texts)

    def pool(self, query: str) -> Pool:
        return self._model.read(query).pooled


class ServedEmbedder:
    """A server's model, asked with the client of a node. A query has the same vector whatever its words weigh."""

    chunk_bytes_max = OpenAIEmbedder.chunk_bytes_max

    def __init__(self, url: str, *, model: str, dimension: int, api_key: str | None) -> None:
        """Connect to nothing yet."""
        self._runner = asyncio.Runner()
        self._client = OpenAIEmbedder(
            model=model,
            dimension=dimension,
            sends_dimension=False,
            base_url=url,
            api_key=api_key,
            clock=SystemClock(),
            rng=random.Random(1),
        )

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Return one row a text.

        Raises:
            EmbedderError: The server gives none.
        """
        return self._runner.run(self._client.embed(texts))

    def pool(self, query: str) -> Pool:
        vector = self.embed([query])[0]
        return lambda _: vector

    def close(self) -> None:
        """Hang up."""
        self._runner.run(self._client.close())
        self._runner.close()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what embeds."""
    parser.add_argument(
        "--embedder",
        default="builtin",
        metavar="builtin|minilm|URL",
        help="default: builtin; minilm needs the extra; URL: of a server with /embeddings, its key in OPENAI_API_KEY",
    )
    parser.add_argument("--embedding-model", default="text-embedding-3-small", help="of the server at URL")
    parser.add_argument("--embedding-dimension", type=int, help="width of its vectors; needed with a URL")


def chosen(options: argparse.Namespace) -> AnyEmbedder:
    """Return what the options say.

    Raises:
        ConfigError: MiniLM is not installed.
        ValueError: The options do not fit together.
    """
    match options.embedder:
        case "builtin":
            return BuiltinEmbedder()
        case "minilm":
            return MiniLmReader()
        case str(url) if url.startswith(("http://", "https://")):
            if options.embedding_dimension is None or options.embedding_dimension < 1:
                raise ValueError(
                    f"--embedder {url} needs --embedding-dimension, 1 or more: the width of its model's vectors"
                )
            return ServedEmbedder(
                url,
                model=options.embedding_model,
                dimension=options.embedding_dimension,
                api_key=os.environ.get("OPENAI_API_KEY"),
            )
        case other:
            raise ValueError(f"--embedder is {other!r}: it must be builtin, minilm or an address like http://HOST/v1")


def name_of(options: argparse.Namespace) -> str:
    """Return what a table calls the embedder."""
    return str(options.embedding_model if options.embedder.startswith("http") else options.embedder)


def pool(embedder: AnyEmbedder, query: str) -> Pool:
    """Return what makes the vector of a query from its words' weights."""
    return embedder.pool(query) if isinstance(embedder, QueryEmbedder) else embedder.embed_query


def vector_rows(embedder: AnyEmbedder, texts: Sequence[str]) -> list[VectorRow]:
    """Return the vectors of messages as the read models would have them: long ones in chunks, blank ones without."""
    chunks = [
        (place, span)
        for place, text in enumerate(texts)
        if text.strip()
        for span in (split(text, embedder.chunk_bytes_max) if isinstance(embedder, QueryEmbedder) else [_whole(text)])
    ]
    vectors = embedder.embed([texts[place][span.start : span.end] for place, span in chunks]).astype("<f2")
    return [
        VectorRow(place, span.start, span.end, vector.tobytes())
        for (place, span), vector in zip(chunks, vectors, strict=True)
    ]


def _whole(text: str) -> Span:
    return Span(0, len(text))
