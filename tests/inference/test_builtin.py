"""The built-in embedder."""

import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from engram.errors import ConfigError
from engram.inference import builtin
from engram.inference.builtin import KNOWN_WORDS_MAX, TOKENS_PER_SUM, BuiltinEmbedder, read_matrix

EMBEDDER = BuiltinEmbedder()

PACKAGE = find_spec(builtin.PACKAGE)
assert PACKAGE is not None
assert PACKAGE.origin is not None
FILES = Path(PACKAGE.origin).parent
TOKENIZER = Tokenizer.from_file(str(FILES / "tokenizers" / "l2_supercat_tokenizer_config.json"))
TOKENIZER.no_padding()
TOKENIZER.no_truncation()
MATRIX = read_matrix(FILES / "weights" / "l2_supercat_256.safetensors")


def cosine(first: str, second: str) -> float:
    one, other = EMBEDDER.embed([first, second])
    return float(one @ other)


def test_rows_have_length_one_and_the_right_width() -> None:
    vectors = EMBEDDER.embed(["a boat on the lake", "x", "😀"])

    assert vectors.shape == (3, EMBEDDER.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)


def test_texts_about_the_same_are_nearer() -> None:
    assert cosine("She plays the violin", "He practises the cello") > cosine("She plays the violin", "tax law reform")


def test_no_texts_are_no_rows() -> None:
    assert EMBEDDER.embed([]).shape == (0, EMBEDDER.dimension)


def test_a_text_without_tokens_is_a_row_of_zeros() -> None:
    assert not EMBEDDER.embed([""]).any()


@given(st.lists(st.text(max_size=40), max_size=20))
def test_a_text_has_the_same_vector_in_any_batch(texts: list[str]) -> None:
    together = EMBEDDER.embed(texts)

    for text, row in zip(texts, together, strict=True):
        np.testing.assert_array_equal(EMBEDDER.embed([text])[0], row)


PIECES = (
    "boat",
    "Boat,",
    "lake",
    "été",
    "湖",
    "😀",
    "x" * 70,
    "<s>",
    "</s>",
    "<unk>",
    "<",
    "\u2581",
    " ",
    " ",
    " ",
    "  ",
    "\n",
    "\t",
    "",
)


def whole_text(text: str) -> npt.NDArray[np.float32]:
    """Return the vector of a text that the tokenizer sees as a whole."""
    token_ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    total: npt.NDArray[np.float32] = MATRIX.take(np.asarray(token_ids, np.int64), axis=0).sum(axis=0)
    return total / np.float32(np.linalg.norm(total) or 1.0)


@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join))
def test_a_text_has_the_tokens_that_it_has_as_a_whole(text: str) -> None:
    np.testing.assert_allclose(EMBEDDER.embed([text])[0], whole_text(text), atol=1e-6)


def test_words_are_forgotten_when_they_are_many_and_vectors_stay_the_same() -> None:
    many = [
        " ".join(f"w{number}" for number in range(start, start + 1000)) for start in range(0, 2 * KNOWN_WORDS_MAX, 1000)
    ]
    before = EMBEDDER.embed(["a boat on the lake"])

    EMBEDDER.embed(many)

    np.testing.assert_array_equal(EMBEDDER.embed(["a boat on the lake"]), before)


def test_a_long_text_does_not_pad_a_short_one() -> None:
    texts = ["violin " * number for number in range(1, 50)]

    np.testing.assert_array_equal(EMBEDDER.embed(texts)[0], EMBEDDER.embed(texts[:1])[0])


@pytest.mark.parametrize("text", ["lake " * 20_000, "a" * 262_144, "x-" * 131_072, "\n" * 262_144, "😀" * 65_536])
def test_the_longest_message_has_a_vector(text: str) -> None:
    (vector,) = EMBEDDER.embed([text])

    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-4)


def test_a_long_text_is_the_sum_of_its_parts() -> None:
    text = "violin garden lake " * TOKENS_PER_SUM

    assert cosine(text, "violin garden lake") == pytest.approx(1.0, abs=1e-3)


def test_a_query_is_the_weighted_sum_of_its_words() -> None:
    violin, lake = EMBEDDER.embed(["violin", "lake"])

    heavy = EMBEDDER.embed_query({"violin": 9.0, "lake": 1.0})

    assert heavy @ violin > heavy @ lake
    assert np.linalg.norm(heavy) == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(EMBEDDER.embed_query({"violin": 3.0}), violin, atol=1e-6)


def test_a_query_without_words_or_weight_is_zeros() -> None:
    assert not EMBEDDER.embed_query({}).any()
    assert not EMBEDDER.embed_query({"violin": 0.0}).any()


def test_loading_leaves_the_root_logger_alone() -> None:
    program = "import logging; from engram.inference.builtin import BuiltinEmbedder; BuiltinEmbedder(); "
    program += "import sys; print(logging.getLogger().handlers, 'wordllama' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[] False"
    assert logging.getLogger("engram").level == logging.NOTSET


def test_a_missing_package_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "PACKAGE", "no_such_package_anywhere")

    with pytest.raises(ConfigError, match="no_such_package_anywhere"):
        BuiltinEmbedder()


def safetensors(path: Path, header: bytes) -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(1024))
    return path


@pytest.mark.parametrize(
    "header",
    [
        b'{"embedding.weight":{"dtype":"F32","shape":[1,256],"data_offsets":[0,1024]}}',
        b'{"embedding.weight":{"dtype":"F16","shape":[1,64],"data_offsets":[0,128]}}',
        b'{"other":{}}',
        b"not json",
    ],
)
def test_other_vectors_are_a_configuration_error(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(ConfigError, match="vectors"):
        builtin.read_matrix(safetensors(tmp_path / "x.safetensors", header))


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        builtin.read_matrix(tmp_path / "absent")


def test_the_matrix_is_read_row_by_row(tmp_path: Path) -> None:
    header = b'{"embedding.weight":{"dtype":"F16","shape":[2,256],"data_offsets":[0,1024]}}'
    path = tmp_path / "x.safetensors"
    rows = np.arange(512, dtype=np.float16).reshape(2, 256)
    path.write_bytes(len(header).to_bytes(8, "little") + header + rows.tobytes())

    np.testing.assert_array_equal(builtin.read_matrix(path), rows.astype(np.float32))
