"""A process that feeds the long-term store in a folder, for tests that kill it: `lance_child.py FOLDER ROWS DIE_AT`.

It kills itself when it asks for rows for the `DIE_AT`th time, which is right after the write before; 0: never. It
prints a line each time it asks.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from engram.clock import SystemClock
from engram.projections.lance_feed import LanceFeed, Options, Silent
from tests.projections.embedded import LOG_END, Rows, row, store_at

BATCH_ROWS = 5
MARKER = "MARKER-4711"


async def feed(folder: Path, rows: int, die_at: int) -> None:
    source = Rows([row(index, f"{MARKER} {index}", session_id=f"s{index % 3}") for index in range(1, rows + 1)])
    reads = 0

    def read() -> None:
        nonlocal reads
        reads += 1
        if reads == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        sys.stdout.write(f"{reads}\n")
        sys.stdout.flush()

    source.before_read = read
    await LanceFeed(
        store_at(folder),
        source,
        clock=SystemClock(),
        observer=Silent(),
        log_last_index=LOG_END,
        options=Options(period_s=0, batch_rows_max=BATCH_ROWS, optimize_adds=3, optimize_share=1),
    ).run()


if __name__ == "__main__":
    asyncio.run(feed(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
