"""From text to terms: words, stop words, stems, and the 32-bit numbers that stand for stems in an index.

Only hashes are stored, so an index holds no string that an erasure would have to find. About one pair of stems in
100 000 shares a hash, which costs nothing that can be measured.

No language is assumed: see `languages` for which stemmer a word gets. Scripts without spaces are cut into pairs of
characters, and accents are taken off the stems, so that a query typed without them finds the text that has them.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from itertools import pairwise
from typing import NamedTuple
from zlib import crc32

from Stemmer import Stemmer  # type: ignore[import-not-found]

from engram.recall.languages import CYRILLIC_SMALL_WORDS, ENGLISH, SMALL_WORDS, language_of, stemmer_of

_STOP_WORDS = (
    "a an the and or of to in on at for with is are was were be been it its this that i you he she they we my your his "
    "her their our me him them do does did have has had what when where who how which as by from not but if so"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""English words that say nothing about what a message is about."""

_MONTHS = "january february march april may june july august september october november december"
MONTHS = tuple(_MONTHS.split())

_WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday"
WEEKDAYS = tuple(_WEEKDAYS.split())

WORD_CHARS_MAX = 64
"""Longer words are hashed as they stand and not remembered: they are keys, encoded data, or an attack."""

STEMS_MAX = 50_000
"""Words whose term is remembered; about 6 MB. Then the table starts again: cheaper than keeping an order."""

OTHER_STEMS_MAX = 10_000
"""The same for each other language."""

ROW_MARKS_MIN, QUERY_MARKS_MIN = 1, 2
"""Common words of a language that make a text one of it. A row keeps its English forms in any case, so one is enough;
in a query one may be a name ("Los Angeles")."""

DROPPED = -1
"""Stands for a word that is no term."""


def _ranges(points: Iterable[int]) -> str:
    """Return the inside of a character class that matches these code points, which ascend."""
    found: list[list[int]] = []
    for point in points:
        if found and point == found[-1][1] + 1:
            found[-1][1] = point
        else:
            found.append([point, point])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in found)


# Vowel signs and accents of their own are no letters to Python, but part of the word: Hindi, Thai, decomposed accents.
_SIGNS = _ranges(
    point
    for first, end in ((0x0300, 0x1E00), (0x20D0, 0x2100), (0x3099, 0x309B), (0xA800, 0xAC00), (0x11000, 0x12000))
    for point in range(first, end)
    if unicodedata.category(chr(point))[0] == "M"
)
_LETTERS = rf"[^\W_]+(?:[{_SIGNS}]+[^\W_]*)*"
_ASCII_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_WORD = re.compile(rf"{_LETTERS}(?:'{_LETTERS})*")
# Han and Kana say something one by one; the others' letters only in pairs.
_IDEOGRAPHS = "\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_SYLLABLES = "\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\uac00-\ud7a3"
_UNSPACED = re.compile(f"[{_IDEOGRAPHS}]+|[{_SYLLABLES}]+")
_PIECE = re.compile(f"[{_IDEOGRAPHS}]+|[{_SYLLABLES}]+|[^{_IDEOGRAPHS}{_SYLLABLES}]+")
_IDEOGRAPH = re.compile(f"[{_IDEOGRAPHS}]")
_ELISION = re.compile(r"(?:l|d|j|qu|c|n|m|s|t|dell|all|nell|sull|un)'(?=\w{3})")
_SUFFIXES = ("'s", "'re", "'ve", "'ll", "'d", "'m")
_PLAIN_LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ł": "l", "\u0131": "i"})
_FOLDED_END = 0x0530
"""Accents are taken off letters below, Latin, Greek and Cyrillic ones; later scripts write vowels that way."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_MS = 86_400_000


class Counted(NamedTuple):
    """The terms of a row."""

    counts: Counter[int]
    """How often each occurs."""
    length: int
    """How many words are terms, repeats included."""


class TermTable(dict[str, int]):
    """The term of a word in a text of one language, found out at the first look-up; at most `words_max` remembered."""

    def __init__(self, words_max: int, language: str = ENGLISH) -> None:
        super().__init__()
        self._words_max = words_max
        self._language = language
        self._stop_words = STOP_WORDS if language == ENGLISH else SMALL_WORDS[language]

    def __missing__(self, word: str) -> int:
        plain = bare(word)
        if not plain or plain in self._stop_words or plain in CYRILLIC_SMALL_WORDS:
            term = DROPPED
        elif len(plain) > WORD_CHARS_MAX:
            return crc32(plain.encode())
        else:
            term = crc32(_stem(plain, stemmer_of(plain, self._language)).encode())
        if len(self) >= self._words_max:
            self.clear()
        self[word] = term
        return term


@cache
def _stemmer(name: str) -> Stemmer:
    return Stemmer(name, 0)


def _stem(word: str, stemmer: str) -> str:
    """Return a word's stem without accents. English has none to go by; endings of other languages have."""
    if stemmer == ENGLISH:
        stem: str = _stemmer(stemmer).stemWord(folded(word))
        return stem
    return folded(_stemmer(stemmer).stemWord(word))


