"""`engram import --url`: exports into a node that runs, in parts that are exports themselves.

A part is a few hundred lines. Each is acknowledged before the next is sent, so the command knows which line was reached,
follows the leader from one part to the next, and sends a part again when a node went away in between: what of it was
taken in changes nothing.
"""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
import msgspec

from engram.api.imports import EXPORT_TYPE, Imported
from engram.api.schemas import Problem
from engram.cli.files import STANDARD, chunks
from engram.cli.progress import Progress
from engram.cli.remote import CONNECT_S, RemoteError, decoded
from engram.errors import ConfigError, CorruptionError
from engram.moving.export_format import ExportEntry, ExportHead, ExportReader, ExportWriter

PART_LINES: Final = 512
PART_BYTES: Final = 1024 * 1024
"""Of JSON, about; what is held of an export at a time."""

ANSWER_S: Final = 120.0
"""A part takes well under a second; a log that is full makes it wait for 30."""

RETRIES_MAX: Final = 20
RETRY_S: Final = 0.25
RETRY_MAX_S: Final = 2.0
"""Waits between attempts at a part, doubled up to the latter: half a minute in all, several times what an election takes."""

MOVED: Final = 307
BUSY: Final = frozenset({502, 503, 504})
REDIRECTS_MAX: Final = 5


class Manner(NamedTuple):
    """How conflicts and deletions are dealt with, and where to begin."""

    on_conflict: str
    deletions: str
    from_line: int


class _Part(NamedTuple):
    first_line: int
    last_line: int
    data: bytes
    size_bytes: int
    """Of the file, read so far since the part before."""


async def import_into(url: str, files: Sequence[str], manner: Manner, progress: Progress) -> int:
    """Import `files`, one after the other, into the node at `url`; return 1 when lines were left out for conflicts.

    Raises:
        ConfigError: There is no such file.
        CorruptionError: An export is damaged; what stands before that was imported.
        RemoteError: The node refuses, or does not answer for too long. The message says which line was reached.
    """
    refused = 0
    timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=ANSWER_S)
    async with aiohttp.ClientSession(timeout=timeout) as client:
        sender = _Sender(client, url, manner)
        for number, file in enumerate(files):
            refused += await _import_one(sender, file, 2 if number else manner.from_line, progress)
    return 1 if refused else 0


async def _import_one(sender: "_Sender", file: str, from_line: int, progress: Progress) -> int:
    size_bytes = 0 if file == STANDARD else await asyncio.to_thread(_size, file)
    done: list[Imported] = []
    reached = from_line - 1
    try:
        with progress.step(f"importing {file} (bytes)", size_bytes) as advance:
            async with aclosing(_parts_of(file, from_line)) as parts:
                async for part in parts:
                    imported = await sender.send(part)
                    reached = part.last_line
                    done.append(_told(imported, progress))
                    advance(part.size_bytes)
    except (RemoteError, CorruptionError) as error:
        raise type(error)(f"{file}: {error}; {_how_far(_before(error, reached))}") from None
    except asyncio.CancelledError:
        progress.say(f"{file}: {_how_far(reached)}")
        raise
    progress.say(f"{file}: {_summary(done)}")
    return sum(each.refused for each in done)


def _told(imported: Imported, progress: Progress) -> Imported:
    """Print what was refused, and return the counts alone."""
    for refusal in imported.refusals:
        progress.say(f"left out: {refusal.detail}")
    if imported.refused > len(imported.refusals):
        progress.say(f"left out: {imported.refused - len(imported.refusals)} more lines")
    imported.refusals = []
    return imported


def _before(error: Exception, reached: int) -> int:
    """Return the last line that is imported: one that is refused by its number comes behind those before it."""
    named = _REFUSED_LINE.match(str(error))
    return reached if named is None else int(named[1]) - 1


def _how_far(line: int) -> str:
    if line <= 1:
        return "nothing before that is known to be imported"
    return f"everything up to line {line} is imported: run the command again, or go on with --from-line {line + 1}"


def _summary(done: Sequence[Imported]) -> str:
    recorded, there = sum(each.recorded for each in done), sum(each.there for each in done)
    others = {
        "of messages that were deleted here": sum(each.forgotten for each in done),
        "of no use here": sum(each.left_out for each in done),
        "deletions left out": sum(each.unwanted for each in done),
    }
    told = "".join(f", {count} {what}" for what, count in others.items() if count)
    refused = sum(each.refused for each in done)
    conflicts = f"; {refused} lines left out for conflicts" if refused else ""
    return f"{recorded} events are new here, {there} were here already{told}{conflicts}"


