"""A server that speaks OpenAI's embeddings protocol over a real socket, with faults on demand; and chats a little."""

import asyncio
import base64
import hashlib
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from aiohttp import web
from numpy.typing import NDArray


def vector(text: str, dimension: int) -> NDArray[np.float32]:
    """Return the vector that the server gives to a text: any direction, always the same, not normalized."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    return np.random.default_rng(seed).normal(0.1, 1.0, dimension).astype(np.float32)


class Request(NamedTuple):
    """What a client sent."""

    texts: list[str]
    body: Mapping[str, Any]
    headers: Mapping[str, str]


class FakeOpenAI:
    """The server. The next requests meet `faults` in order, one each; a request with poison in it is refused."""

    def __init__(self, dimension: int = 8) -> None:
        self.dimension = dimension
        self.requests: list[Request] = []
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.poison: str | None = None
        self.poison_status = 400
        self.form: Callable[[NDArray[np.float32]], object] = as_base64
        self.in_flight = 0
        self.in_flight_max = 0
        self.reached = asyncio.Event()
        self.released = asyncio.Event()
        self.prompts: list[str] = []
        self.says = "An answer."
        self.refused_chats = 0
        self._runner: web.AppRunner | None = None

    @property
    def texts(self) -> list[str]:
        """Every text that was sent, in order."""
        return [text for request in self.requests for text in request.texts]

    @property
    def url(self) -> str:
        assert self._runner is not None, "it is started"
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/embeddings", self._answer)
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        texts = list(body["input"])
        self.requests.append(Request(texts, body, dict(request.headers)))
        self.reached.set()
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight, self.in_flight_max)
        try:
            fault = self.faults.popleft() if self.faults else self.always
            if fault is not None:
                return await fault(self, request, texts)
            if self.poison is not None and any(self.poison in text for text in texts):
                return refusal(self.poison_status, f"this text is refused: {texts}")
            return self.answer(texts)
        finally:
            self.in_flight -= 1

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        """Say the same to everything, once the refusals are used up."""
        if self.refused_chats:
            self.refused_chats -= 1
            return refusal(429, "too many requests")
        body = await request.json()
        self.prompts.append(body["messages"][-1]["content"])
        return web.json_response({"choices": [{"message": {"role": "assistant", "content": self.says}}]})

    def rows(self, texts: Sequence[str]) -> list[dict[str, object]]:
        """Return the rows of a right answer."""
        return [
            {"object": "embedding", "index": place, "embedding": self.form(vector(text, self.dimension))}
            for place, text in enumerate(texts)
        ]

    def answer(self, texts: Sequence[str]) -> web.Response:
        """Return a right answer."""
        return answer(self.rows(texts))


Fault = Callable[[FakeOpenAI, web.Request, Sequence[str]], Awaitable[web.StreamResponse]]


def as_base64(values: NDArray[np.float32]) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def as_numbers(values: NDArray[np.float32]) -> list[float]:
    return [float(value) for value in values]


def answer(rows: Sequence[Mapping[str, object]]) -> web.Response:
    return web.json_response({"object": "list", "data": rows, "model": "fake", "usage": {}})


def refusal(status: int, message: str, retry_after: str | None = None) -> web.Response:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return web.json_response({"error": {"message": message}}, status=status, headers=headers)


def refuses(status: int, retry_after: str | None = None) -> Fault:
    async def fault(server: FakeOpenAI, request: web.Request, texts: Sequence[str]) -> web.StreamResponse:
        return refusal(status, f"no, because of {texts}", retry_after)

    fault.__name__ = f"refuses_{status}" if retry_after is None else f"refuses_{status}_for_{retry_after}"
    return fault


async def works(server: FakeOpenAI, request: web.Request, texts: Sequence[str]) -> web.StreamResponse:
    return server.answer(texts)


async def hangs(server: FakeOpenAI, request: web.Request, texts: Sequence[str]) -> web.StreamResponse:
    """Answer only when the test is over, or says so."""
    await server.released.wait()
    return server.answer(texts)


async def waits_for_company(server: FakeOpenAI, request: web.Request, texts: Sequence[str]) -> web.StreamResponse:
    """Answer when two requests are in flight, and late enough for a third one to be seen."""
    if server.in_flight > 1:
        server.released.set()
    await server.released.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    return server.answer(texts)


async def drips(server: FakeOpenAI, request: web.Request, texts: Sequence[str]) -> web.StreamResponse:
    """Send a little now and then, so that no single read takes long, until the test is over."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while not server.released.is_set():
        await response.write(b" ")
        with suppress(TimeoutError):
            await asyncio.wait_for(server.released.wait(), 0.02)
    return response


async def resets(server: FakeOpenAI, request: web.Request, texts: Sequence[str]) -> web.StreamResponse:
    """Cut the connection."""
    assert request.transport is not None, "it is connected"
    request.transport.abort()
    return web.Response()


async def is_malformed(server: FakeOpenAI, request: web.Request, texts: Sequence[str]) -> web.StreamResponse:
    """Send half an answer as if it were whole."""
    whole = json.dumps({"data": server.rows(texts)})
    return web.Response(text=whole[: len(whole) // 2], content_type="application/json")


async def is_a_page(server: FakeOpenAI, request: web.Request, texts: Sequence[str]) -> web.StreamResponse:
    """Send what a proxy in between sends."""
    return web.Response(text="<html>Welcome</html>", content_type="text/html")


async def is_too_wide(server: FakeOpenAI, request: web.Request, texts: Sequence[str]) -> web.StreamResponse:
    return answer([{"index": place, "embedding": [1.0] * (server.dimension + 1)} for place in range(len(texts))])


async def is_not_finite(server: FakeOpenAI, request: web.Request, texts: Sequence[str]) -> web.StreamResponse:
    values = np.full(server.dimension, np.nan, np.float32)
    return answer([{"index": place, "embedding": as_base64(values)} for place in range(len(texts))])


async def is_shuffled(server: FakeOpenAI, request: web.Request, texts: Sequence[str]) -> web.StreamResponse:
    return answer(server.rows(texts)[::-1])


async def has_no_index(server: FakeOpenAI, request: web.Request, texts: Sequence[str]) -> web.StreamResponse:
    return answer([{"embedding": row["embedding"]} for row in server.rows(texts)])


async def is_short(server: FakeOpenAI, request: web.Request, texts: Sequence[str]) -> web.StreamResponse:
    return answer(server.rows(texts)[:-1])


async def is_long(server: FakeOpenAI, request: web.Request, texts: Sequence[str]) -> web.StreamResponse:
    rows = server.rows(texts)
    return answer([*rows, rows[-1]])


async def repeats_an_index(server: FakeOpenAI, request: web.Request, texts: Sequence[str]) -> web.StreamResponse:
    return answer([{**row, "index": 0} for row in server.rows(texts)])
