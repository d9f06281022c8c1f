"""What those who read the log see of an entry of it, whichever log that is."""

from typing import Protocol


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