async def _parts_of(file: str, from_line: int) -> AsyncGenerator[_Part]:
    """Yield the parts of an export, which is checked while it is read."""
    reader = ExportReader()
    entries: list[ExportEntry] = []
    first_line, taken, held = 2, 0, 0
    async with aclosing(chunks(file)) as pieces:
        async for data in pieces:
            taken += len(data)
            for entry in reader.feed(data):
                line = reader.line - 1
                if line < from_line:
                    first_line = line + 1
                    continue
                entries.append(entry)
                held += _weight(entry)
                if len(entries) >= PART_LINES or held >= PART_BYTES:
                    yield _part(reader.head, entries, first_line, taken)
                    entries, first_line, taken, held = [], line + 1, 0, 0
    reader.finish()
    yield _part(reader.head, entries, first_line, taken)


def _weight(entry: ExportEntry) -> int:
    return sum(
        len(getattr(event, "text", "")) + sum(len(chunk.vector) for chunk in getattr(event, "chunks", ()))
        for event in entry.events
    )


def _part(head: ExportHead | None, entries: Sequence[ExportEntry], first_line: int, size_bytes: int) -> _Part:
    assert head is not None, "entries come behind a head"
    writer = ExportWriter()
    data = bytearray(writer.begin(head))
    for entry in entries:
        data += writer.add(entry.index, entry.events)
    data += writer.end(entries[-1].index if entries else head.after)
    return _Part(first_line, first_line + len(entries) - 1, bytes(data), size_bytes)


_REFUSED_LINE: Final = re.compile(r"line (\d+): ")
"""How a problem begins that is one line's; what stands before the line is imported then."""


class _Sender:
    """Sends parts to whoever leads."""

    def __init__(self, client: aiohttp.ClientSession, url: str, manner: Manner) -> None:
        self._client = client
        self._url = url
        self._leader = url
        self._manner = manner

    async def send(self, part: _Part) -> Imported:
        """Return what became of a part.

        Raises:
            RemoteError: It was refused, or nobody took it in time.
        """
        wait_s, problem = RETRY_S, ""
        for _ in range(RETRIES_MAX):
            try:
                status, data = await self._post(part)
            except (aiohttp.ClientError, OSError) as error:
                status, problem = 0, f"no node answers at {self._leader}: {_reason(error)}"
            else:
                if status == 200:  # noqa: PLR2004 - the one that has an answer
                    return decoded(self._leader, data, Imported)
                problem = _problem(data, self._leader, status)
            if status and status not in BUSY:
                raise RemoteError(problem)
            self._leader = self._url  # whoever was named first may know who leads by now
            await asyncio.sleep(wait_s)
            wait_s = min(RETRY_MAX_S, 2 * wait_s)
        raise RemoteError(problem)

    async def _post(self, part: _Part) -> tuple[int, bytes]:
        query = {
            "on_conflict": self._manner.on_conflict,
            "deletions": self._manner.deletions,
            "first_line": str(part.first_line),
        }
        data = b""
        for _ in range(REDIRECTS_MAX):
            async with self._client.post(
                f"{self._leader}/import",
                params=query,
                data=part.data,
                headers={"Content-Type": EXPORT_TYPE},
                allow_redirects=False,
            ) as answer:
                data = await answer.read()
                if answer.status != MOVED:
                    return answer.status, data
                self._leader = answer.headers.get("Location", "").partition("/import")[0]
        return 503, data  # they send one another the request: an election is under way


def _problem(data: bytes, url: str, status: int) -> str:
    try:
        problem = msgspec.json.decode(data, type=Problem)
    except msgspec.MsgspecError:
        return f"what answers at {url} with status {status} is no engram node"
    hint = "; --on-conflict skip leaves such lines out" if problem.code.endswith(("_conflict", "_deleted")) else ""
    return f"{problem.detail} ({problem.code}){hint}"


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError) and (number := error.os_error.errno or 0) > 0:
        return os.strerror(number)
    return str(error) or type(error).__name__


def _size(file: str) -> int:
    try:
        return Path(file).stat().st_size
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
