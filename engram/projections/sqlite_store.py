"""The primary store: the ledger's state and the read models, in one SQLite file that can be built afresh from the log.

Two connections: one writes, one reads, each in a thread of its own. Nothing waits for the disk (`synchronous=OFF`):
after a crash of the process the file is as the last batch left it, and after a crash of the machine it is thrown away
and built afresh, because nobody knows what of it has reached the disk.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Self

from engram.database import Connection, Database, Format, Setting, file_format, quick_check, stamp
from engram.errors import CorruptionError, StorageError
from engram.events import decode
from engram.projections import digest, ledger, sqlite_reads, sqlite_writes, stamps
from engram.projections.entries import LogEntry
from engram.projections.erasures import Erasure
from engram.projections.ledger import Decoded
from engram.projections.lives import Life, View
from engram.projections.reads import PrimaryReads
from engram.projections.recent import Recent, embedded_rows
from engram.projections.redis_keys import SessionName
from engram.projections.replacing import put_in_place
from engram.projections.rows import RecallBlob
from engram.projections.schema import APPLICATION_ID, BLANKED_MAX, COMPACT, TABLES, VERSION
from engram.projections.sqlite_load import load
from engram.projections.sqlite_reads import EmbeddedRow, Trace
from engram.projections.verdicts import Verdict

_logger = logging.getLogger(__name__)

FORMAT: Final = Format(APPLICATION_ID, VERSION)
NORMAL: Final = 0
"""The kind of an entry that holds events; others are the log's own."""

BUSY_TIMEOUT_S: Final = 5.0
"""How long a checkpoint waits for the reader, whose hops take milliseconds."""

_SETTINGS: Final = (
    Setting("journal_mode", "wal"),
    Setting("synchronous", 0),
    Setting("secure_delete", 1),
    Setting("wal_autocheckpoint", 4_000),  # 16 MB: folding is a tenth faster than with SQLite's 1 000 pages
    Setting("cache_size", -16_000),
    Setting("temp_store", 2),
    Setting("trusted_schema", 0),
)
_READER_SETTINGS: Final = (Setting("cache_size", -16_000), Setting("temp_store", 2), Setting("query_only", 1))
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Applied(NamedTuple):
    """What a batch came to."""

    verdicts: list[list[Verdict]]
    """For each entry, one for each of its events."""
    erasures: int
    """How many erasures it asked for."""
    last_at_ms: int
    touched: list[SessionName]
    """Sessions that are not as they were before."""
    robbed: list[SessionName]
    """Those of them that lost something, or are gone."""
    embedded: list[EmbeddedRow] | None
    """Rows that it gave vectors, when they are to be kept and it says everything about them."""


Watcher = Callable[[Collection[SessionName], Collection[SessionName], int], None]
"""Hears which sessions a batch touched, which of them it took something out of, and the batch's last index."""


