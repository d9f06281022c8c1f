"""The built-in embedder: static token vectors that come with an installed package, so nothing is downloaded.

A text's vector is the sum of the vectors of its tokens, normalized. The package's own `embed` is not used: it pads
every batch to its longest text (ten times slower on mixed lengths) and importing it writes to the root logger. So
only its files are read: the tokenizer and the float16 matrix, which is kept as float32 (32 MB).
"""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from engram.errors import ConfigError

PACKAGE = "wordllama"
"""Only its files are used; it is never imported."""

MODEL = "wordllama-l2-supercat-256"
DIMENSION = 256
"""Also the number of columns of the matrix in the file."""

TOKENS_PER_SUM = 16_384
"""Tokens whose vectors are gathered at once: bounds a long text's working memory to 16 MiB."""

QUERY_WORDS_MAX = 2048
"""Words of queries whose sums are remembered, a kilobyte each: questions share most of their words."""

KNOWN_WORDS_MAX = 32_768
"""Words of texts whose tokens are remembered, some 300 bytes each."""

WORD_CHARACTERS_MAX = 64
"""What is longer is hardly a word, and will hardly come again."""

APART = "</s>"
"""One of the tokenizer's own marks, between words that go through it together."""

_MARK = re.compile("</?s>|<unk>|\u2581")
"""The tokenizer's own, which part a text where they stand in it, and the sign that it writes for a space."""

Vectors = npt.NDArray[np.float32]


class BuiltinEmbedder:
    """Embeds texts on the CPU, a short one in about 30 microseconds. Any thread may call it."""

    model = MODEL
    dimension = DIMENSION

    def __init__(self) -> None:
        """Load the tokenizer and the matrix, in about 0.15 s.

        Raises:
            ConfigError: The package that carries them is not installed, or carries something else.
        """
        # The tokenizer's pool of threads: handing a short text over and waiting for it takes longer than the work.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        folder = _package_folder()
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        [self._apart_id] = self._encode(APART)
        self._matrix = read_matrix(folder / "weights" / "l2_supercat_256.safetensors")
        self._known: dict[str, Sequence[int]] = {}
        self._word = lru_cache(QUERY_WORDS_MAX)(self._sum_of_word)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one L2-normalized row a text; a text without tokens gets a row of zeros."""
        vectors = np.empty((len(texts), self.dimension), np.float32)
        for row, token_ids in enumerate(self._token_ids(texts)):
            vectors[row] = self._sum(token_ids)
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        norms[norms == 0] = 1.0
        vectors /= norms[:, None]
        return vectors

    def embed_query(self, weights: Mapping[str, float]) -> Vectors:
        """Return the L2-normalized sum of the words' token vectors, each word's times its weight.

        Zeros when there are no words, or when they cancel out.
        """
        total = np.zeros(self.dimension, np.float32)
        for word, weight in weights.items():
            total += np.float32(weight) * self._word(word)
        norm = math.sqrt(float(total @ total))
        return total / np.float32(norm) if norm > 0 else total

    def _token_ids(self, texts: Sequence[str]) -> list[Sequence[int]]:
        """Return each text's tokens: those of its words, one after another, because no token has a space inside.

        The tokenizer looks for pairs to merge in a whole text at once, and most words have been seen before. A word
        that may not be looked at by itself never is known, and sends its text through the tokenizer as a whole.
        """
        known = self._known
        parted = [text.split(" ") for text in texts]
        if new := set(chain.from_iterable(parted)).difference(known):
            self._learn(known, new)
        token_ids = [self._tokens_of(known, text, words) for text, words in zip(texts, parted, strict=True)]
        if len(known) > KNOWN_WORDS_MAX:
            self._known = {}  # a new one: another thread may be looking words up in the old one
        return token_ids

    def _learn(self, known: dict[str, Sequence[int]], words: Iterable[str]) -> None:
        """Find the tokens of those of `words` that have the same ones inside a text.

        All go through the tokenizer together, kept apart by its own mark, at which it parts a text before anything else:
        looking at each by itself takes three times as long.
        """
        fit = [word for word in words if 0 < len(word) <= WORD_CHARACTERS_MAX and not _MARK.search(word)]
        if not fit:
            return
        token_ids = self._encode(APART.join(fit))
        start = 0
        for word in fit[:-1]:
            end = token_ids.index(self._apart_id, start)
            known[word] = token_ids[start:end]
            start = end + 1
        known[fit[-1]] = token_ids[start:]

    def _tokens_of(self, known: Mapping[str, Sequence[int]], text: str, words: Sequence[str]) -> Sequence[int]:
        try:
            return list(chain.from_iterable(map(known.__getitem__, words)))
        except KeyError:
            return self._encode(text) if text else ()

    def _encode(self, text: str) -> list[int]:
        # Also for one text the faster call: it leaves out the offsets.
        [encoding] = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return encoding.ids

    def _sum_of_word(self, word: str) -> Vectors:
        return self._sum(self._token_ids([word])[0])

    def _sum(self, token_ids: Sequence[int]) -> Vectors:
        if len(token_ids) <= TOKENS_PER_SUM:
            total: Vectors = self._matrix.take(token_ids, axis=0).sum(axis=0)
            return total
        token_id, count = np.unique(np.asarray(token_ids), return_counts=True)
        total = np.zeros(self.dimension, np.float32)
        for start in range(0, len(token_id), TOKENS_PER_SUM):
            block = slice(start, start + TOKENS_PER_SUM)
            total += count[block].astype(np.float32) @ self._matrix.take(token_id[block], axis=0)
        return total


def _package_folder() -> Path:
    """Return the folder of the package that carries the files, without importing it."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError(f"the built-in embedder needs the package {PACKAGE}, which is not installed")
    return Path(spec.origin).parent


def read_matrix(path: Path) -> Vectors:
    """Return the one matrix of a safetensors file: eight bytes of header length, JSON, then float16 row by row.

    Raises:
        ConfigError: The file cannot be read, or holds something else.
    """
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            entry = json.loads(file.read(header_bytes))["embedding.weight"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"cannot read the built-in embedder's vectors in {path.name}: {error}") from error
    rows, columns = entry["shape"]
    if entry["dtype"] != "F16" or columns != DIMENSION:
        raise ConfigError(f"{path.name} holds {entry['dtype']} vectors of {columns} numbers, not F16 of {DIMENSION}")
    offset = 8 + header_bytes + entry["data_offsets"][0]
    # A plain array: every small sum over a memmap's subclass costs several microseconds more.
    return np.array(np.memmap(path, np.float16, "r", offset=offset, shape=(rows, columns)), np.float32, subok=False)
