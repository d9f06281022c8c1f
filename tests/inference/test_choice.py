"""Which embedder a setting, a request or stored vectors mean, and who is told the key."""

import asyncio
from importlib.util import find_spec
from pathlib import Path

import pytest

from engram.clock import SystemClock
from engram.config import MODEL_DIMENSIONS, Config
from engram.errors import ConfigError, InvalidError
from engram.foundation import make_embedder, space_of_settings
from engram.inference import builtin, choice, minilm
from engram.inference.builtin import BuiltinEmbedder
from engram.inference.choice import Choice, Server, Wanted
from engram.inference.minilm import MiniLmEmbedder
from engram.inference.openai_embedder import OpenAIEmbedder
from engram.projections.lance_rows import Space
from tests.fake_openai import FakeOpenAI

NOWHERE = Server(None, None)
OURS = Server("http://ours:1", "sk-secret")
HAS_MINILM = find_spec(minilm.PACKAGE) is not None and find_spec(minilm.RUNTIME) is not None
needs_minilm = pytest.mark.skipif(not HAS_MINILM, reason=f"NOT CHECKED: the extra is not installed: {minilm.HINT}")


def config(folder: Path, **settings: str) -> Config:
    return Config.from_env({"ENGRAM_DATA_DIR": str(folder), **settings})


def test_the_settings_of_a_new_node_mean_the_builtin_one(tmp_path: Path) -> None:
    made = make_embedder(config(tmp_path), SystemClock())

    assert isinstance(made, BuiltinEmbedder)
    assert space_of_settings(config(tmp_path)) == Space(made.model, made.dimension)


@needs_minilm
async def test_the_settings_can_mean_minilm(tmp_path: Path) -> None:
    settings = config(tmp_path, EMBEDDER="minilm")
    made = await asyncio.to_thread(make_embedder, settings, SystemClock())

    assert isinstance(made, MiniLmEmbedder)
    assert space_of_settings(settings) == Space(made.model, made.dimension) == Space("all-MiniLM-L6-v2-int8", 384)
    assert (await made.embed(["a lake"])).shape == (1, 384)
    await made.close()


def test_without_its_extra_minilm_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm, "RUNTIME", "no_such_package")

    with pytest.raises(ConfigError, match=r"pip install 'engram-server\[minilm\]'"):
        make_embedder(config(tmp_path, EMBEDDER="minilm"), SystemClock())


async def test_the_settings_can_mean_a_servers_model(tmp_path: Path) -> None:
    async with FakeOpenAI(8) as server:
        environ = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-secret", "EMBEDDING_MODEL": "m"}
        made = make_embedder(config(tmp_path, **environ, EMBEDDING_DIMENSION="8"), SystemClock())
        assert isinstance(made, OpenAIEmbedder)
        await made.embed(["a lake"])

        assert server.requests[0].headers["Authorization"] == "Bearer sk-secret"
        assert server.requests[0].body["dimensions"] == 8
        await made.close()


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        (Wanted("builtin"), Choice("builtin", builtin.MODEL, 256)),
        (Wanted("minilm"), Choice("minilm", minilm.MODEL, 384)),
        (Wanted("openai", "m", 8), Choice("openai", "m", 8)),
        (Wanted("openai", "text-embedding-3-small"), Choice("openai", "text-embedding-3-small", 1536)),
        (Wanted("openai", "text-embedding-3-small", 512), Choice("openai", "text-embedding-3-small", 512)),
        (Wanted("openai", "m", 8, "http://theirs:2/v1"), Choice("openai", "m", 8, "http://theirs:2/v1")),
    ],
)
def test_a_request_means(wanted: Wanted, meant: Choice) -> None:
    assert choice.chosen(wanted, OURS, MODEL_DIMENSIONS) == meant


@pytest.mark.parametrize(
    ("wanted", "server", "why"),
    [
        (Wanted("builtin", model="m"), OURS, "model is given, but the embedder 'builtin' has one model"),
        (Wanted("minilm", dimension=384), OURS, "dimension is given"),
        (Wanted("minilm", base_url="http://x"), OURS, "base_url is given"),
        (Wanted("openai"), OURS, "model is None"),
        (Wanted("openai", builtin.MODEL, 256), OURS, "needs the name of a model of its server"),
        (Wanted("openai", "m"), OURS, "dimension must be given: the width of 'm' is not known here"),
        (Wanted("openai", "m", 8), NOWHERE, "base_url here, or OPENAI_API_KEY or OPENAI_BASE_URL"),
        (Wanted("openai", "m", 8, "ftp://x"), OURS, "starts with http:// or https://"),
        (Wanted("openai", "m", 8, "http://"), OURS, "starts with http:// or https://"),
        (Wanted("openai", "m", 8, "http://x:99999"), OURS, "starts with http:// or https://"),
        (Wanted("openai", "m", 8, "http://me:pw@x"), OURS, "secrets belong into the settings"),
        (Wanted("openai", "m", 8, "http://x/v1?key=1"), OURS, "secrets belong into the settings"),
    ],
)
def test_a_request_is_refused(wanted: Wanted, server: Server, why: str) -> None:
    with pytest.raises(InvalidError) as refused:
        choice.chosen(wanted, server, MODEL_DIMENSIONS)

    assert why in str(refused.value)
    assert "pw" not in str(refused.value)


def test_stored_vectors_name_their_embedder() -> None:
    assert choice.stored(builtin.MODEL, 256).kind == "builtin"
    assert choice.stored(minilm.MODEL, 384).kind == "minilm"
    assert choice.stored("m", 8, "http://x") == Choice("openai", "m", 8, "http://x")
    assert choice.stored(builtin.MODEL, 255).kind == "openai"


async def test_the_key_goes_to_the_server_of_the_settings_only() -> None:
    async with FakeOpenAI(8) as ours, FakeOpenAI(8) as theirs:
        server = Server(ours.url, "sk-secret")
        for base_url in (None, ours.url, theirs.url):
            made = choice.make(Choice("openai", "m", 8, base_url), server, SystemClock())
            assert isinstance(made, OpenAIEmbedder)
            await made.embed(["a lake"])
            await made.close()

        assert [request.headers.get("Authorization") for request in ours.requests] == ["Bearer sk-secret"] * 2
        assert [request.headers.get("Authorization") for request in theirs.requests] == [None]


def test_a_servers_model_without_a_server_is_a_matter_of_the_settings() -> None:
    with pytest.raises(ConfigError, match="the model 'm' needs OPENAI_API_KEY or OPENAI_BASE_URL"):
        choice.make(Choice("openai", "m", 8), NOWHERE, SystemClock())
