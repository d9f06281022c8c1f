"""Embeddings from any server that speaks OpenAI's protocol: batches, retries, and answers that are checked."""

import asyncio
import base64
import binascii
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from engram.clock import Clock
from engram.inference.chunking import group
from engram.inference.embedder import EmbedderError, Matrix

if TYPE_CHECKING:
    from engram.inference.openai_client import OpenAIClient

CHUNK_BYTES_MAX = 2_000
"""About 450 tokens of English: within the window of small models, and little enough for one vector to describe."""

REQUEST_TEXTS_MAX = 128
"""An answer of 128 vectors of 1536 numbers is 1 MiB; servers take 2048 texts at most, some fewer."""

REQUEST_BYTES_MAX = 256 * 1024
"""Bytes are never fewer than tokens, and a request takes 300 000 tokens."""

DEADLINE_S = 30.0
"""One request. A server that has not answered by then is treated as one that will not."""

TRIES_MAX = 5
BACKOFF_S = 0.5
"""Before the second try; twice as much before each further one, plus or minus half."""

PATIENCE_S = 30.0
"""A longer wait than this, also one that the server asks for, is left to the caller."""


class _Row(msgspec.Struct):
    embedding: str | list[float]
    """Base64 of little-endian float32, or numbers from a server that does not know that form."""
    index: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Row]


_answer = msgspec.json.Decoder(_Answer)


class OpenAIEmbedder:
    """A RemoteEmbedder. Its policy of retries is the only one: the package's own is off."""

    chunk_bytes_max = CHUNK_BYTES_MAX

    def __init__(
        self,
        *,
        model: str,
        dimension: int,
        sends_dimension: bool,
        base_url: str | None,
        api_key: str | None,
        clock: Clock,
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        deadline_s: float = DEADLINE_S,
        tries_max: int = TRIES_MAX,
    ) -> None:
        """Connect to nothing yet. `sends_dimension`: ask for that width, which not every model can be asked."""
        self.model = model
        self.dimension = dimension
        self._sends_dimension = sends_dimension
        self._base_url = base_url
        self._api_key = api_key
        self._clock = clock
        self._rng = rng
        self._sleep = sleep
        self._deadline_s = deadline_s
        self._tries_max = tries_max
        self._connecting = asyncio.Lock()
        self._client: OpenAIClient | None = None

    async def embed(self, texts: Sequence[str]) -> Matrix:
        sizes = [len(text.encode()) for text in texts]
        parts = [np.empty((0, self.dimension), np.float32)]
        for batch in group(texts, sizes, items_max=REQUEST_TEXTS_MAX, size_max=REQUEST_BYTES_MAX):
            parts.append(await self._persist(batch))  # noqa: PERF401 - a failure must not waste what follows
        return np.concatenate(parts)

    async def prepare(self) -> None:
        """Load the client now, so that the first query's deadline does not go by with it."""
        await self._connected()

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()

    async def _persist(self, texts: Sequence[str]) -> Matrix:
        """Return the vectors of one request, which is repeated while that may help."""
        tries = 1
        while True:
            try:
                return await self._request(texts)
            except EmbedderError as error:
                wait_s = self._wait_s(tries, error)
                if error.permanent or tries == self._tries_max or wait_s > PATIENCE_S:
                    raise
            tries += 1
            await self._sleep(wait_s)

    def _wait_s(self, tries: int, error: EmbedderError) -> float:
        if error.retry_after_s is not None:
            # Later than asked, by a little: many clients were told the same.
            return error.retry_after_s + self._rng.random() * BACKOFF_S
        return BACKOFF_S * 2.0 ** (tries - 1) * (0.5 + self._rng.random())

    async def _request(self, texts: Sequence[str]) -> Matrix:
        client = await self._connected()
        body = await client.embeddings(
            texts,
            model=self.model,
            dimension=self.dimension if self._sends_dimension else None,
            deadline_s=self._deadline_s,
        )
        return await asyncio.to_thread(read_answer, body, len(texts), self.dimension)

    async def _connected(self) -> "OpenAIClient":
        async with self._connecting:
            if self._client is None:
                self._client = await asyncio.to_thread(self._connect)
            return self._client

    def _connect(self) -> "OpenAIClient":
        from engram.inference.openai_client import OpenAIClient  # noqa: PLC0415 - imports `openai`: half a second

        return OpenAIClient(base_url=self._base_url, api_key=self._api_key, clock=self._clock)


def read_answer(body: bytes, count: int, dimension: int) -> Matrix:
    """Return the vectors of an answer in the order of the `count` texts, L2-normalized.

    Raises:
        EmbedderError: It is not an answer, which may pass, or its vectors are not what was asked for, which will not.
    """
    try:
        rows = _ordered(_answer.decode(body).data, count)
        vectors = [_vector(row.embedding) for row in rows]
    except (msgspec.MsgspecError, UnicodeDecodeError, binascii.Error, ValueError):
        raise EmbedderError(f"the embedder sent {len(body)} bytes that are no embeddings", permanent=False) from None
    for vector in vectors:
        if len(vector) != dimension:
            raise EmbedderError(
                f"the embedder sends vectors of {len(vector)} numbers; the dimension is set to {dimension}",
                permanent=True,
            )
    matrix = np.stack(vectors)
    if not np.isfinite(matrix).all():
        raise EmbedderError("the embedder sent numbers that are not finite", permanent=True)
    norms = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
    norms[norms == 0] = 1.0
    normalized: Matrix = (matrix / norms).astype(np.float32)
    return normalized


def _ordered(rows: Sequence[_Row], count: int) -> Sequence[_Row]:
    """Return the rows in the order of the texts: by `index`, or as they came when none has one.

    Raises:
        ValueError: They are not one for each text.
    """
    if all(row.index is None for row in rows):
        ordered = list(rows)
    else:
        places = {row.index: row for row in rows}
        ordered = [places[place] for place in range(count) if place in places]
    if len(ordered) != count or len(rows) != count:
        raise ValueError
    return ordered


def _vector(embedding: str | Sequence[float]) -> NDArray[np.float32]:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float32)
    with np.errstate(over="ignore"):
        return np.array(embedding, np.float32)
