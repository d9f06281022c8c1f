"""The embedders of `recall_quality` give what a node would store and ask with; wrong options are said in a line."""

import asyncio
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from aiohttp.test_utils import TestServer

from benchmarks import recall_embedders, recall_quality
from benchmarks.recall_embedders import AnyEmbedder, MiniLmReader, QueryEmbedder, ServedEmbedder
from engram.inference import minilm
from engram.inference.builtin import BuiltinEmbedder
from tools.local_embed_server import Server

TEXTS = ["My sister plays the viola.", " ", "The train was late. " * 50]


@pytest.fixture(scope="module")
def builtin() -> BuiltinEmbedder:
    return BuiltinEmbedder()


def chosen(*arguments: str) -> AnyEmbedder:
    parser = ArgumentParser()
    recall_embedders.add_options(parser)
    return recall_embedders.chosen(parser.parse_args(arguments))


def vectors(embedder: AnyEmbedder, texts: Sequence[str]) -> np.ndarray:
    return np.stack([np.frombuffer(row.vector, "<f2") for row in recall_embedders.vector_rows(embedder, texts)])


def test_the_built_in_embedder_gives_each_message_one_vector_and_a_blank_one_none() -> None:
    embedder = chosen()

    rows = recall_embedders.vector_rows(embedder, TEXTS)

    assert [(row.ordinal, row.start, row.end) for row in rows] == [(0, 0, 26), (2, 0, 1000)]
    assert isinstance(embedder, BuiltinEmbedder)
    assert np.array_equal(vectors(embedder, TEXTS), embedder.embed([TEXTS[0], TEXTS[2]]).astype("<f2"))


def test_minilm_gets_long_messages_in_the_chunks_of_a_node_and_reads_a_query_with_its_weights() -> None:
    pytest.importorskip("onnxruntime", reason="the extra minilm is not installed")
    embedder = chosen("--embedder", "minilm")

    rows = recall_embedders.vector_rows(embedder, TEXTS)

    assert isinstance(embedder, MiniLmReader)
    assert [row.ordinal for row in rows] == [0, 2, 2]
    assert all(row.end - row.start <= minilm.CHUNK_BYTES_MAX for row in rows)
    viola, train = (recall_embedders.pool(embedder, "viola train")({word: 1.0}) for word in ("viola", "train"))
    assert viola @ vectors(embedder, TEXTS[:1])[0] > train @ vectors(embedder, TEXTS[:1])[0]


async def test_a_servers_vectors_are_the_models_and_those_of_a_query_do_not_depend_on_weights(
    builtin: BuiltinEmbedder,
) -> None:
    texts = [TEXTS[0], "The train was late."]
    async with TestServer(Server(builtin, name="b", dimension=256, normalizes=False).application()) as server:
        address = f"http://127.0.0.1:{server.port}"

        def ask() -> tuple[np.ndarray, np.ndarray]:
            embedder = chosen("--embedder", address, "--embedding-dimension", "256")
            assert isinstance(embedder, ServedEmbedder)
            try:
                return vectors(embedder, texts), recall_embedders.pool(embedder, texts[1])({"train": 9.0})
            finally:
                embedder.close()

        stored, query = await asyncio.to_thread(ask)

    assert np.allclose(stored, builtin.embed(texts), atol=1e-3)
    assert np.allclose(query, builtin.embed(texts)[1], atol=1e-6)


def test_only_what_reads_whole_queries_is_asked_for_them(builtin: BuiltinEmbedder) -> None:
    assert not isinstance(builtin, QueryEmbedder)
    assert recall_embedders.pool(builtin, "any") == builtin.embed_query


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--embedder", "mine"], "it must be builtin, minilm or an address"),
        (["--embedder", "http://127.0.0.1:9/v1"], "needs --embedding-dimension"),
    ],
    ids=["name", "width"],
)
def test_wrong_options_are_said_in_a_line(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recall_quality.main([*arguments, "--data", str(tmp_path)]) == 2
    assert told in capsys.readouterr().err
