"""The door to the `openai` package: one request for embeddings, and what its failures mean.

Importing this module imports the package, which takes half a second: `openai_embedder` does it in a thread.
"""

import asyncio
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from openai import APIConnectionError, APIStatusError, AsyncOpenAI, Omit, OpenAIError

from engram.clock import Clock
from engram.inference.embedder import EmbedderError

BASE_URL = "https://api.openai.com/v1"

CONNECT_S = 10.0
"""To a name that does not answer at all."""

TEMPORARY_STATUSES = frozenset({408, 409, 425, 429})
"""Those and 5xx may pass; any other refusal will be repeated."""

REASONS = {
    400: "it refuses the request",
    401: "it refuses the key",
    403: "the key may not use the model",
    404: "it does not know the model or the address",
    408: "it timed out",
    413: "the request is too large for it",
    422: "it refuses the request",
    429: "too many requests, or the quota is used up",
}
"""What a status means, in our own words: an answer's body can repeat the text that it refuses."""


class OpenAIClient:
    """Sends requests to an OpenAI-compatible server. Does not retry."""

    def __init__(self, *, base_url: str | None, api_key: str | None, clock: Clock) -> None:
        self._clock = clock
        # The package insists on a key; a server of one's own often has none, and then no header is sent.
        self._headers = {} if api_key else {"Authorization": Omit()}
        self._client = AsyncOpenAI(base_url=_with_version(base_url), api_key=api_key or "none", max_retries=0)

    async def embeddings(self, texts: Sequence[str], *, model: str, dimension: int | None, deadline_s: float) -> bytes:
        """Return the body of the answer; `dimension` is sent unless it is None.

        Raises:
            EmbedderError: There is none.
        """
        try:
            async with asyncio.timeout(deadline_s):
                answer = await self._client.embeddings.with_raw_response.create(
                    input=list(texts),
                    model=model,
                    encoding_format="base64",
                    dimensions=Omit() if dimension is None else dimension,
                    extra_headers=self._headers,
                    timeout=deadline_s,
                )
        except (TimeoutError, APIConnectionError, APIStatusError, OpenAIError) as error:
            raise self._fault(error, deadline_s) from None
        return answer.content

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _fault(self, error: Exception, deadline_s: float) -> EmbedderError:
        if isinstance(error, APIStatusError):
            return _refusal(error.status_code, error.response.headers, self._clock.now_ms())
        # The package's own time limit is a connection error with another one as its cause.
        if isinstance(error, TimeoutError) or "timed out" in str(error):
            return EmbedderError(f"the embedder did not answer within {deadline_s:g} s", permanent=False)
        return EmbedderError("the embedder cannot be reached", permanent=False)


def retry_after_s(headers: Mapping[str, str], now_ms: int) -> float | None:
    """Return how long the server asks to wait: a number of seconds or an HTTP date; None when it does not say."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        wait_s = float(value)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(value).timestamp() - now_ms / 1000
        except ValueError:
            return None
    return max(0.0, wait_s) if wait_s == wait_s else None  # noqa: PLR0124 - not so for NaN


def _refusal(status: int, headers: Mapping[str, str], now_ms: int) -> EmbedderError:
    temporary = status in TEMPORARY_STATUSES or status >= 500  # noqa: PLR2004 - HTTP's own border
    reason = REASONS.get(status, "it failed" if temporary else "it refuses the request")
    return EmbedderError(
        f"the embedder answered {status}: {reason}",
        permanent=not temporary,
        retry_after_s=retry_after_s(headers, now_ms) if temporary else None,
    )


def _with_version(base_url: str | None) -> str:
    """Return the address below which `/embeddings` is: a bare host means its version 1."""
    if base_url is None:
        return BASE_URL
    return base_url if urlsplit(base_url).path.strip("/") else base_url.rstrip("/") + "/v1"
