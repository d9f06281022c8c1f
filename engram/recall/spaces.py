"""Vectors of several makers beside one another, while messages are moved from one embedding model to another.

What one model says of a text cannot be compared with what another says of a query. So each row has the vectors of one
maker, the query has a vector of each, and a row is compared with the query's vector by its own maker only. How near is
near is another matter for each of them: `common_scale` makes up for that.
"""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from engram.projections.lance_rows import Space
from engram.recall.vectors import Chunks, Floats, Numbers, RowVectors, Similarities, none_known

UNNAMED: Final = ""
"""The maker of vectors of which nobody says who made them."""

DRAWN_ROWS: Final = 8
"""A maker's mean and deviation are drawn toward those of all rows as if so many average ones were its own: a single
row, the first that was moved, would be its own mean, and be taken for an average one whatever it says."""

DEVIATIONS_MAX: Final = 4.0
"""Further from the mean a row of several makers does not get, or one odd row would make all others alike."""

Towards = Mapping[Space, Floats]
"""A query's vectors, L2-normalized: one of each maker that could be asked."""


def by_space(vectors: Towards | Floats | None) -> Towards:
    """Return vectors by their makers; a single one is of the unnamed maker."""
    if vectors is None:
        return {}
    return vectors if isinstance(vectors, Mapping) else {Space(UNNAMED, len(vectors)): vectors}


class SpaceVectors:
    """The vectors of one session's rows, by who made them. A row is in one space at most."""

    def __init__(self, parts: Mapping[Space, Chunks]) -> None:
        self._parts = {space: RowVectors(chunks) for space, chunks in parts.items()}

    @property
    def parts(self) -> dict[Space, Chunks]:
        """What there is, by space, in an order that does not depend on how it came; not to be written to."""
        return {space: self._parts[space].chunks for space in sorted(self._parts)}

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return sum(vectors.size_bytes for vectors in self._parts.values())

    def replace(self, space: Space, vectors: Floats, owners: Numbers) -> None:
        """Give rows their vectors of `space`, in place of those they had of any."""
        if not len(owners):
            return
        for other in [other for other in self._parts if other != space]:
            self._parts[other].drop(owners)
            if not len(self._parts[other].chunks.owners):
                del self._parts[other]
        if space not in self._parts:
            self._parts[space] = RowVectors.empty(space.dimension)
        self._parts[space].replace(vectors, owners)

    def similarities(self, query: Towards, rows: int) -> Similarities:
        """Return each row's best cosine with the query's vector by the row's own maker."""
        numbers = {space: number for number, space in enumerate(sorted(query))}
        together: Similarities | None = None
        for space in sorted(self._parts.keys() & query.keys()):
            found = self._parts[space].similarities(query[space], rows)
            if numbers[space]:
                found.spaces[found.known] = numbers[space]
            if together is None:
                together = found
                continue
            together.cosines[found.known] = found.cosines[found.known]
            together.known[found.known] = True
            together.spaces[found.known] = found.spaces[found.known]
        return none_known(rows) if together is None else together


def common_scale(similarities: Similarities) -> Floats:
    """Return how near each known row is to the query, so that rows of different makers can be compared; 0 elsewhere.

    That is the cosine itself where one maker made all. Else it is how far from its maker's mean it is, in its maker's
    deviations.
    """
    cosines, known, spaces = similarities
    if not spaces.any():
        return cosines
    numbers = np.unique(spaces[known])
    if len(numbers) == 1:
        return cosines
    values = cosines.astype(np.float64)
    mean, variance = _moments(values[known])
    scaled = np.zeros(len(values))
    for number in numbers:
        own = known & (spaces == number)
        count = int(np.count_nonzero(own))
        own_mean = (float(values[own].sum()) + DRAWN_ROWS * mean) / (count + DRAWN_ROWS)
        spread = float(np.square(values[own] - own_mean).sum())
        deviation = math.sqrt((spread + DRAWN_ROWS * variance) / (count + DRAWN_ROWS))
        if deviation > 0:
            scaled[own] = np.clip((values[own] - own_mean) / deviation, -DEVIATIONS_MAX, DEVIATIONS_MAX)
    return scaled.astype(np.float32)


def _moments(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    mean = float(values.sum()) / len(values)
    return mean, float(np.square(values - mean).sum()) / len(values)
