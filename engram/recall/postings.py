"""Which rows hold a term, and how often: sealed flat arrays, and a tail of what came since.

Row numbers within a term grow, in the sealed part and in the tail, and every row of the tail comes after every sealed
row. So one term's rows are its sealed ones followed by its tail's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engram.recall.columns import Column

TAIL_MIN = 4096
"""Postings that the tail may hold at least: scanning so many for a term takes about a microsecond."""

TAIL_SHARE = 16
"""The tail may also grow to one part in so many of the sealed postings, so that sealing stays cheap per posting."""

COUNT_MAX = 255
"""Counts are bytes: BM25 cannot tell 255 repetitions from more."""

NARROW_ROWS = 65_536
"""Row numbers take two bytes while there are no more rows than this, then four."""

Numbers = npt.NDArray[np.integer]
Uint32s = npt.NDArray[np.uint32]
Uint8s = npt.NDArray[np.uint8]


class Matches(NamedTuple):
    """The postings of a query's terms, by term in the query's order, then by row. Three arrays of one length."""

    slots: Numbers
    """The term's place in the query."""
    rows: Numbers
    counts: Uint8s


class Sealed(NamedTuple):
    """Postings as flat arrays; term number i has those from offsets[i] up to, not including, offsets[i + 1]."""

    terms: Uint32s
    """Ascending."""
    offsets: Uint32s
    rows: Numbers
    """uint16 or uint32."""
    counts: Uint8s


def no_postings() -> Sealed:
    """Return the sealed postings of no rows."""
    return Sealed(np.empty(0, np.uint32), np.zeros(1, np.uint32), np.empty(0, np.uint16), np.empty(0, np.uint8))


class Postings:
    """The postings of one session."""

    def __init__(self, sealed: Sealed) -> None:
        self._sealed = sealed
        self._open_tail()

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        tail = self._tail_terms.size_bytes + self._tail_rows.size_bytes + self._tail_counts.size_bytes
        return tail + sum(array.nbytes for array in self._sealed)

    def add(self, terms: Sequence[int], rows: Sequence[int], counts: Sequence[int]) -> None:
        """Add postings of rows that come after all others, in order of rows; no (term, row) twice."""
        self._tail_terms.extend(terms)
        self._tail_rows.extend(rows)
        self._tail_counts.extend(np.minimum(np.asarray(counts, np.uint32), COUNT_MAX))
        if len(self._tail_terms) > max(TAIL_MIN, len(self._sealed.rows) // TAIL_SHARE):
            self.seal()

    def seal(self) -> Sealed:
        """Merge the tail into the flat arrays and return them; they are not to be written to."""
        if len(self._tail_terms):
            self._sealed = _merge(self._sealed, self._tail_terms.array, self._tail_rows.array, self._tail_counts.array)
            self._open_tail()
        return self._sealed

    def matches(self, query: Uint32s) -> Matches:
        """Return the postings of the terms of `query`, which are distinct."""
        sizes = np.zeros(len(query), np.intp)
        rows: list[Numbers] = [np.empty(0, np.uint16)]
        counts: list[Uint8s] = [np.empty(0, np.uint8)]
        for slot, (term, place) in enumerate(zip(query.tolist(), self._places(query), strict=True)):
            if place is not None:
                rows.append(self._sealed.rows[place])
                counts.append(self._sealed.counts[place])
                sizes[slot] = len(rows[-1])
            if len(self._tail_terms):
                at = np.flatnonzero(self._tail_terms.array == term)
                rows.append(self._tail_rows.array[at])
                counts.append(self._tail_counts.array[at])
                sizes[slot] += len(at)
        return Matches(np.arange(len(query)).repeat(sizes), np.concatenate(rows), np.concatenate(counts))

    def _places(self, query: Uint32s) -> list[slice | None]:
        """Return where each term's postings lie in the sealed part."""
        terms, offsets = self._sealed.terms, self._sealed.offsets
        starts, ends = terms.searchsorted(query), terms.searchsorted(query, side="right")
        firsts, lasts = offsets[starts].tolist(), offsets[ends].tolist()
        return [slice(first, last) if last > first else None for first, last in zip(firsts, lasts, strict=True)]

    def _open_tail(self) -> None:
        self._tail_terms = Column(np.empty(0, np.uint32))
        self._tail_rows = Column(np.empty(0, np.uint32))
        self._tail_counts = Column(np.empty(0, np.uint8))


def _merge(sealed: Sealed, tail_terms: Uint32s, tail_rows: Uint32s, tail_counts: Uint8s) -> Sealed:
    """Return `sealed` with the tail's postings put behind those of the same term."""
    order = np.argsort(tail_terms, kind="stable")
    tail_terms, tail_rows, tail_counts = tail_terms[order], tail_rows[order], tail_counts[order]
    new_terms, new_sizes = np.unique(tail_terms, return_counts=True)
    terms = np.union1d(sealed.terms, new_terms)
    sizes = np.zeros(len(terms), np.int64)
    sizes[terms.searchsorted(sealed.terms)] = np.diff(sealed.offsets)
    sizes[terms.searchsorted(new_terms)] += new_sizes
    offsets = np.zeros(len(terms) + 1, np.uint32)
    np.cumsum(sizes, out=offsets[1:])
    behind = sealed.offsets[sealed.terms.searchsorted(tail_terms, side="right")].astype(np.intp)
    wide = int(tail_rows.max()) >= NARROW_ROWS
    rows = sealed.rows.astype(np.uint32 if wide else np.uint16, copy=False)
    return Sealed(terms, offsets, np.insert(rows, behind, tail_rows), np.insert(sealed.counts, behind, tail_counts))
