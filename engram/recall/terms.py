"""From text to terms: words, stop words, stems, and the 32-bit numbers that stand for stems in an index.

Only hashes are stored, so an index holds no string that an erasure would have to find. About one pair of stems in
100 000 shares a hash, which costs nothing that can be measured.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zlib import crc32

from Stemmer import Stemmer  # type: ignore[import-not-found]

_STOP_WORDS = (
    "a an the and or of to in on at for with is are was were be been it its this that i you he she they we my your his "
    "her their our me him them do does did have has had what when where who how which as by from not but if so"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Words that say nothing about what a message is about."""

_MONTHS = "january february march april may june july august september october november december"
MONTHS = tuple(_MONTHS.split())

_WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday"
WEEKDAYS = tuple(_WEEKDAYS.split())

WORD_CHARS_MAX = 64
"""Longer words are hashed as they stand and not remembered: they are keys, encoded data, or an attack."""

STEMS_MAX = 50_000
"""Words whose term is remembered; about 6 MB. Then the table starts again: cheaper than keeping an order."""

DROPPED = -1
"""Stands for a word that is no term."""

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_SUFFIXES = ("'s", "'re", "'ve", "'ll", "'d", "'m")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_MS = 86_400_000


class TermTable(dict[str, int]):
    """The term of a word, found out at the first look-up; at most `words_max` are remembered."""

    def __init__(self, words_max: int) -> None:
        super().__init__()
        self._words_max = words_max
        self._stemmer = Stemmer("english", 0)

    def __missing__(self, word: str) -> int:
        plain = bare(word)
        if not plain or plain in STOP_WORDS:
            term = DROPPED
        elif len(plain) > WORD_CHARS_MAX:
            return crc32(plain.encode())
        else:
            term = crc32(self._stemmer.stemWord(plain).encode())
        if len(self) >= self._words_max:
            self.clear()
        self[word] = term
        return term


_terms = TermTable(STEMS_MAX)


def words(text: str) -> list[str]:
    """Return the words of `text` in order, lower-case, apostrophes inside them kept."""
    return _WORD.findall(text.lower().replace("’", "'"))  # noqa: RUF001 - the typographic apostrophe


def bare(word: str) -> str:
    """Return a word of `words` without its ending ('s 're 've 'll 'd 'm) and without apostrophes."""
    if "'" not in word:
        return word
    for suffix in _SUFFIXES:
        if word.endswith(suffix):
            return word[: -len(suffix)].replace("'", "")
    return word.replace("'", "")


def terms(found: Iterable[str]) -> list[int]:
    """Return the terms of words in order, repeats included, stop words left out. Values fit 32 bits."""
    return [term for term in map(_terms.__getitem__, found) if term >= 0]


def query_terms(text: str, *, words_max: int) -> dict[str, int]:
    """Return the first `words_max` distinct words of a query that are terms, each with its term."""
    chosen: dict[str, int] = {}
    for word in words(text):
        term = _terms[word]
        if term >= 0:
            chosen.setdefault(bare(word), term)
            if len(chosen) == words_max:
                break
    return chosen


def date_terms(when_ms: int) -> list[int]:
    """Return the terms of a time's date in UTC, as in "08 May 2023 Monday"; none for a time no calendar holds."""
    return _day_terms(when_ms // _DAY_MS)


@lru_cache(maxsize=4096)
def _day_terms(day: int) -> list[int]:
    try:
        date = _EPOCH + timedelta(days=day)
    except OverflowError:
        return []
    return terms([f"{date.day:02d}", MONTHS[date.month - 1], f"{date.year:04d}", WEEKDAYS[date.weekday()]])