class PrimaryStore(PrimaryReads):
    """Folds entries and answers readers. One caller applies; any number read."""

    def __init__(self, writer: Database, reader: Database, applied: tuple[int, int, int], boot_id: str | None) -> None:
        super().__init__(reader)
        self._writer = writer
        self._boot_id = boot_id
        self._is_closed = False
        self._writing = asyncio.Lock()
        """Held by whoever writes, and while another file is put in place."""
        self.opening = asyncio.Lock()
        """Held by whoever else has the file open, and while another is put in place: SQLite must not see half of it."""
        self.is_lost = False
        """Whether the file was closed to be replaced, and could not be opened again."""
        self._applied_index, self._applied_term, self._last_at_ms = applied
        self._recent: Recent | None = None
        """None until somebody asks for rows with vectors: most who fold a log never do."""
        self.erasure_wanted = asyncio.Event()
        """Set when there is something new to erase; whoever erases clears it."""
        self._watcher: Watcher | None = None
        self.is_scrubbing = False
        """Whether `scrub` or `replace` waits for readers that are in its way."""

    @classmethod
    async def open(cls, path: Path, *, boot_id: str | None = None) -> Self:
        """Open the store, continuing where it was, or empty when the file cannot be trusted or is of another version.

        A file that is not taken is deleted: it may hold text that was to be forgotten. `boot_id` names the run of the
        machine; the default is to ask it.

        Raises:
            StorageError: The disk failed, or the file cannot be deleted.
        """
        return cls(*await _open(path, boot_id), boot_id)

    async def close(self) -> None:
        """Make everything durable and close the file; one that was found damaged is deleted instead. May be repeated."""
        if self._is_closed:
            return
        self._is_closed = True
        is_damaged = False
        opened = [(self._reader, _nothing), *([] if self.is_lost else [(self._writer, _seal)])]
        for database, last_words in opened:
            try:
                await database.run(last_words)
            except CorruptionError:
                is_damaged = True
            finally:
                await database.close()
        if is_damaged:
            _logger.error("the projections' file is damaged; it is built afresh at the next start")
            await asyncio.to_thread(_delete, self._writer.path)

    @property
    def path(self) -> Path:
        """Its file."""
        return self._writer.path

    @property
    def applied_index(self) -> int:
        """Index of the last log entry that reads see; 0 when there is none."""
        return self._applied_index

    @property
    def applied_term(self) -> int:
        """Term of that entry."""
        return self._applied_term

    @property
    def last_at_ms(self) -> int:
        """The latest stamp of any event so far: new ones must not be before it."""
        return self._last_at_ms

    def watch(self, watcher: Watcher) -> None:
        """Let `watcher` hear of every batch, before anybody is told that it was applied."""
        self._watcher = watcher

    async def apply(self, entries: Sequence[LogEntry]) -> list[list[Verdict]]:
        """Fold a batch of consecutive entries behind the applied index, in one transaction.

        Raises:
            CorruptionError: A payload cannot be decoded; nothing of the batch was applied.
            StorageError: The disk failed.
        """
        assert entries[0].index > self._applied_index, "entries are folded once"
        async with self._writing:
            fold = partial(_apply, entries=entries, keeps_rows=self._recent is not None)
            applied = await self._writer.transact(fold)
            if self._watcher is not None:
                self._watcher(applied.touched, applied.robbed, entries[-1].index)
            self._applied_index, self._applied_term = entries[-1].index, entries[-1].term
            self._last_at_ms = applied.last_at_ms
            if self._recent is not None:
                self._recent.follow(applied.embedded, self._applied_index)
        if applied.erasures:
            self.erasure_wanted.set()
        return applied.verdicts

    async def embedded_after(self, cursor: int, limit: int) -> list[EmbeddedRow]:
        """Return chunks whose vectors were given behind the log index `cursor`, as reads do; the newest from memory."""
        self._recent = self._recent or Recent(self._applied_index)
        recent = self._recent.behind(cursor, limit)
        return await super().embedded_after(cursor, limit) if recent is None else recent

    async def save_recall_blob(self, session_key: int, blob: RecallBlob) -> bool:
        """Keep a session's sealed recall index, unless the session is gone or has lost messages since.

        Returns whether it was kept.
        """
        async with self._writing:
            return await self._writer.transact(
                partial(sqlite_reads.save_recall_blob, session_key=session_key, blob=blob)
            )

    async def erasures(self, *, after: int = 0, limit: int, log_is_clean: bool) -> list[Erasure]:
        """Return what is still to be erased of the log, or behind it, because of deletions behind the index `after`."""
        return await self._reader.run(
            partial(sqlite_reads.erasures, after=after, limit=limit, log_is_clean=log_is_clean)
        )

    async def is_log_clean(self, log_index: int) -> bool:
        """Return whether the log is clean of what the deletion at `log_index` forgets."""
        return await self._reader.run(partial(sqlite_reads.is_log_clean, log_index=log_index))

    async def traces(self, erasure: Erasure, limit: int) -> list[Trace]:
        """Return entries that carry what is to be erased; all that are left when they are fewer than `limit`."""
        return await self._reader.run(partial(sqlite_reads.traces, erasure=erasure, limit=limit))

    async def drop_traces(self, erasure: Erasure, log_indexes: Collection[int]) -> None:
        """Forget which entries carried what is erased from them now."""
        async with self._writing:
            await self._writer.transact(partial(sqlite_writes.drop_traces, erasure=erasure, log_indexes=log_indexes))

    async def drop_texts(self, erasures: Sequence[Erasure]) -> None:
        """Forget the texts of facts that the log is clean of."""
        await self._writer.transact(partial(sqlite_writes.drop_texts, erasures=erasures))

    async def end_erasures(self, erasures: Sequence[Erasure], *, log_only: bool) -> None:
        """Note that the log is clean of `erasures`, and with `log_only` false that everything else is, too."""
        async with self._writing:
            await self._writer.transact(partial(sqlite_writes.end_erasures, erasures=erasures, log_only=log_only))

    async def scrub(self) -> bool:
        """Let no deleted byte stay in the file or beside it. Returns False when a reader is in the way: try again."""
        self.is_scrubbing = True
        try:
            async with self._writing:
                return await self._writer.truncate_wal()
        finally:
            self.is_scrubbing = False

    async def replace(self, fresh: Self, fold_rest: Callable[[], Awaitable[object]]) -> bool:
        """Go on with the file of `fresh`, which is closed, in place of this store's own.

        While `fold_rest` brings `fresh` to the applied index and the files change places, nothing is written here.
        Readers are answered all the time. Whoever scrubs must not run meanwhile. A process that is killed at any point
        leaves the one file or the other, whole. Returns False when a reader is in the way, and nothing was changed: try
        again.

        Raises:
            CorruptionError: `fresh` is not where this store is.
            StorageError: The disk failed. With `is_lost` set, nothing can be written any more.
        """
        self.is_scrubbing = True
        try:
            async with self.opening, self._writing:
                await fold_rest()
                if not await self._writer.truncate_wal():  # what is left of it would be taken for the new file's
                    return False
                exchange = asyncio.get_running_loop().create_task(self._exchange(fresh))
                try:
                    await asyncio.shield(exchange)
                except asyncio.CancelledError:
                    await asyncio.wait([exchange])
                    raise
        finally:
            self.is_scrubbing = False
        self.erasure_wanted.set()
        return True

    async def _exchange(self, fresh: Self) -> None:
        applied_index, path = self._applied_index, self._writer.path
        if fresh.applied_index != applied_index:
            raise CorruptionError(f"the new read models are at entry {fresh.applied_index}, not at {applied_index}")
        await fresh.close()
        self.is_lost = True
        await self._writer.close()
        try:
            await put_in_place(fresh._writer.path, path)
        finally:
            self._writer, reader, applied = await _open(path, self._boot_id)
            old, self._reader = self._reader, reader
            self._applied_index, self._applied_term, self._last_at_ms = applied
            self._recent = None
            await old.close()  # it has answered from the old file until now
        if self._applied_index != applied_index:
            raise CorruptionError(f"{path} cannot be read any more")
        self.is_lost = False

    async def digest(self) -> dict[str, str]:
        """Return a digest of each read model, the same for any two stores that answer every reader the same."""
        return await self._reader.run(digest.digest)


