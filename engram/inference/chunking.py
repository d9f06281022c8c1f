"""Splitting what is too long to embed at once, and grouping what is short enough to be embedded together.

Pure. Lengths are UTF-8 bytes: no tokenizer makes more tokens than that, so one limit fits every model.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

Sized = TypeVar("Sized")


class Span(NamedTuple):
    """The characters [start, end) of a text."""

    start: int
    end: int


_sentence_end = re.compile(r"(?:[.!?…]['\")\]]*\s+|[。！？]+\s*|\n+)")  # noqa: RUF001 - full-width marks end sentences too
_white_space = re.compile(r"\s+")


def split(text: str, bytes_max: int) -> list[Span]:
    """Return the spans of `text`, none above `bytes_max` bytes in UTF-8, that cover it without gaps or overlaps.

    A span ends behind a sentence where one ends in its second half, else behind white space there, else anywhere but
    inside a character. `bytes_max` is 4 or more: the longest character.
    """
    assert bytes_max >= 4, f"{bytes_max} bytes may not hold one character"  # noqa: PLR2004 - as the docstring says
    spans: list[Span] = []
    start = 0
    while start < len(text):
        end = _reach(text, start, bytes_max)
        if end < len(text):
            end = _border(text, start, end)
        spans.append(Span(start, end))
        start = end
    return spans


def group(items: Sequence[Sized], sizes: Sequence[int], *, items_max: int, size_max: int) -> Iterator[list[Sized]]:
    """Yield `items` in order, in groups within both limits; one that is over the size alone is a group of its own."""
    waiting: list[Sized] = []
    waiting_size = 0
    for item, size in zip(items, sizes, strict=True):
        if waiting and (len(waiting) == items_max or waiting_size + size > size_max):
            yield waiting
            waiting, waiting_size = [], 0
        waiting.append(item)
        waiting_size += size
    if waiting:
        yield waiting


def _reach(text: str, start: int, bytes_max: int) -> int:
    """Return the end of the longest span from `start` that has `bytes_max` bytes at most."""
    window = text[start : start + bytes_max]
    if len(window.encode()) <= bytes_max:
        return start + len(window)
    return start + len(window.encode()[:bytes_max].decode(errors="ignore"))


def _border(text: str, start: int, end: int) -> int:
    """Return the best place to end a span in the second half of [start, end)."""
    middle = start + (end - start + 1) // 2
    for pattern in (_sentence_end, _white_space):
        border = max((found.end() for found in pattern.finditer(text, middle, end)), default=None)
        if border is not None:
            return border
    return end