_english = TermTable(STEMS_MAX)
_tables = {ENGLISH: _english} | {language: TermTable(OTHER_STEMS_MAX, language) for language in SMALL_WORDS}


def words(text: str) -> list[str]:
    """Return the words of `text` in order, lower-case, apostrophes inside them kept.

    Scripts without spaces give pairs of characters, ideographs also each by itself.
    """
    plain = text.lower().replace("’", "'")  # noqa: RUF001 - the typographic apostrophe
    if plain.isascii():
        return _ASCII_WORD.findall(plain)
    plain = unicodedata.normalize("NFKC", plain).lower()
    found = _WORD.findall(plain)
    return list(_cut(found)) if _UNSPACED.search(plain) else found


def _cut(found: Iterable[str]) -> Iterator[str]:
    """Yield words, those of scripts without spaces in pieces."""
    for word in found:
        for piece in _PIECE.findall(word):
            if not _UNSPACED.match(piece) or len(piece) == 1:
                yield piece
                continue
            if _IDEOGRAPH.match(piece):
                yield from piece
            yield from map("".join, pairwise(piece))


def bare(word: str) -> str:
    """Return a word of `words` without its ending ('s 're 've 'll 'd 'm), its article (l' d' qu') and apostrophes."""
    if "'" not in word:
        return word
    word = _ELISION.sub("", word, count=1)
    for suffix in _SUFFIXES:
        if word.endswith(suffix):
            return word[: -len(suffix)].replace("'", "")
    return word.replace("'", "")


def folded(stem: str) -> str:
    """Return a stem without accents, so that who types none finds it too."""
    if stem.isascii():
        return stem
    if stem[0] >= chr(_FOLDED_END):
        return stem
    apart = unicodedata.normalize("NFD", stem.translate(_PLAIN_LETTERS))
    return "".join(letter for letter in apart if not unicodedata.combining(letter)) or stem


def terms(found: Iterable[str], language: str = ENGLISH) -> list[int]:
    """Return the terms of words in order, repeats included, stop words left out. Values fit 32 bits."""
    return [term for term in map(_tables[language].__getitem__, found) if term >= 0]


def counted(found: Sequence[str], dates: Sequence[int]) -> Counted:
    """Return the terms of a row with these words and the terms of its date.

    In another language than English a word also has its form in that language, where it is another one, for the same
    length: a query of a word or two may be taken for English.
    """
    plain = [*dates, *terms(found)]
    counts = Counter(plain)
    language = language_of(found, ROW_MARKS_MIN)
    if language != ENGLISH:
        own, english = _tables[language], _english
        counts.update(own[word] for word in found if own[word] not in (DROPPED, english[word]))
    return Counted(counts, len(plain))


def query_terms(text: str, *, words_max: int) -> dict[str, int]:
    """Return the first `words_max` distinct words of a query that are terms, each with its term."""
    chosen: dict[str, int] = {}
    found = words(text)
    table = _tables[language_of(found, QUERY_MARKS_MIN)]
    for word in found:
        term = table[word]
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
