"""Processes that change a log, each a copy of its own, and kill themselves before one of SQLite's statements.

    python -m tests.log.crasher PATH ACTION

The first dies before the first statement of ACTION, the next before the second, and so on, until one lives to the end.
What they leave are the files PATH.0, PATH.1, and so on. ACTION is `open`, or `install INDEX TERM`.
"""

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from engram.log.consensus.types import HardState
from engram.log.sqlite import SqliteLog
from tests.log.logs import snapshot_at


class Fuse:
    """How many statements there are until the process dies; None: it lives."""

    statements: int | None = None


class DyingConnection(sqlite3.Connection):
    """Counts down at each statement."""

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        """Run the statement, or die first."""
        if Fuse.statements == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if Fuse.statements is not None:
            Fuse.statements -= 1
        return super().execute(*arguments)


async def act(path: Path, statements: int, action: str, arguments: Sequence[str]) -> None:
    """Do `action`, and die before its statement `statements`."""
    if action == "open":
        Fuse.statements = statements
    log = await SqliteLog.open(path)
    if action == "install":
        index, term = map(int, arguments)
        Fuse.statements = statements
        await log.install(snapshot_at(index, term), HardState(term=term, vote=2, commit=index))
    Fuse.statements = None
    await log.close()


def survives(path: Path, statements: int, action: str, arguments: Sequence[str]) -> bool:
    """Let a process of its own act, and return whether it lived to the end."""
    child = os.fork()
    if child == 0:
        asyncio.run(act(path, statements, action, arguments))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status not in {0, signal.SIGKILL}:
        raise SystemExit(status)
    return status == 0


def main(path: str, action: str, *arguments: str) -> None:
    """Let one process after the other act."""
    sqlite3.connect = partial(sqlite3.connect, factory=DyingConnection)  # type: ignore[assignment]
    for statements in range(1000):
        copy = Path(f"{path}.{statements}")
        shutil.copyfile(path, copy)
        if survives(copy, statements, action, arguments):
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
