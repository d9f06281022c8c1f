"""SQLite on a `Disk`: a VFS of apsw, and the log's own `Database` over a connection of apsw.

Python's sqlite3 is linked to a SQLite of its own, which knows nothing of this VFS. So what engram runs here is all its
own code above `sqlite3.connect`, over a newer SQLite than the system's. No thread and no event loop: every coroutine of
the log runs to its end at once, and a seed repeats a run to the byte.
"""

import ctypes
import random
import sqlite3
import sys
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import PosixPath, PurePath
from typing import Any, Self, TypeVar

import aiosqlite
import apsw
import pytest

import engram.disk
import engram.log.sqlite
from engram.database import Database, Setting
from engram.errors import StorageError
from tests.disk.medium import Disk, DiskError, File

Result = TypeVar("Result")

_VFS_NAME = "crash"
_CODES: dict[str, int] = {
    "FULL": apsw.SQLITE_FULL,
    "IOERR": apsw.SQLITE_IOERR,
    "IOERR_WRITE": apsw.SQLITE_IOERR_WRITE,
    "IOERR_FSYNC": apsw.SQLITE_IOERR_FSYNC,
}
_SYNCED_WITH_NAME = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL


class DiskPath(PosixPath):
    """The log's path: it is on the disk that is mounted, not on this machine's."""

    def exists(self) -> bool:
        return self.as_posix() in _VFS.disk.files


PATH = DiskPath("/disk/raft.db")


