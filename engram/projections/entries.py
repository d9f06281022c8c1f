"""What those who read the log see of an entry of it, whichever log that is."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Final, Protocol, TypeVar

BATCH: Final = 1_024
"""Entries that are read at a time."""

Entry_co = TypeVar("Entry_co", bound="LogEntry", covariant=True)


class LogEntry(Protocol):
    """An entry of the replicated log, which knows nothing of events."""

    @property
    def index(self) -> int:
        """Where it stands."""

    @property
    def term(self) -> int:
        """The term it was proposed in."""

    @property
    def kind(self) -> int:
        """0 when `data` holds events."""

    @property
    def data(self) -> bytes:
        """Events, or nothing when they were erased."""


class Read(Protocol[Entry_co]):
    """The read of a log."""

    def __call__(self, after: int, limit: int) -> Awaitable[Sequence[Entry_co]]:
        """Return the first entries behind the index `after`, `limit` of them at most; none at the end."""


async def in_batches(read: Read[Entry_co], after: int) -> AsyncIterator[Sequence[Entry_co]]:
    """Yield all entries behind the index `after`, in order."""
    while batch := await read(after, BATCH):
        yield batch
        after = batch[-1].index
