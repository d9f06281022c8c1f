"""Moving a running node, or a cluster, from one embedder to another: begun by a POST, looked at by a GET."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from engram.api.calls import Call
from engram.api.replies import Reply, say
from engram.api.route import Route
from engram.api.services import Reembeds
from engram.errors import NotReadyError
from engram.inference.choice import Kind, Move, Wanted

PATH = "/admin/reembed"

Count = Annotated[int, Meta(ge=0)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]


class ReembedWanted(Struct, kw_only=True, forbid_unknown_fields=True):
    """The embedder to move to. The key of its server stands in the settings of the nodes, never here."""

    embedder: Kind
    model: Annotated[Name, Meta(description="for `openai`: a model of the server")] | None = None
    dimension: (
        Annotated[int, Meta(ge=1, le=65_536, description="numbers in a vector; known of OpenAI's own models")] | None
    ) = None
    base_url: (
        Annotated[
            str,
            Meta(max_length=2000, description="for `openai`: another server than OPENAI_BASE_URL; it is sent no key"),
        ]
        | None
    ) = None


class MoveView(Struct, kw_only=True):
    """How far memory is moved from one embedder to another, as this node sees it."""

    state: Annotated[Literal["none", "running", "done"], Meta(description="none: nothing was moved since it started")]
    model: Annotated[str, Meta(description="who embeds what is new, and all that is moved")]
    dimension: Annotated[int, Meta(ge=1)]
    others: Annotated[list[str], Meta(description="models whose vectors are still there, and searched by")]
    done: Annotated[int, Meta(ge=0, description="messages with vectors of the model")]
    total: Annotated[int, Meta(ge=0, description="messages with vectors")]
    refused: Annotated[int, Meta(ge=0, description="messages that the model refuses: they keep what they had")]
    error: Annotated[str, Meta(description="why it pauses; it goes on by itself")] | None


_wanted = msgspec.json.Decoder(ReembedWanted)


async def start_reembed(call: Call) -> Reply:
    """Begin to give every message vectors of another embedder; meanwhile searches find all of them by both."""
    reembeds = _reembeds(call)
    body = await call.body(_wanted)
    return say(
        _view(await reembeds.begin(Wanted(body.embedder, body.model, body.dimension, body.base_url))), is_begun=True
    )


async def get_reembed(call: Call) -> Reply:
    """Return how far the move is; every node answers for itself, what was refused is known to the leader."""
    return say(_view(await _reembeds(call).status()))


def reembed_routes() -> Sequence[Route]:
    """Return the routes."""
    return (
        Route(
            method="POST",
            path=PATH,
            handler=start_reembed,
            name="start_reembed",
            tag="service",
            request=[ReembedWanted],
            answer=MoveView,
            begins=True,
            problems=["reembedding_running", "embedder_in_use", "embedder_unavailable", "not_ready"],
        ),
        Route(
            method="GET",
            path=PATH,
            handler=get_reembed,
            name="get_reembed",
            tag="service",
            answer=MoveView,
            problems=["not_ready"],
        ),
    )


def _reembeds(call: Call) -> Reembeds:
    reembeds = call.services.reembeds
    if reembeds is None:
        raise NotReadyError("nothing is embedded here")
    return reembeds


def _view(move: Move) -> MoveView:
    return MoveView(
        state=move.state,
        model=move.model,
        dimension=move.dimension,
        others=list(move.others),
        done=move.done,
        total=move.total,
        refused=move.refused,
        error=move.error,
    )