async def _open(path: Path, boot_id: str | None) -> tuple[Database, Database, tuple[int, int, int]]:
    """Return a connection that writes, one that reads, and what was applied; see `PrimaryStore.open`."""
    for _ in range(2):
        try:
            writer = await Database.open(path, _SETTINGS, busy_timeout_s=BUSY_TIMEOUT_S)
        except CorruptionError as error:
            _logger.warning("the projections are rebuilt from the log", extra={"reason": str(error)})
            await asyncio.to_thread(_delete, path)
            continue
        try:
            refusal = await writer.run(partial(_prepare, boot_id=boot_id))
            if refusal is None:
                applied = await writer.run(_applied)
                reader = await Database.open(path, _READER_SETTINGS, busy_timeout_s=BUSY_TIMEOUT_S, read_only=True)
                return writer, reader, applied  # nothing is awaited in between: cancelled there, it would stay open
        except CorruptionError as error:
            refusal = str(error)
        except BaseException:
            await writer.close()
            raise
        await writer.close()
        _logger.warning("the projections are rebuilt from the log", extra={"reason": refusal})
        await asyncio.to_thread(_delete, path)
    raise StorageError(f"{path} is damaged again right after it was made")


def _prepare(connection: Connection, boot_id: str | None) -> str | None:
    """Make the tables of a new file, or check those of an old one; return why it cannot be used, if so."""
    boot = _boot_id() if boot_id is None else boot_id
    found = file_format(connection)
    if found == Format(0, 0):
        connection.executescript(f"BEGIN IMMEDIATE; {TABLES}")
        stamp(connection, FORMAT)
        connection.execute("COMMIT")
    elif found != FORMAT:
        return f"the file's format is {found}, this version of engram writes {FORMAT}"
    else:
        (opened_under,) = connection.execute("SELECT opened_under FROM state").fetchone()
        if opened_under and opened_under != boot:
            return "the machine went down while the file was open"
        if opened_under and not boot and quick_check(connection):
            return "the file's structure is damaged"
        _compact(connection)
    _mark(connection, boot or "unknown")
    return None