class _File:
    """An open file. As SQLite's VFS for Unix: a journal's first sync makes its name durable too."""

    def __init__(self, disk: Disk, file: File, *, syncs_name: bool) -> None:
        self._disk = disk
        self._file = file
        self._syncs_name = syncs_name

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return _told(self._disk.read, self._file, amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        _told(self._disk.write, self._file, bytes(data), offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        _told(self._disk.truncate, self._file, newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        _told(self._disk.sync, self._file)
        if self._syncs_name:
            self._disk.sync_names()
            self._syncs_name = False

    def xFileSize(self) -> int:  # noqa: N802
        return len(self._file.view)

    def xClose(self) -> None:  # noqa: N802
        """Nothing is held."""

    def xLock(self, level: int) -> None:  # noqa: N802
        """Nobody else is there."""

    def xUnlock(self, level: int) -> None:  # noqa: N802
        """Nobody else is there."""

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xFileControl(self, op: int, pointer: int) -> bool:  # noqa: N802
        if op == apsw.SQLITE_FCNTL_MMAP_SIZE:  # the log asks whether it is off
            ctypes.c_int64.from_address(pointer).value = 0
            return True
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        return self._disk.sector_bytes

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE  # what SQLite takes any disk for, on Unix


class _Vfs(apsw.VFS):
    def __init__(self) -> None:
        # The default one: SQLite draws the seed of its random numbers from that.
        super().__init__(_VFS_NAME, "", makedefault=True)
        self.disk = Disk(random.Random(0), 512)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> Any:  # noqa: N802
        assert name is not None, "no temporary file is ever needed: it could keep what was to be forgotten"
        path = name if isinstance(name, str) else name.filename()
        if path not in self.disk.files:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.CantOpenError
            _told(self.disk.create, path)
        flags[1] = flags[0]
        return _File(self.disk, self.disk.files[path], syncs_name=bool(flags[0] & _SYNCED_WITH_NAME))

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802, FBT001
        if filename not in self.disk.files:
            raise _error(apsw.SQLITE_IOERR_DELETE_NOENT)
        _told(lambda: self.disk.delete(filename, durably=syncdir))

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: N802
        file = self.disk.files.get(pathname)
        return file is not None and len(file.view) > 0

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name

    def xRandomness(self, numbytes: int) -> bytes:  # noqa: N802
        return self.disk.rng.randbytes(numbytes)


_VFS = _Vfs()


def _error(code: int) -> apsw.Error:
    error = apsw.IOError() if code & 0xFF == apsw.SQLITE_IOERR else apsw.FullError()
    error.__dict__.update(result=code & 0xFF, extendedresult=code)
    return error


def _told(operation: Callable[..., Result], *arguments: object) -> Result:
    try:
        return operation(*arguments)
    except DiskError as error:
        raise _error(_CODES[str(error)]) from None


class Cursor:
    """What `execute` returns: as much of sqlite3's cursor as engram's SQL asks for.

    As that one, it is a row ahead: a statement is at its end, and its errors are raised, when the last row is fetched.
    One whose row nobody fetches is never run to its end, and nobody hears of the errors of that.
    """

    def __init__(self, cursor: apsw.Cursor, rowcount: int) -> None:
        self._cursor = cursor
        with _as_sqlite3():
            self._row = cursor.fetchone()
        self.rowcount = rowcount

    def fetchone(self) -> Any:
        row = self._row
        if row is not None:
            with _as_sqlite3():
                self._row = self._cursor.fetchone()
        return row

    def fetchall(self) -> list[Any]:
        return list(self)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchone, None)


class ApswConnection:
    """As much of `sqlite3.Connection` as engram uses, in autocommit mode."""

    def __init__(self, uri: str) -> None:
        with _as_sqlite3():
            flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
            self._connection = apsw.Connection(uri, flags=flags, vfs=_VFS_NAME)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, statement: str, parameters: Iterable[Any] = ()) -> Cursor:
        with _as_sqlite3():
            cursor = self._connection.execute(statement, tuple(parameters))
            return Cursor(cursor, self._connection.changes())

    def executescript(self, script: str) -> None:
        self.execute(script)

    def executemany(self, statement: str, rows: Iterable[Iterable[Any]]) -> None:
        for row in rows:
            self.execute(statement, row)

    def close(self) -> None:
        with _as_sqlite3():
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Everything is committed already."""


@contextmanager
def _as_sqlite3() -> Iterator[None]:
    """Raise what sqlite3 would."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise sqlite3.OperationalError(f"Could not decode to UTF-8 column: {error}") from error
    except apsw.Error as error:
        code = getattr(error, "extendedresult", 0)
        kind = sqlite3.OperationalError
        raised: sqlite3.Error = (
            sqlite3.DatabaseError(str(error))
            if isinstance(error, apsw.CorruptError | apsw.NotADBError)
            else kind(str(error))
        )
        raised.sqlite_errorcode = code
        raised.sqlite_errorname = str(
            apsw.mapping_extended_result_codes.get(
                code, apsw.mapping_result_codes.get(code & 0xFF, type(error).__name__)
            )
        )
        raise raised from error


class _Inline(aiosqlite.Connection):
    """Runs at once, where it is called, what the real one hands to a thread."""

    def __await__(self) -> Generator[Any, None, Self]:
        self._connection = self._connector()
        mounted.connection = self._connection  # type: ignore[assignment]
        return self
        yield  # type: ignore[unreachable]  # never: it makes this a generator

    async def _execute(self, fn: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        return fn(*args, **kwargs)

    def stop(self) -> None:
        self._connection = None


class DiskDatabase(Database, _Inline):  # type: ignore[misc]  # a thread's end is waited for, this one's is not
    """engram's own `Database`, errors and their translation included, without its thread."""


class _Mounted:
    connection: ApswConnection


mounted = _Mounted()
"""The connection that was opened last."""


@contextmanager
def mount(disk: Disk, *, checkpoint_pages: int, rewrite_entries_max: int) -> Iterator[None]:
    """Let engram's log work on `disk`, at PATH, with a smaller WAL and smaller steps of an erasure than usual."""
    _VFS.disk = disk
    apsw.randomness(0)  # and so drawn anew, from the disk's generator
    settings = [
        Setting(name, checkpoint_pages if name == "wal_autocheckpoint" else value)
        for name, value in engram.log.sqlite.SETTINGS
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", _ignore_sqlite)
        patch.setattr(sqlite3, "connect", lambda name, **_: _connected(disk, str(name)))
        patch.setattr(engram.disk, "sync", lambda path: _sync(disk, path))
        patch.setattr(engram.disk, "write_anew", lambda path: _write_anew(disk, path))
        patch.setattr(engram.disk, "move", partial(_move, disk))
        patch.setattr(engram.disk, "opened", partial(_opened, disk))
        patch.setattr(engram.log.sqlite, "Database", DiskDatabase)
        patch.setattr(engram.log.sqlite, "SETTINGS", tuple(settings))
        patch.setattr(engram.log.sqlite, "_REWRITE_ENTRIES_MAX", rewrite_entries_max)
        yield


def _connected(disk: Disk, uri: str) -> ApswConnection:
    """Open the log on `disk`; to be read only, a copy of it: this VFS has no memory to share, so it takes no reader."""
    return _CopyConnection(disk, uri) if "mode=ro" in uri else ApswConnection(uri)


class _CopyConnection(ApswConnection):
    """A connection to what is on a disk now, which changes nothing there."""

    def __init__(self, disk: Disk, uri: str) -> None:
        self._copy = Disk(random.Random(0), disk.sector_bytes)
        self._copy.roll_back(disk.kept())
        with self._mounted():
            super().__init__(uri)
            try:
                self.execute("PRAGMA locking_mode = exclusive")
                self.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # all files are open now
            except sqlite3.Error:
                super().close()  # not later, when another disk is there
                raise

    def close(self) -> None:
        with self._mounted():  # it removes the write-ahead log by its name
            super().close()

    @contextmanager
    def _mounted(self) -> Iterator[None]:
        disk, _VFS.disk = _VFS.disk, self._copy
        try:
            yield
        finally:
            _VFS.disk = disk


class _PlainFile:
    """engram's own plain file, on the disk."""

    def __init__(self, disk: Disk, file: File) -> None:
        self._disk = disk
        self._file = file

    def read(self, amount_bytes: int, offset: int) -> bytes:
        with _as_storage():
            return self._disk.read(self._file, amount_bytes, offset)

    def write(self, data: bytes, offset: int) -> None:
        with _as_storage():
            self._disk.write(self._file, data, offset)

    def close(self) -> None:
        """Nothing is held."""


def _opened(disk: Disk, path: PurePath, *, create: bool = False) -> _PlainFile | None:
    name = path.as_posix()
    if name not in disk.files:
        if not create:
            return None
        with _as_storage():
            disk.create(name)
    return _PlainFile(disk, disk.files[name])


def _move(disk: Disk, path: PurePath, wanted: PurePath) -> None:
    with _as_storage():
        disk.move(path.as_posix(), wanted.as_posix())


def _sync(disk: Disk, path: PurePath) -> None:
    """Do what the system does for `fsync` of a file or a folder."""
    with _as_storage():
        if path.as_posix() in disk.files:
            disk.sync(disk.files[path.as_posix()])
        else:
            disk.sync_names()


def _write_anew(disk: Disk, path: PurePath) -> None:
    """Do to a file on the disk what engram's own function does to one of the system."""
    file = disk.files.get(path.as_posix())
    if file is None or not file.view:
        return
    with _as_storage():
        disk.write(file, bytes(file.view), 0)
        disk.sync(file)


@contextmanager
def _as_storage() -> Iterator[None]:
    try:
        yield
    except DiskError as error:
        raise StorageError(f"the disk of this test: {error}") from error


def _ignore_sqlite(unraisable: "sys.UnraisableHookArgs") -> None:
    """Say no more than sqlite3 does when a statement fails that is thrown away."""
    if not isinstance(unraisable.exc_value, apsw.Error):
        sys.__unraisablehook__(unraisable)


def done(work: Coroutine[Any, Any, Result]) -> Result:
    """Run what never waits."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    raise AssertionError("it waits")
