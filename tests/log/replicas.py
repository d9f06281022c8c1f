"""A running replica to test with."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from engram.clock import SystemClock
from engram.log.consensus.types import Entry
from engram.log.replica import Options, Replica
from engram.log.sqlite import WINDOW_BYTES_MAX
from tests.log.logs import opened


class Transactions:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.entries: list[int] = []
        """How many entries each transaction carried."""
        self.waits_s: list[float] = []

    def synced(self, seconds: float, entries: int) -> None:
        self.entries.append(entries)

    def committed(self, seconds: float) -> None:
        self.waits_s.append(seconds)

    def led_by(self, leader_id: int) -> None: ...
    def snapshot_built(self) -> None: ...
    def snapshot_installed(self) -> None: ...


@asynccontextmanager
async def running(
    path: Path,
    *,
    observer: Transactions | None = None,
    snapshot_threshold: int = 1000,
    window_bytes_max: int = WINDOW_BYTES_MAX,
    crash: bool = False,
) -> AsyncIterator[Replica]:
    """Run a replica on the log at `path`, ready to take proposals; `crash` leaves it without a clean stop."""
    async with opened(path, window_bytes_max=window_bytes_max) as log:
        replica = Replica(
            log,
            clock=SystemClock(),
            rng=random.Random(1),
            observer=observer or Transactions(),
            options=Options(snapshot_threshold=snapshot_threshold),
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(replica.run())
            await replica.wait_ready()
            yield replica
            if crash:
                task.cancel()
            else:
                await replica.stop()


async def collected(replica: Replica, *, after: int, up_to: int) -> list[Entry]:
    """Return the committed entries from after + 1 to `up_to`, once they are."""
    found: list[Entry] = []
    async with asyncio.timeout(20):
        async for batch in replica.entries(after):
            found.extend(batch)
            if found[-1].index >= up_to:
                break
    return found


async def committed_alone(replica: Replica, data: bytes) -> int:
    """Propose `data`, wait until it is committed, and return its index."""
    log_index = replica.propose(data).log_index
    await collected(replica, after=log_index - 1, up_to=log_index)
    return log_index


def payloads(entries: Sequence[Entry]) -> list[bytes]:
    """Return what the application wrote: leaders' own entries are empty."""
    return [entry.data for entry in entries if entry.data]
