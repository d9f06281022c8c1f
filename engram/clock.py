"""The only place that reads the system's clocks; everything else takes a `Clock`."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for durations and deadlines."""

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch; may go backwards when the clock is set."""

    def monotonic_s(self) -> float:
        """Return seconds from an arbitrary start; never goes backwards."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()
