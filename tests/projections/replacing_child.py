"""A process that puts another file in the place of its read models, and kills itself before one of the steps on disk.

Arguments: the folder, and before which step to die; beyond the last one it dies when all is done. With step 0 the kernel
kills it in the middle of any file that it should write in place of the old one, or else it dies when all is done.
"""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engram import disk
from tests.projections.histories import apply, entries_of, open_store, said

IN_THE_MIDDLE = 0

MESSAGES = 300
STEPS = 7
"""The old file's write-ahead log is empty durably; it and its index are removed; three syncs and the exchange."""


disk_remove = disk.remove


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_long_files(fresh: Path) -> None:
    """Let the kernel kill this process when it has written half of a file as long as `fresh`."""
    half = fresh.stat().st_size // 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (half, half))


def counted(function: Callable[..., Any], steps: list[str], die_at: int) -> Callable[..., Any]:
    def step(*arguments: Path) -> Any:
        steps.append(function.__name__)
        if len(steps) == die_at:
            die()
        if die_at == IN_THE_MIDDLE and function is disk_remove:
            die_in_long_files(arguments[0].with_name("beside") / "projections.db")
        return function(*arguments)

    return step


async def main(folder: Path, die_at: int) -> None:
    entries = entries_of([said(f"m{number}") for number in range(MESSAGES)])
    store = await open_store(folder)
    await apply(store, entries)
    (folder / "beside").mkdir()
    fresh = await open_store(folder / "beside")
    await apply(fresh, entries[:-5])

    async def fold_rest() -> None:
        await apply(fresh, entries[-5:])
        steps: list[str] = []
        for function in (disk.sync, disk.remove, disk.move):
            setattr(disk, function.__name__, counted(function, steps, die_at))

    assert await store.replace(fresh, fold_rest)
    die()


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
