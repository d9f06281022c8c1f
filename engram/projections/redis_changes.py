"""Which sessions have changed since they were written to Redis. Pure; one owner.

Between the entry that changed a session and the write that carries it to Redis, its readers are sent to the primary
store: that is all that a reader needs to know, and it is known without asking anybody.
"""

from collections.abc import Container, Iterable, Sequence
from typing import Final

from engram.projections.redis_keys import SessionName

CHANGES_MAX: Final = 100_000
"""Sessions kept in mind, about 20 MB. When there are more, all sessions are compared instead."""


class Changes:
    """Sessions that wait to be written, each with the first entry of the log that changed it."""

    def __init__(self, *, changes_max: int = CHANGES_MAX) -> None:
        self._waiting: dict[SessionName, int] = {}
        """In the order of their entries."""
        self._taken: dict[SessionName, int] = {}
        self.changes_max = changes_max
        self.has_overflowed = False
        """There were too many; they are not known any more."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._taken)

    def __contains__(self, name: object) -> bool:
        return name in self._waiting or name in self._taken

    def add(self, names: Iterable[SessionName], log_index: int) -> None:
        """Note that the entry at `log_index` changed sessions; it never decreases."""
        for name in names:
            self._waiting.setdefault(name, log_index)
        if len(self._waiting) > self.changes_max:
            self._waiting.clear()
            self.has_overflowed = True

    def take(self, count: int) -> Sequence[SessionName]:
        """Return up to `count` sessions to be written now, the longest waiting ones; those taken before come again.

        What has changed again since it was taken is written as it is now, so that change is taken with it.
        """
        for name in self._taken:
            self._waiting.pop(name, None)
        for name in list(self._waiting)[: max(0, count - len(self._taken))]:
            self._taken[name] = self._waiting.pop(name)
        return list(self._taken)

    def done(self, names: Iterable[SessionName]) -> None:
        """Note that sessions were written as they were when they were taken, or later."""
        for name in names:
            self._taken.pop(name, None)

    def forget(self) -> None:
        """Forget all: every session is going to be compared."""
        self._waiting.clear()
        self._taken.clear()
        self.has_overflowed = False

    def first_index(self, without: Container[SessionName] = ()) -> int | None:
        """Return the first entry of the log of which something waits, that is not about to be written: `without`."""
        taken = (log_index for name, log_index in self._taken.items() if name not in without)
        firsts = [next(changes, None) for changes in (taken, iter(self._waiting.values()))]
        return min((first for first in firsts if first is not None), default=None)
