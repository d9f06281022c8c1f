"""A session's vectors: signed bytes with one scale each, a quarter of float32 at its speed. A row may have several."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engram.recall.columns import Column

QUANTUM_MAX = 127
"""The largest number of a vector becomes this."""

BLOCK_ROWS = 256
"""Vectors turned back into floats at once: they stay in the processor's cache. A larger block is new memory from the system
for each session, which costs more than it saves: 16 ms for a search in 20 000 messages instead of 12."""

Floats = npt.NDArray[np.float32]
Uint32s = npt.NDArray[np.uint32]
Numbers = npt.NDArray[np.integer]


class Chunks(NamedTuple):
    """Vectors in order of their rows: three arrays of one length."""

    numbers: npt.NDArray[np.int8]
    """One vector a line."""
    scales: Floats
    """What the numbers are multiplied with."""
    owners: Uint32s
    """The row that each vector belongs to, ascending."""


class Similarities(NamedTuple):
    """How near each row is to a query."""

    cosines: Floats
    """From -1 to 1; 0 where there is no vector."""
    known: npt.NDArray[np.bool_]
    """Whether a row has a vector."""
    spaces: npt.NDArray[np.uint8]
    """Which of the query's vectors a row was compared with; 0 also where it has none."""


def none_known(rows: int) -> Similarities:
    """Return what is known of so many rows without vectors, or without a query's."""
    return Similarities(np.zeros(rows, np.float32), np.zeros(rows, np.bool_), np.zeros(rows, np.uint8))


def no_chunks(dimension: int = 0) -> Chunks:
    """Return the vectors of rows that have none."""
    return Chunks(np.empty((0, dimension), np.int8), np.empty(0, np.float32), np.empty(0, np.uint32))


class RowVectors:
    """The vectors of one session's rows, all of one dimension."""

    def __init__(self, chunks: Chunks) -> None:
        self._open(chunks)

    @classmethod
    def empty(cls, dimension: int) -> "RowVectors":
        """Return the vectors of rows that have none."""
        return cls(no_chunks(dimension))

    @property
    def dimension(self) -> int:
        """Numbers in a vector; 0 before there is one."""
        return int(self._numbers.array.shape[1])

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self._numbers.size_bytes + self._scales.size_bytes + self._owners.size_bytes

    @property
    def chunks(self) -> Chunks:
        """What there is; not to be written to."""
        return Chunks(self._numbers.array, self._scales.array, self._owners.array)

    def replace(self, vectors: Floats, owners: Numbers) -> None:
        """Give rows their vectors, in place of those they had. Vectors of another dimension start everything again.

        Zero vectors, and vectors with a number that is not finite, leave their row without one.
        """
        if not len(owners):
            return
        if vectors.shape[1] != self.dimension:
            self._open(no_chunks(vectors.shape[1]))
        order = np.argsort(owners, kind="stable")
        added, rows = _quantized(vectors[order], owners[order])
        last = int(self._owners.array[-1]) if len(self._owners) else -1
        if int(rows[0]) > last:
            self._append(added)
        elif not self._overwrite(added, rows):
            self._rebuild(added, rows)

    def drop(self, owners: Numbers) -> None:
        """Take rows' vectors away."""
        numbers, scales, held = self.chunks
        kept = ~np.isin(held, owners)
        if not kept.all():
            self._open(Chunks(numbers[kept], scales[kept], held[kept]))

    def similarities(self, query: Floats, rows: int) -> Similarities:
        """Return each row's best cosine with `query`, which is L2-normalized. Another dimension knows nothing."""
        chunks = self.chunks
        if not len(chunks.owners) or len(query) != self.dimension:
            return none_known(rows)
        cosines = _products(chunks.numbers, query)
        cosines *= chunks.scales
        np.minimum(cosines, 1.0, out=cosines)  # with the next line a third of what `clip` takes for a session
        np.maximum(cosines, -1.0, out=cosines)
        if len(cosines) == rows and self._one_each():
            return Similarities(cosines, np.ones(rows, np.bool_), np.zeros(rows, np.uint8))
        starts = np.flatnonzero(np.diff(chunks.owners, prepend=-1))
        found = none_known(rows)
        found.cosines[chunks.owners[starts]] = np.maximum.reduceat(cosines, starts)
        found.known[chunks.owners[starts]] = True
        return found

    def _open(self, chunks: Chunks) -> None:
        self._numbers = Column(chunks.numbers)
        self._scales = Column(chunks.scales)
        self._owners = Column(chunks.owners)
        self._single: bool | None = None

    def _one_each(self) -> bool:
        """Whether as many vectors as rows means one vector a row: none is left out and none comes twice."""
        if self._single is None:
            owners = self._owners.array
            self._single = bool((owners[1:] != owners[:-1]).all())
        return self._single

    def _append(self, added: Chunks) -> None:
        self._numbers.extend(added.numbers)
        self._scales.extend(added.scales)
        self._owners.extend(added.owners)
        self._single = None

    def _overwrite(self, added: Chunks, rows: Numbers) -> bool:
        """Write in place where one vector takes the place of one: a delta that is read twice costs nothing."""
        held = self._owners.array
        before = int(rows.searchsorted(held[-1], side="right"))
        again = rows[:before]
        first, behind = held.searchsorted(again), held.searchsorted(again, side="right")
        one_each = (behind - first == 1).all() and (again[1:] != again[:-1]).all()
        if not one_each or len(added.owners) != len(rows):
            return False
        self._numbers.put(first, added.numbers[:before])
        self._scales.put(first, added.scales[:before])
        self._append(Chunks(added.numbers[before:], added.scales[before:], added.owners[before:]))
        return True

    def _rebuild(self, added: Chunks, rows: Numbers) -> None:
        old = self.chunks
        kept = ~np.isin(old.owners, rows)
        owners = np.concatenate([old.owners[kept], added.owners])
        order = np.argsort(owners, kind="stable")
        numbers = np.concatenate([old.numbers[kept], added.numbers])[order]
        scales = np.concatenate([old.scales[kept], added.scales])[order]
        self._open(Chunks(numbers, scales, owners[order]))


def _quantized(vectors: Floats, owners: Numbers) -> tuple[Chunks, Numbers]:
    """Return the usable ones of `vectors` as bytes, and all the rows that they were meant for."""
    largest = np.abs(vectors).max(axis=1, initial=0.0)
    usable = np.isfinite(largest) & (largest > 0)
    if not usable.all():
        vectors, largest = vectors[usable], largest[usable]
    scales = (largest / QUANTUM_MAX).astype(np.float32)
    numbers = np.rint(vectors / scales[:, None]).astype(np.int8)
    return Chunks(numbers, scales, owners[usable].astype(np.uint32)), owners


def _products(numbers: npt.NDArray[np.int8], query: Floats) -> Floats:
    """Return the inner product of each line with `query`."""
    products = np.empty(len(numbers), np.float32)
    block = np.empty((min(BLOCK_ROWS, len(numbers)), numbers.shape[1]), np.float32)
    for start in range(0, len(numbers), BLOCK_ROWS):
        end = min(start + BLOCK_ROWS, len(numbers))
        floats = block[: end - start]
        np.copyto(floats, numbers[start:end])
        np.dot(floats, query, out=products[start:end])
    return products
