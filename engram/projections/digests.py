"""The latest digests of the read models, so that nodes can be compared at the same index.

They are taken from what is stored, not kept up with every write: so a file that was damaged shows too, and a write costs
nothing. One pass reads everything, in a thread of its own, and is followed by a rest many times as long.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from engram.clock import Clock
from engram.database import Database, Setting
from engram.errors import EngramError
from engram.projections.digest import AbandonedError, digest_at
from engram.projections.read_models import READ_MODELS

POLL_S: Final = 1.0
"""How often it is looked whether there is something new."""

INTERVAL_S: Final = 30.0
"""Between two passes at least."""

RESTS: Final = 50.0
"""After a pass it rests so many times as long as that took: two per cent of one core on a node that is written to."""

LOW_32_BITS: Final = 0xFFFF_FFFF

_SETTINGS: Final = (Setting("query_only", 1), Setting("cache_size", -2_000), Setting("temp_store", 2))

_log = logging.getLogger(__name__)


class Digests(NamedTuple):
    """What was read at one index."""

    log_index: int
    by_model: Mapping[str, str]
    """SHA-256, as hexadecimal digits, by the name of the read model."""

    def low_bits(self) -> Mapping[str, int]:
        """Return the last 32 bits of each: a number that a gauge holds exactly."""
        return {name: int(each, 16) & LOW_32_BITS for name, each in self.by_model.items()}


NOT_YET: Final = Digests(0, {model.name: "0" for model in READ_MODELS})
"""What a gauge shows before the first pass."""


class Store(Protocol):
    """The part of the primary store that is asked."""

    @property
    def applied_index(self) -> int:
        """Index of the last log entry that reads see."""

    @property
    def opening(self) -> asyncio.Lock:
        """Held by whoever has the file open."""

    @property
    def is_scrubbing(self) -> bool:
        """Whether somebody waits for the file to be cleaned of what was deleted, which a long read holds up."""


class DigestTaker:
    """Takes digests of the file at `path` for ever."""

    def __init__(
        self, path: Path, store: Store, clock: Clock, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._path = path
        self._store = store
        self._clock = clock
        self._sleep = sleep
        self.latest: Digests | None = None
        """None before the first pass."""

    async def run(self) -> None:
        """Take digests for ever, whenever something is new. A pass that fails is tried again later."""
        due_s = self._clock.monotonic_s()
        while True:
            if self._is_new() and self._clock.monotonic_s() >= due_s:
                started_s = self._clock.monotonic_s()
                await self._take()
                took_s = self._clock.monotonic_s() - started_s
                due_s = self._clock.monotonic_s() + max(INTERVAL_S, RESTS * took_s)
            await self._sleep(POLL_S)

    def _is_new(self) -> bool:
        return self._store.applied_index != (0 if self.latest is None else self.latest.log_index)

    async def _take(self) -> None:
        try:
            async with self._store.opening:
                reader = await Database.open(self._path, _SETTINGS, read_only=True)
                try:
                    at = await reader.run(partial(digest_at, is_in_the_way=lambda: self._store.is_scrubbing))
                finally:
                    await reader.close()
            self.latest = Digests(*at)
        except AbandonedError:
            _log.debug("the digests of the read models wait for an erasure")
        except EngramError as error:  # whoever needs the file will say so too
            _log.warning("no digests of the read models", extra={"error": str(error)})
