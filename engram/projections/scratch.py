"""Scratch folders: copies of what agents remember, for as long as somebody compares or looks back, and no longer."""

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from engram.errors import StorageError

PREFIXES: Final = (".verify-", ".replay-", ".rebuild-", ".check-")
"""What such folders are called; the last is what an earlier version made."""

VERIFY, REPLAY, REBUILD, _ = PREFIXES

_LOCK: Final = "in-use"
"""A file that whoever uses the folder holds locked. The lock ends with the process, however that ends."""


@asynccontextmanager
async def scratch(folder: Path, prefix: str) -> AsyncIterator[Path]:
    """Give a new folder in `folder`, which is gone afterwards; it can be larger than a temporary file system.

    What others left there when they were killed is removed first.

    Raises:
        StorageError: No folder can be made there.
    """
    await asyncio.to_thread(sweep, folder)
    made, lock = await asyncio.to_thread(_make, folder, prefix)
    try:
        yield made
    finally:
        await asyncio.to_thread(_remove, made, lock)


def sweep(folder: Path) -> list[Path]:
    """Remove the scratch folders in `folder` that nobody uses any more, and return them."""
    left = [path for prefix in PREFIXES for path in sorted(folder.glob(f"{prefix}*"))]
    return [path for path in left if path.is_dir() and _is_abandoned(path) and _discard(path)]


def _make(folder: Path, prefix: str) -> tuple[Path, int]:
    try:
        made = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
        lock = os.open(made / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StorageError(f"no scratch folder can be made in {folder}: {error.strerror}") from error
    fcntl.flock(lock, fcntl.LOCK_EX)
    return made, lock


def _remove(made: Path, lock: int) -> None:
    try:
        shutil.rmtree(made)
    finally:
        os.close(lock)


def _is_abandoned(path: Path) -> bool:
    try:
        lock = os.open(path / _LOCK, os.O_RDWR)
    except OSError:
        return True  # an earlier version made no lock
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _discard(path: Path) -> bool:
    shutil.rmtree(path, ignore_errors=True)
    return not path.exists()
