"""What turns text into vectors: two ports, one for each place it runs in.

A local embedder is fast enough to run while a message is being written, so that the vector travels in the same log
entry. A remote one is a network call that can take seconds and fail: it runs afterwards, in a worker.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engram.errors import UnavailableError

Matrix = NDArray[np.float32]
"""One row a text, L2-normalized; a text without a direction of its own has a row of zeros."""


Pool = Callable[[Mapping[str, float]], NDArray[np.float32]]
"""Makes a query's vector, L2-normalized, from what each of its words weighs in a scope. Any thread may call it."""


class LocalEmbedder(Protocol):
    """Runs in this process, without waiting for anything."""

    @property
    def model(self) -> str:
        """Name that goes into the events; another model's vectors are never compared with these."""

    @property
    def dimension(self) -> int:
        """Width of every vector."""

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Return one row a text; none for no text."""

    def embed_query(self, weights: Mapping[str, float]) -> NDArray[np.float32]:
        """Return the vector of a query of weighted words, L2-normalized."""


class RemoteEmbedder(Protocol):
    """Answers after a while, or not at all."""

    @property
    def model(self) -> str:
        """Name that goes into the events; another model's vectors are never compared with these."""

    @property
    def dimension(self) -> int:
        """Width of every vector."""

    @property
    def chunk_bytes_max(self) -> int | None:
        """UTF-8 bytes of the longest text that one vector describes well; None: any length, never chunked."""

    async def embed(self, texts: Sequence[str]) -> Matrix:
        """Return one row a text; none for no text.

        Raises:
            EmbedderError: No vectors, also after retries.
        """


@runtime_checkable
class QueryReader(Protocol):
    """What a RemoteEmbedder also is that tells a query's words apart, so that their weights in the scope count."""

    async def read_query(self, query: str) -> Pool:
        """Return what makes the vector of the query from its words' weights, without waiting.

        Raises:
            EmbedderError: The query cannot be read.
        """


class EmbedderError(UnavailableError):
    """No vectors. The message is in our own words: it holds no text of a client and no library's error."""

    code = "embedder_unavailable"

    def __init__(self, detail: str, *, permanent: bool, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.permanent = permanent
        """The same request will fail again: the text, the key, the model or the width is wrong."""
        self.retry_after_s = retry_after_s
        """How long the other side asks to be left alone."""
