"""When the node was meant to answer. Outside of these times no silence and no error is excused."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Uptime:
    """The times at which somebody had taken the node down."""

    def __init__(self) -> None:
        self._downs: list[tuple[float, float]] = []
        self._down_since: float | None = None

    @contextmanager
    def down(self) -> Iterator[None]:
        """The node is taken down, and is back and ready when this is left."""
        assert self._down_since is None, "it is down already"
        self._down_since = perf_counter()
        try:
            yield
        finally:
            self._downs.append((self._down_since, perf_counter()))
            self._down_since = None

    def excuses(self, from_s: float, to_s: float) -> bool:
        """Return whether the node was down at any moment between these."""
        if self._down_since is not None and self._down_since <= to_s:
            return True
        return any(since <= to_s and from_s <= until for since, until in self._downs)
