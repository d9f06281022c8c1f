"""Growing arrays: what an index appends to without copying itself for every message."""

from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

HEADROOM = 8
"""A full column grows by one part in so many: memory is worth more than copies."""

ROWS_MIN = 16
"""Rows that a column grows by at least."""

T = TypeVar("T", bound=np.generic)


class Column(Generic[T]):
    """A one- or two-dimensional array that grows at its end. Starts as a view of `data`, which it never writes to."""

    __slots__ = ("_data", "_owned", "_size")

    def __init__(self, data: npt.NDArray[T]) -> None:
        self._data = data
        self._size = len(data)
        self._owned = False

    def __len__(self) -> int:
        return self._size

    @property
    def array(self) -> npt.NDArray[T]:
        """The values, without a copy; not to be written to, and not to be kept across a change."""
        return self._data[: self._size]

    @property
    def size_bytes(self) -> int:
        """Memory held, headroom included."""
        return self._data.nbytes

    def extend(self, values: npt.ArrayLike) -> None:
        """Append `values`, which must fit the column's type."""
        added = np.asarray(values, self._data.dtype)
        size = self._size + len(added)
        if size > len(self._data) or not self._owned:
            self._grow(max(size + size // HEADROOM, ROWS_MIN))
        self._data[self._size : size] = added
        self._size = size

    def put(self, places: npt.NDArray[np.integer], values: npt.ArrayLike) -> None:
        """Overwrite the values at `places`."""
        if not self._owned:
            self._grow(self._size)
        self._data[places] = values

    def _grow(self, room: int) -> None:
        grown = np.empty((room, *self._data.shape[1:]), self._data.dtype)
        grown[: self._size] = self._data[: self._size]
        self._data = grown
        self._owned = True
