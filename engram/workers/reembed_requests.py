"""What a request to move to another embedder comes to: checked, tried out on a text, and only then begun."""

from collections.abc import Mapping

from engram.errors import ConfigError, InvalidError
from engram.inference import choice
from engram.inference.choice import AnyEmbedder, Choice, Move, Server, Wanted
from engram.inference.embedder import EmbedderError, RemoteEmbedder
from engram.projections.lance_rows import Space
from engram.workers.batches import PROBE
from engram.workers.embedder_source import EmbedderSource
from engram.workers.moving import Embedders, embeds


class ReembedRequests:
    """Takes requests for the embedders of a node. `widths` are those of models that need no dimension."""

    def __init__(self, embedders: Embedders, source: EmbedderSource, server: Server, widths: Mapping[str, int]) -> None:
        self._embedders = embedders
        self._source = source
        self._server = server
        self._widths = widths

    async def status(self) -> Move:
        """Return how far a move is."""
        return await self._embedders.current()

    async def begin(self, wanted: Wanted) -> Move:
        """Begin a move; the first vectors are in the log when this returns.

        Raises:
            InvalidError: There is no such embedder, or it refuses what it is sent.
            ConflictError: A move is under way, or the embedder is in use already.
            UnavailableError, TimedOutError: It does not answer, or the log does not take its vectors now.
        """
        chosen = choice.chosen(wanted, self._server, self._widths)
        await self._embedders.check(Space(chosen.model, chosen.dimension))
        try:
            embedder = await self._probed(chosen)
            self._source.remember(chosen)
            return await self._embedders.start(embedder)
        except ConfigError as error:
            raise InvalidError(str(error)) from error

    async def _probed(self, chosen: Choice) -> AnyEmbedder:
        """Return the embedder that was chosen, which has embedded a text."""
        embedder = await self._source.make_chosen(chosen, tries_max=1)
        try:
            await _probe(embeds(embedder))
        except BaseException:
            await self._source.close(embedder)
            raise
        if chosen.kind != "openai":
            return embedder
        await self._source.close(embedder)  # it asks its server once; one that is used asks again
        return await self._source.make_chosen(chosen)


async def _probe(embedder: RemoteEmbedder) -> None:
    try:
        await embedder.embed([PROBE])
    except EmbedderError as error:
        if error.permanent:
            raise InvalidError(str(error)) from error
        raise
