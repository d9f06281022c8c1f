"""A session's recall index as it was: the present one, cut before what came later."""

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from engram.projections.past import Cut
from engram.recall.index import SPEAKERS_MAX, Episodes, Rows, SessionIndex, Uint32s, tables, turns_of
from engram.recall.postings import Matches
from engram.recall.spaces import SpaceVectors, Towards, by_space
from engram.recall.talk import Turns
from engram.recall.vectors import Chunks, Similarities


def as_it_was(index: SessionIndex, cut: Cut) -> SessionIndex:
    """Return `index` without what `cut` says came later; a view, which is stale when `index` changes."""
    size = int(index.rows.ordinals.searchsorted(cut.next_ordinal))
    return index if size == len(index) and not cut.hidden else PastIndex(index, cut, size)


class PastIndex(SessionIndex):
    """The first rows of an index, with the vectors that they had. Takes nothing in."""

    def __init__(self, index: SessionIndex, cut: Cut, size: int) -> None:
        self._index = index
        self._cut = cut
        self._size = size
        self._rows = Rows._make(array[:size] for array in index.rows)

    def __len__(self) -> int:
        return self._size

    @property
    def rows(self) -> Rows:
        return self._rows

    @property
    def speakers(self) -> Collection[str]:
        numbers = self._rows.speakers
        named = numbers[numbers < SPEAKERS_MAX]
        return list(self._index.speakers)[: int(named.max()) + 1 if len(named) else 0]

    @property
    def episodes(self) -> Episodes:
        numbers = self._index.episodes.numbers[: self._size]
        return Episodes(numbers, np.bincount(numbers, self._rows.lengths).astype(np.int64))

    @property
    def turns(self) -> Turns:
        return turns_of(self._rows)

    def ordinal(self, row: int) -> int:
        return int(self._rows.ordinals[row])

    def matches(self, query: Uint32s) -> Matches:
        found = self._index.matches(query)
        there = found.rows < self._size
        return Matches(found.slots[there], found.rows[there], found.counts[there])

    def similarities(self, query: Towards | npt.NDArray[np.float32]) -> Similarities:
        table = SpaceVectors({space: self._held(chunks) for space, chunks in self._index.chunks.items()})
        self._give_earlier(table)
        return table.similarities(by_space(query), self._size)

    def _held(self, chunks: Chunks) -> Chunks:
        # The very rows of then, no more: sums over other blocks are rounded otherwise, and among rows that are all
        # alike the recipe takes a rounding for a difference.
        numbers, scales, owners = chunks
        end = int(owners.searchsorted(self._size))
        held = Chunks(numbers[:end], scales[:end], owners[:end])
        if not self._cut.hidden:
            return held
        stays = ~np.isin(held.owners, self._places(self._cut.hidden)[0])
        return Chunks(held.numbers[stays], held.scales[stays], held.owners[stays])

    def spoken_by(self, name: str) -> npt.NDArray[np.bool_]:
        return self._index.spoken_by(name)[: self._size]

    def _give_earlier(self, table: SpaceVectors) -> None:
        """Give rows the vectors that they had in place of those they have now, which `table` does not hold."""
        for space, ordinals, vectors in tables(self._cut.vectors):
            places, there = self._places(ordinals.tolist())
            table.replace(space, vectors[there], places)

    def _places(self, ordinals: Sequence[int]) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.bool_]]:
        """Return the rows of messages, and which of the messages have one: one may have been deleted a moment ago."""
        wanted = np.array(ordinals, np.uint32)
        places = self._rows.ordinals.searchsorted(wanted)
        there = places < self._size
        there[there] = self._rows.ordinals[places[there]] == wanted[there]
        return places[there], there
