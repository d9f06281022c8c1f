"""The streams of events that are open: how many there may be, and how they end."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from engram.errors import OverloadedError

ENDLESS = web.RequestKey("endless", bool)
"""Noted with a request whose answer lasts as long as its client stays."""

STREAMS_MAX = 64
"""Each holds a batch of the log, some 8 MiB at most, and reads every entry for itself."""

LOOK_S = 0.5
"""How often a stream with nothing to say looks whether its client or the node is about to go."""

HEARTBEAT_S = 15.0
"""A connection without a sign of life for longer is cut by some proxies."""


class OpenStreams:
    """Counts the streams of a node."""

    def __init__(self, *, most: int = STREAMS_MAX, look_s: float = LOOK_S, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.look_s = look_s
        self.looks_a_heartbeat = max(1, round(heartbeat_s / look_s))
        self.is_ending = False
        """Set: every stream ends as soon as it has sent what it holds."""
        self._most = most
        self._open = 0

    @property
    def count(self) -> int:
        """How many are open."""
        return self._open

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count one more while this is entered.

        Raises:
            OverloadedError: There are as many as there may be.
        """
        if self._open >= self._most:
            raise OverloadedError(f"{self._open} streams of events are open; the limit is {self._most}")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    def end(self) -> None:
        """Let all of them end; new ones do so at once."""
        self.is_ending = True
