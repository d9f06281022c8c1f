"""A process that proposes to a replica and says what is committed, until something ends it.

    python -m tests.log.proposer PATH [FILE_BYTES_MAX]

It prints the last committed index after each batch. With a second argument no file may grow beyond it, as on a full
disk; it then prints the error that each way of using the replica meets, and ends.
"""

import asyncio
import random
import resource
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from engram.clock import SystemClock
from engram.errors import FatalError, NotReadyError
from engram.log.replica import Replica
from engram.log.sqlite import SqliteLog
from tests.log.appender import payload, say
from tests.log.replicas import Transactions

PROPOSERS = 20


async def propose_forever(replica: Replica) -> None:
    """Keep some proposals under way; each is known from its index."""
    await replica.wait_ready()
    after = replica.status().last_index
    async for batch in replica.entries(0):
        if batch[-1].index < after:
            continue
        say(str(batch[-1].index))
        last_index = replica.status().last_index
        while last_index < batch[-1].index + PROPOSERS:
            last_index = replica.propose(payload(last_index + 1) or b"-").log_index


async def tried(what: str, attempt: Callable[[], Awaitable[object]]) -> None:
    """Say what error `attempt` meets."""
    try:
        await attempt()
    except (FatalError, NotReadyError) as error:
        say(f"{what}: {type(error).__name__} {error}")
    else:
        say(f"{what}: none")


async def main(path: str, file_bytes_max: str = "") -> None:
    """Propose until killed, or until the disk is full."""
    log = await SqliteLog.open(Path(path))
    if file_bytes_max:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_bytes_max), int(file_bytes_max)))
    replica = Replica(log, clock=SystemClock(), rng=random.Random(1), observer=Transactions())

    async def propose() -> None:
        replica.propose(b"late")

    async def read() -> None:
        async for _ in replica.entries(replica.status().last_index):
            pass

    async with asyncio.TaskGroup() as group:
        group.create_task(tried("run", replica.run))
        group.create_task(tried("waiting", lambda: propose_forever(replica)))
    await tried("propose", propose)
    await tried("entries", read)
    await tried("stop", replica.stop)
    await tried("close", log.close)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
