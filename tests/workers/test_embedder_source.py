"""What a node keeps in mind of a move, and where it finds the embedders of stored vectors."""

import asyncio
from pathlib import Path

import pytest

from engram.clock import SystemClock
from engram.errors import ConfigError, StorageError
from engram.inference import builtin
from engram.inference.builtin import BuiltinEmbedder
from engram.inference.choice import Choice, Server
from engram.inference.openai_embedder import OpenAIEmbedder
from engram.projections.lance_rows import Space
from engram.workers.embedder_source import FILE, EmbedderSource, Note, read_note
from tests.fake_openai import FakeOpenAI

NOWHERE = Server(None, None)
SETTINGS, MOVED = Space(builtin.MODEL, builtin.DIMENSION), Space("m", 8)


def source(folder: Path, *, server: Server = NOWHERE, note: Note | None = None) -> EmbedderSource:
    return EmbedderSource(folder, server, SETTINGS, note, SystemClock())


async def test_what_is_noted_is_read_again_with_the_servers_address_and_no_secret(tmp_path: Path) -> None:
    first = source(tmp_path, server=Server("http://ours", "sk-secret"))
    first.remember(Choice("openai", *MOVED, base_url="http://theirs"))

    await first.note(MOVED)
    note = await asyncio.to_thread(read_note, tmp_path, SETTINGS)
    written = await asyncio.to_thread((tmp_path / FILE).read_text)

    assert note is not None
    assert (note.model, note.dimension, note.base_url) == ("m", 8, "http://theirs")
    assert "sk-secret" not in written


async def test_other_settings_make_a_note_void(tmp_path: Path) -> None:
    await source(tmp_path).note(MOVED)

    assert await asyncio.to_thread(read_note, tmp_path, Space("other", 8)) is None
    assert await asyncio.to_thread(read_note, tmp_path / "elsewhere", SETTINGS) is None


async def test_what_the_settings_say_needs_no_note(tmp_path: Path) -> None:
    await source(tmp_path).note(MOVED)

    await source(tmp_path).note(SETTINGS)

    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []


def test_a_damaged_note_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"model": ')

    with pytest.raises(ConfigError, match=r"embedder\.json cannot be read .* delete it, and set EMBEDDER"):
        read_note(tmp_path, SETTINGS)


async def test_a_note_that_cannot_be_written_is_the_disks_fault(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory"):
        await source(tmp_path / "gone").note(MOVED)


async def test_the_embedder_of_stored_vectors_is_found_where_it_was_noted(tmp_path: Path) -> None:
    async with FakeOpenAI(8) as theirs:
        note = Note(
            model="m", dimension=8, base_url=theirs.url, settings_model=SETTINGS.model,
            settings_dimension=SETTINGS.dimension,
        )  # fmt: skip
        noted = source(tmp_path, note=note)

        own, far = await noted.make(SETTINGS), await noted.make(MOVED)

        assert isinstance(own, BuiltinEmbedder)
        assert isinstance(far, OpenAIEmbedder)
        assert (await far.embed(["a lake"])).shape == (1, 8)
        await noted.close(own)
        await noted.close(far)


async def test_without_an_address_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the model 'm' needs OPENAI_API_KEY or OPENAI_BASE_URL"):
        await source(tmp_path).make(MOVED)
