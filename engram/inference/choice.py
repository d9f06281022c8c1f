"""Which embedder: by the name that settings and requests give it, or by whose vectors are stored."""

import random
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from engram.clock import Clock
from engram.errors import ConfigError, InvalidError
from engram.inference import builtin, minilm
from engram.inference.builtin import BuiltinEmbedder
from engram.inference.minilm import MiniLmEmbedder
from engram.inference.openai_embedder import TRIES_MAX, OpenAIEmbedder

Kind = Literal["builtin", "minilm", "openai"]

AnyEmbedder = BuiltinEmbedder | MiniLmEmbedder | OpenAIEmbedder
"""Those that a setting can name."""

FIXED_WIDTH: Final = "text-embedding-ada-002"
"""The model that cannot be asked for a dimension."""

OWN: Final[Mapping[str, tuple[str, int]]] = {
    "builtin": (builtin.MODEL, builtin.DIMENSION),
    "minilm": (minilm.MODEL, minilm.DIMENSION),
}
"""Model and width of the embedders that run in a node."""


class Server(NamedTuple):
    """The OpenAI-compatible server that the settings name."""

    base_url: str | None
    api_key: str | None


class Choice(NamedTuple):
    """An embedder, described well enough to make it."""

    kind: Kind
    model: str
    dimension: int
    base_url: str | None = None
    """Of another server than the settings name; its key is nobody's, and none is sent."""


class Wanted(NamedTuple):
    """An embedder as a request names it; what is None follows from the rest."""

    kind: Kind
    model: str | None = None
    dimension: int | None = None
    base_url: str | None = None


class Move(NamedTuple):
    """How far memory is moved from one embedder to another, as a node sees it."""

    state: Literal["none", "running", "done"]
    model: str
    """Who embeds what is new, and all that is moved."""
    dimension: int
    others: tuple[str, ...]
    """Models whose vectors are still there."""
    done: int
    total: int
    """Messages with vectors."""
    refused: int
    """Messages that the model does not take, as far as this node has tried: they keep what they had."""
    error: str | None
    """Why it pauses."""


def chosen(wanted: Wanted, server: Server, widths: Mapping[str, int]) -> Choice:
    """Return what a request means; `widths` are those of models that need no dimension.

    Raises:
        InvalidError: It names what there is not, or too little.
    """
    if wanted.kind != "openai":
        for field in ("model", "dimension", "base_url"):
            if getattr(wanted, field) is not None:
                raise InvalidError(f"{field} is given, but the embedder {wanted.kind!r} has one model, in the node")
        return stored(*(OWN[wanted.kind]))
    if wanted.base_url is None and server == Server(None, None):
        raise InvalidError(
            "embedder 'openai' needs base_url here, or OPENAI_API_KEY or OPENAI_BASE_URL in the node's settings"
        )
    if not wanted.model or wanted.model in {model for model, _ in OWN.values()}:
        raise InvalidError(f"model is {wanted.model!r}; embedder 'openai' needs the name of a model of its server")
    dimension = wanted.dimension if wanted.dimension is not None else widths.get(wanted.model)
    if dimension is None:
        raise InvalidError(f"dimension must be given: the width of {wanted.model!r} is not known here")
    _check_url(wanted.base_url)
    return Choice("openai", wanted.model, dimension, wanted.base_url)


def named(kind: Kind, model: str, dimension: int) -> Choice:
    """Return what the settings mean: `model` is of a server, the others have their own."""
    return Choice(kind, model, dimension) if kind == "openai" else Choice(kind, *OWN[kind])


def stored(model: str, dimension: int, base_url: str | None = None) -> Choice:
    """Return the embedder that made vectors of a model: one in the node, else one that a server has."""
    kinds: Sequence[Kind] = ("builtin", "minilm")
    for kind in kinds:
        if OWN[kind] == (model, dimension):
            return Choice(kind, model, dimension)
    return Choice("openai", model, dimension, base_url)


def make(choice: Choice, server: Server, clock: Clock, *, tries_max: int = TRIES_MAX) -> AnyEmbedder:
    """Return the embedder. The key of the settings goes to the server of the settings only.

    Raises:
        ConfigError: A package that it needs is not installed, or nothing says where its server is.
    """
    if choice.kind == "builtin":
        return BuiltinEmbedder()
    if choice.kind == "minilm":
        return MiniLmEmbedder()
    elsewhere = choice.base_url is not None and choice.base_url != server.base_url
    if not elsewhere and server == Server(None, None):
        raise ConfigError(f"the model {choice.model!r} needs OPENAI_API_KEY or OPENAI_BASE_URL")
    return OpenAIEmbedder(
        model=choice.model,
        dimension=choice.dimension,
        sends_dimension=choice.model != FIXED_WIDTH,
        base_url=choice.base_url if elsewhere else server.base_url,
        api_key=None if elsewhere else server.api_key,
        clock=clock,
        rng=random.SystemRandom(),
        tries_max=tries_max,
    )


def _check_url(base_url: str | None) -> None:
    """Take an address without secrets in it: it is kept in a file, and shown."""
    if base_url is None:
        return
    try:
        parts = urlsplit(base_url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
        parts = urlsplit("")
    if not sound:
        raise InvalidError("base_url is no address that starts with http:// or https://")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InvalidError("base_url has a user name, a password or a query in it: secrets belong into the settings")
