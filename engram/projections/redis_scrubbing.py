"""What was taken out of Redis must leave its files, too: the server is asked to write them anew.

A server that keeps neither an append-only file nor snapshots has nothing to forget. Writing them costs the server a
pass over all that it holds, whoever put it there, so it is asked for rarely while many things are forgotten.
"""

from typing import Final

from engram.clock import Clock
from engram.projections.redis_store import RedisStore

POLL_S: Final = 0.25
"""How often a server that writes its files is asked whether it is done."""

SHARE: Final = 0.1
"""At most this part of the time is spent writing files."""


class Scrubbing:
    """Asks for it, and waits for its end."""

    def __init__(self, redis: RedisStore, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock
        self._is_wanted = False
        self._started_s: float | None = None
        self._is_stale = False
        """Something was taken out after the files were begun."""
        self._not_before_s = 0.0

    def want(self) -> None:
        """Something was taken out."""
        self._is_wanted = True
        self._is_stale = True

    def idle_s(self, longest_s: float) -> float:
        """Return how long nothing needs to be done, `longest_s` at most."""
        return min(longest_s, POLL_S) if self._is_wanted else longest_s

    async def step(self) -> bool:
        """Do what is due; return True once the files are free of all that was taken out."""
        now_s = self._clock.monotonic_s()
        if not self._is_wanted or now_s < self._not_before_s:
            return False
        self._not_before_s = now_s + POLL_S
        persistence = await self._redis.persistence()
        if not (persistence.appends or persistence.snapshots):
            return self._end()
        if persistence.is_writing:
            return False
        if self._started_s is None or self._is_stale or persistence.has_failed:
            self._started_s, self._is_stale = now_s, False
            await self._redis.rewrite_files(persistence)
            return False
        self._not_before_s = now_s + (now_s - self._started_s) * (1 / SHARE - 1)
        return self._end()

    def postpone(self, seconds: float) -> None:
        """Ask for nothing for a while."""
        self._not_before_s = self._clock.monotonic_s() + seconds

    def _end(self) -> bool:
        self._is_wanted = False
        self._started_s = None
        return True
