"""Files that commands write and read: whole or not there, readable by their owner alone, and never on the loop."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from engram.database import rename_durably
from engram.errors import ConfigError, StorageError

CHUNK_BYTES = 1024 * 1024
STANDARD = "-"
"""Stands for standard input or output."""

UNFINISHED = ".unfinished"
OWNER_ONLY = 0o600
"""What agents remember is personal."""


class Output:
    """Where bytes go, in order."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name

    async def write(self, data: bytes) -> None:
        """Write `data`.

        Raises:
            StorageError: The disk failed, or is full.
        """
        await asyncio.to_thread(self._write, data)

    def _write(self, data: bytes) -> None:
        try:
            self._stream.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StorageError(f"{self._name}: {error.strerror}") from error


class Reader(Protocol):
    """Checks what is written."""

    def feed(self, data: bytes) -> Iterable[object]:
        """Yield what is whole in what came so far; raises where it is not as it was written."""


async def write_checked(parts: AsyncIterable[bytes], reader: Reader, file: Output) -> None:
    """Write `parts` after each was read back in passing; raises what `reader` and `file` do."""
    async for part in parts:
        for _ in reader.feed(part):
            pass
        await file.write(part)


@asynccontextmanager
async def new_file(path: Path) -> AsyncIterator[Output]:
    """Open a file that is not there yet; it gets its name when everything in it is durable, or none at all.

    Raises:
        ConfigError: There is such a file, or none can be made there.
        StorageError: The disk failed.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    stream = await asyncio.to_thread(_create, path, unfinished)
    try:
        yield Output(stream, str(path))
        await asyncio.to_thread(stream.close)
        await rename_durably(unfinished, path)
    except BaseException:
        await asyncio.to_thread(_discard, stream, unfinished)
        raise


@asynccontextmanager
async def output(name: str) -> AsyncIterator[Output]:
    """Open the new file `name`, or standard output for `-`; raises like `new_file`."""
    if name == STANDARD:
        yield Output(sys.stdout.buffer, "standard output")
        await asyncio.to_thread(sys.stdout.buffer.flush)
        return
    async with new_file(Path(name)) as file:
        yield file


async def chunks(name: str) -> AsyncGenerator[bytes]:
    """Yield the bytes of the file `name`, or of standard input for `-`.

    Raises:
        ConfigError: It cannot be opened.
        StorageError: The disk failed.
    """
    stream = sys.stdin.buffer if name == STANDARD else await asyncio.to_thread(_open, Path(name))
    try:
        while data := await asyncio.to_thread(_read, stream, name):
            yield data
    finally:
        if name != STANDARD:
            await asyncio.to_thread(stream.close)


def _create(path: Path, unfinished: Path) -> BinaryIO:
    if path.exists():
        raise ConfigError(f"{path} is there already: name another file, or move it away")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ONLY)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {error.strerror}") from error
    return os.fdopen(descriptor, "wb")


def _discard(stream: BinaryIO, unfinished: Path) -> None:
    stream.close()
    unfinished.unlink(missing_ok=True)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _read(stream: BinaryIO, name: str) -> bytes:
    try:
        return stream.read(CHUNK_BYTES)
    except OSError as error:
        raise StorageError(f"{name}: {error.strerror}") from error