def _compact(connection: Connection) -> None:
    """Write the file anew when more of it is blanked than not."""
    blanked, messages = connection.execute("SELECT blanked, messages FROM state").fetchone()
    if blanked > max(BLANKED_MAX, messages):
        connection.executescript(COMPACT)


def _mark(connection: Connection, opened_under: str) -> None:
    """Note durably under which run of the machine the file is open; empty: it is not."""
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("UPDATE state SET opened_under = ?", (opened_under,))
    connection.execute("PRAGMA synchronous = OFF")


def _nothing(connection: Connection) -> None:
    """Show whether the connection is still good."""


def _seal(connection: Connection) -> None:
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _mark(connection, "")


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _delete(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        doomed = path.with_name(path.name + suffix)
        try:
            doomed.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{doomed} cannot be used and cannot be deleted: {error}") from error


def _applied(connection: Connection) -> tuple[int, int, int]:
    row: tuple[int, int, int] = connection.execute(
        "SELECT applied_index, applied_term, last_at_ms FROM state"
    ).fetchone()
    return row


def _apply(connection: Connection, entries: Sequence[LogEntry], *, keeps_rows: bool) -> Applied:
    decoded = [_decode(entry) for entry in entries]
    view = load(connection, ledger.needs(decoded))
    stamps.write(connection, stamps.marks(decoded, view.last_at_ms))
    verdicts = ledger.fold(view, decoded)
    sqlite_writes.write(connection, view, applied_index=entries[-1].index, applied_term=entries[-1].term)
    rows = embedded_rows(view) if keeps_rows else None
    return Applied(verdicts, len(view.erasures), view.last_at_ms, *_touched(view), rows)


def _touched(view: View) -> tuple[list[SessionName], list[SessionName]]:
    """Return the sessions that a batch touched, and those of them that it took something out of."""
    lives = list(view.written())
    robbed = [*view.ended, *(life for life in lives if life.gone_messages or life.gone_facts)]
    return [_name(life) for life in (*view.ended, *lives)], [_name(life) for life in robbed]


def _name(life: Life) -> SessionName:
    return SessionName(life.tenant, life.session_id)


def _decode(entry: LogEntry) -> Decoded:
    if entry.kind != NORMAL or not entry.data:
        return Decoded(entry.index, ())
    try:
        return Decoded(entry.index, decode(entry.data))
    except CorruptionError as error:
        raise CorruptionError(f"log entry {entry.index}: {error}") from error
