"""A process that appends to a log and says what is durable, until something ends it.

    python -m tests.log.appender PATH SEED [FILE_BYTES_MAX]

It prints the last durable index after each batch. With a third argument no file may grow beyond it, as on a full disk;
it then prints the error, tries once more, prints that error too, and ends.
"""

import asyncio
import random
import resource
import sys
from pathlib import Path

from engram.errors import StorageError
from engram.log.changes import Append
from engram.log.consensus.types import HardState
from engram.log.sqlite import SqliteLog
from tests.log.logs import entry


def say(what: str) -> None:
    """Print a line at once."""
    sys.stdout.write(what + "\n")
    sys.stdout.flush()


def payload(index: int) -> bytes:
    """Return what entry `index` carries: any length, known from the index alone."""
    return b"%d;" % index * (index * 7919 % 700)


async def append_forever(log: SqliteLog, rng: random.Random) -> None:
    """Append batches of any size and print the last index of each once it is durable."""
    while True:
        last = log.last_index()
        entries = [entry(index, data=payload(index)) for index in range(last + 1, last + 1 + rng.randrange(1, 20))]
        await log.append([Append(entries=entries, hard_state=HardState(term=1, vote=1, commit=last))])
        say(str(log.last_index()))


async def main(path: str, seed: str, file_bytes_max: str = "") -> None:
    """Append until killed, or until the disk is full."""
    log = await SqliteLog.open(Path(path))
    if file_bytes_max:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_bytes_max), int(file_bytes_max)))
    rng = random.Random(seed)
    for _ in range(2):
        try:
            await append_forever(log, rng)
        except StorageError as error:
            say(f"StorageError {error}")
    try:
        await log.close()
    except StorageError as error:
        say(f"closing: {error}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
