"""Where the embedders of a running node come from, and what it keeps in mind of a move for its next start."""

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from engram import disk
from engram.clock import Clock
from engram.errors import ConfigError, StorageError
from engram.inference import choice
from engram.inference.choice import AnyEmbedder, Choice, Server
from engram.inference.embedder import LocalEmbedder, RemoteEmbedder
from engram.inference.minilm import MiniLmEmbedder
from engram.inference.openai_embedder import TRIES_MAX, OpenAIEmbedder
from engram.projections.lance_rows import Space

FILE: Final = "embedder.json"
"""Beside the log. Without it a node starts with the embedder of its settings, or not at all."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Which embedder a node uses in place of the one that its settings name. No secret is in it."""

    model: str
    dimension: int
    base_url: str | None = None
    settings_model: str
    settings_dimension: int
    """What the settings named when it was written: once they name another, they are meant, and this is void."""


def read_note(folder: Path, settings: Space) -> Note | None:
    """Return what the node kept in mind; None when there is nothing, or the settings have changed since.

    Raises:
        ConfigError: The file cannot be read.
    """
    path = folder / FILE
    try:
        note = msgspec.json.decode(path.read_bytes(), type=Note)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): delete it, and set EMBEDDER to what is stored") from error
    return note if (note.settings_model, note.settings_dimension) == settings else None


class EmbedderSource:
    """Makes embedders for whatever vectors there are."""

    def __init__(self, folder: Path, server: Server, settings: Space, note: Note | None, clock: Clock) -> None:
        self._folder = folder
        self._server = server
        self._settings = settings
        self._clock = clock
        self._addresses: dict[Space, str] = {}
        """Servers of models that were named by a request."""
        if note is not None and note.base_url is not None:
            self._addresses[Space(note.model, note.dimension)] = note.base_url

    async def first(self, space: Space) -> AnyEmbedder:
        """Return an embedder whose vectors are of `space`, to start with: `prepare` it while others are served.

        Raises:
            ConfigError: There is none, as the node is set up.
        """
        return await self._made(choice.stored(*space, self._addresses.get(space)), TRIES_MAX)

    async def make(self, space: Space) -> AnyEmbedder:
        """Return an embedder whose vectors are of `space`, prepared.

        Raises:
            ConfigError: There is none, as the node is set up.
        """
        made = await self.first(space)
        await self.prepare(made)
        return made

    async def make_chosen(self, wanted: Choice, *, tries_max: int = TRIES_MAX) -> AnyEmbedder:
        """Return the embedder that was chosen, prepared.

        Raises:
            ConfigError: A package is missing, or nothing says where the server is.
        """
        made = await self._made(wanted, tries_max)
        await self.prepare(made)
        return made

    async def prepare(self, embedder: LocalEmbedder | RemoteEmbedder) -> None:
        """Load what an embedder needs before its first query comes: OpenAI's client takes most of a second."""
        if isinstance(embedder, OpenAIEmbedder):
            await embedder.prepare()

    async def _made(self, wanted: Choice, tries_max: int) -> AnyEmbedder:
        return await asyncio.to_thread(choice.make, wanted, self._server, self._clock, tries_max=tries_max)

    def remember(self, wanted: Choice) -> None:
        """Keep in mind where the server of a model is."""
        space = Space(wanted.model, wanted.dimension)
        self._addresses.pop(space, None)
        if wanted.base_url is not None:
            self._addresses[space] = wanted.base_url

    async def note(self, space: Space) -> None:
        """Write down, durably, that the embedder of `space` is used; nothing if the settings say so.

        Raises:
            StorageError: The disk failed.
        """
        if space == self._settings and space not in self._addresses:
            await asyncio.to_thread(disk.remove, self._folder / FILE)
            return
        note = Note(
            model=space.model,
            dimension=space.dimension,
            base_url=self._addresses.get(space),
            settings_model=self._settings.model,
            settings_dimension=self._settings.dimension,
        )
        await asyncio.to_thread(_write, self._folder / FILE, msgspec.json.encode(note))

    async def close(self, embedder: LocalEmbedder | RemoteEmbedder) -> None:
        """Let go of an embedder."""
        if isinstance(embedder, MiniLmEmbedder | OpenAIEmbedder):
            await embedder.close()


def _write(path: Path, data: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_bytes(data)
    except OSError as error:
        raise StorageError(f"{fresh}: {error.strerror}") from error
    disk.move_durably(fresh, path)
