"""The long-term store: every message with its vectors in LanceDB, open to other tools. The one door to lancedb.

It follows the primary store and can be dropped at any time. How far it has come is not written down anywhere: it is
the highest `log_index` in the table. A batch is one commit of LanceDB, so rows and cursor cannot disagree, and
a crash at any point neither loses nor doubles a row.

What LanceDB 0.40 does by itself, measured, and what is done about it here:

* `optimize()` reads the whole table as long as it has less than a million rows: 10 us a row. The feed spaces the
  calls by what they cost.
* It drops deleted rows from disk only where they are more than a tenth of a fragment, or the fragment has small
  neighbours. So whoever is forgotten is first left alone in his fragments, by an update that moves all other rows
  out of them: then the delete removes whole files.
* Its reads buffer up to 2 GiB, and its threads keep what they freed: bounded in `_bound_memory`.
* Importing it takes more than a second and 120 MB, so that happens here, in the store's own thread, when it opens.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from engram.allocator import trim_memory
from engram.errors import ConfigError
from engram.projections import lance_rows
from engram.projections.lance_rows import EmbeddedRow, Erasure, Frontier, Kept, Scope, Space, between

TABLE = "memories"
INDEXED = "session_id"
INDEX_NAME = "session_id_idx"

INDEX_ROWS_MIN = 20_000
"""From here on a scan for one session costs more than 5 ms; with the bitmap index it stays there."""

VERSIONS_KEPT = timedelta(minutes=1)
"""Other tools read a version that they opened; after this long it goes with the next `optimize`."""

VERSIONS_GONE = timedelta(milliseconds=1)
"""The smallest age that LanceDB takes without a warning for people who share the table with other writers."""

FRONTIER_COLUMNS = ("tenant", "session_id", "ordinal")

TRIM_ROWS = 20_000
"""So often freed memory goes back while rows come in fast: it would be 60 MB more otherwise."""

SWEEPS_MAX = 3

ERROR_CHARACTERS_MAX = 300

CACHE_BYTES = 16 * 1024 * 1024
"""Each of LanceDB's two caches, which would take gigabytes if there were enough rows; searches here are rare."""

DRIVER_SETTINGS = {
    "LANCE_DEFAULT_IO_BUFFER_SIZE": str(16 * 1024 * 1024),
    "LANCE_DEFAULT_BATCH_SIZE": "256",
}
"""Read-ahead, and rows a batch: a row's text can have 256 KiB. LanceDB reads both from the environment only."""

STOP_S = 1.0
"""How long the end of the node waits for LanceDB: importing it, or merging a large table, takes longer."""

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)


class LanceError(Exception):
    """The long-term store failed; opening it again and repeating the call is safe."""


class LanceHit(NamedTuple):
    """A chunk found by its vector."""

    session_id: str
    message_id: str
    chunk: int
    log_index: int
    similarity: float
    """Cosine, -1 to 1."""


class LanceStore:
    """The table `memories` under any URI that LanceDB takes. It must have no other writer.

    All calls run in one thread of its own, one after the other; none blocks the event loop. Every failure of
    LanceDB is a LanceError, after which the store must be opened again.
    """

    def __init__(self, uri: str, *, model: str, dimension: int, takes_other: bool = False) -> None:
        """`takes_other`: a table with vectors of another model is gone on with, until `become` says otherwise."""
        self._uri = uri
        self._takes_other = takes_other
        self.space = Space(model, dimension)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engram-lance")
        self._lancedb: Any = None
        self._arrow: Any = None
        self._connection: Any = None
        self._table: Any = None
        self._swept = False
        self._frontier = Frontier()
        self._untrimmed_rows = 0
        self.cursor = 0
        """Every row with vectors that the log gave at or below this index is in the table."""

    async def open(self, *, log_last_index: int) -> None:
        """Open or create the table, and find the cursor.

        A table that cannot be read, of another format or other columns, or ahead of `log_last_index`, so that it belongs to another
        log, is dropped: the cursor is 0 then.

        Raises:
            ConfigError: The table holds vectors of another model or dimension.
            LanceError: LanceDB failed.
        """
        await self._run(self._open, log_last_index)

    async def add(self, rows: Sequence[EmbeddedRow]) -> None:
        """Add `rows` in one commit and move the cursor to the last one's `log_index`.

        They come in the order of that index and hold whole entries. A message that is there already with other
        vectors is replaced. Vectors of another model are left out: nothing could be compared with them.
        """
        await self._run(self._add, rows)

    async def forget(self, erasures: Sequence[Erasure]) -> None:
        """Remove what `erasures` mean from the table and from every file of it. Repeating it is cheap."""
        await self._run(self._forget, erasures)

    async def optimize(self) -> None:
        """Merge small files, drop old versions, bring the index up to date; costs up to 10 us for each row."""
        await self._run(self._optimize)

    async def search(self, vector: npt.NDArray[np.float32], scope: Scope, k: int) -> list[LanceHit]:
        """Return the `k` chunks of `scope` nearest to `vector`, best first; exact, it compares every row."""
        return await self._run(self._search, vector, scope, k)

    async def kept(self, after: int, up_to: int) -> list[Kept]:
        """Return the rows that the log gave behind the index `after` and up to another; reads that column of all."""
        return await self._run(lambda: lance_rows.kept(self._table.search().where(between(after, up_to)).to_arrow()))

    async def look(self) -> str | None:
        """Open the table that is there to read it, and change nothing; return why there is none to read, if so."""
        return await self._run(self._look)

    async def count(self) -> int:
        """Return the number of rows."""
        return await self._run(lambda: int(self._table.count_rows()))

    async def become(self, space: Space) -> None:
        """Drop the table and make it anew for another model: the cursor is 0. It need not be open."""
        self.space = space
        await self.clear()

    async def clear(self) -> None:
        """Drop the table and make it anew for this store's model: the cursor is 0. It need not be open."""
        await self._run(self._clear)

    async def close(self) -> None:
        """Wait for the call in progress and let go of the table; `open` opens it again."""
        await self._run(self._release)

    async def stop(self) -> None:
        """Close it and end its thread, for good.

        A call that takes longer than STOP_S is left behind, for the process to end with: each is one commit, which
        either is there afterwards or is made again.
        """
        try:
            async with asyncio.timeout(STOP_S):
                await self.close()
        except TimeoutError:
            _log.info("leaving a call of the long-term store unfinished")
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: _guarded(function, *arguments, **options))

    def _open(self, log_last_index: int) -> None:
        self._connect()
        if TABLE not in self._connection.list_tables().tables:
            self._create()
            return
        try:
            self._table = self._connection.open_table(TABLE)
            misfit = lance_rows.misfit(self._arrow, self._table.schema)
            self.cursor = 0 if misfit else self._highest_index()
        except Exception as error:
            if not self._is_local():
                raise
            _log.warning("long-term store unreadable, building it afresh", extra={"error": type(error).__name__})
            self._recreate()
            return
        if misfit is not None:
            _log.warning("the table of the long-term store %s, building it afresh", misfit)
            self._recreate()
            return
        self._check(log_last_index)

    def _look(self) -> str | None:
        self._connect()
        if TABLE not in self._connection.list_tables().tables:
            return "it has no table yet"
        self._table = self._connection.open_table(TABLE)
        misfit = lance_rows.misfit(self._arrow, self._table.schema)
        if misfit is not None:
            return f"its table {misfit}"
        metadata = self._metadata()
        made_for = Space(metadata["engram.model"], int(metadata["engram.dimension"]))
        if made_for != self.space:
            return f"its vectors are of {made_for.model}, {made_for.dimension} dimensions"
        self.cursor = self._highest_index()
        return None

    def _metadata(self) -> dict[str, str]:
        return {key.decode(): value.decode() for key, value in (self._table.schema.metadata or {}).items()}

    def _check(self, log_last_index: int) -> None:
        metadata = self._metadata()
        model, dimension = metadata["engram.model"], int(metadata["engram.dimension"])
        if (model, dimension) != self.space:
            if self._table.count_rows() == 0:  # made before anything was written, and nothing can be lost
                self._recreate()
                return
            if self._takes_other:
                self.space = Space(model, dimension)
                return
            raise ConfigError(
                f"{self._uri} holds vectors of {model!r} with dimension {dimension}, but the embedder is "
                f"{self.space.model!r} with dimension {self.space.dimension}: stop the node and run `engram "
                "reembed`, or set the embedder back"
            )
        if self.cursor > log_last_index:
            _log.warning("long-term store belongs to another log, building it afresh", extra={"cursor": self.cursor})
            self._recreate()

    def _connect(self) -> None:
        self._release()
        self._lancedb, self._arrow = _driver()
        session = self._lancedb.Session(index_cache_size_bytes=CACHE_BYTES, metadata_cache_size_bytes=CACHE_BYTES)
        self._connection = self._lancedb.connect(self._uri, session=session)

    def _release(self) -> None:
        self._table = self._connection = None
        self._swept = False
        self._frontier = Frontier()
        self.cursor = 0

    def _create(self) -> None:
        self._table = self._connection.create_table(TABLE, schema=lance_rows.schema(self._arrow, self.space))
        self._swept = True

    def _recreate(self) -> None:
        self._table = None
        self._frontier = Frontier()
        self.cursor = 0
        self._connection.drop_table(TABLE)
        self._create()

    def _clear(self) -> None:
        self._connect()
        if TABLE in self._connection.list_tables().tables:
            self._connection.drop_table(TABLE)
        self._create()

    def _is_local(self) -> bool:
        """Whether an unreadable table cannot be the network's fault."""
        return "://" not in self._uri or self._uri.startswith("file:")

    def _highest_index(self) -> int:
        column = self._table.search().select(["log_index"]).to_arrow()["log_index"]
        return self._arrow.compute.max(column).as_py() or 0

    def _add(self, rows: Sequence[EmbeddedRow]) -> None:
        fitting = [row for row in rows if self.space.holds(row)]
        if fitting:
            self._replace(fitting)
            self._table.add(lance_rows.table(self._arrow, self._table.schema, fitting))
            self._frontier.move(fitting)
            self._trim(len(fitting))
        self.cursor = rows[-1].log_index

    def _replace(self, rows: Sequence[EmbeddedRow]) -> None:
        """Remove what is there of the messages of `rows`. Seldom is there anything, and seldom does it take a look."""
        if unknown := self._frontier.unknown(rows):
            lowest = min(row.ordinal for row in unknown)
            found = self._find(lance_rows.from_ordinal(unknown, lowest), *FRONTIER_COLUMNS)
            self._frontier.learn(unknown, zip(*(found[name] for name in FRONTIER_COLUMNS), strict=True), lowest)
        if suspects := self._frontier.behind(rows):
            self._remove(self._rows_of(suspects))

    def _trim(self, rows: int) -> None:
        self._untrimmed_rows += rows
        if self._untrimmed_rows >= TRIM_ROWS:
            self._untrimmed_rows = 0
            trim_memory()

    def _rows_of(self, rows: Sequence[EmbeddedRow]) -> list[int]:
        wanted = {(row.tenant, row.session_id, row.message_id) for row in rows}
        found = self._find(lance_rows.of_messages(rows), "tenant", "session_id", "message_id")
        keys = zip(found["tenant"], found["session_id"], found["message_id"], strict=True)
        return [row_id for key, row_id in zip(keys, found["_rowid"], strict=True) if key in wanted]

    def _find(self, where: str, *columns: str) -> dict[str, list[Any]]:
        query = self._table.search().where(where).select(list(columns)).with_row_id(True)  # noqa: FBT003  its only parameter
        return query.to_arrow().to_pydict()  # type: ignore[no-any-return]

    def _remove(self, row_ids: Sequence[int]) -> None:
        """Delete rows so that no fragment keeps them under a deletion mark: LanceDB might never rewrite it."""
        if not row_ids:
            return
        doomed = lance_rows.of_rows(row_ids)
        others = f"({lance_rows.beside_rows(row_ids)}) AND NOT ({doomed})"
        self._table.update(where=others, values_sql={"chunk": "chunk"})
        self._table.delete(doomed)
        self._swept = False

    def _forget(self, erasures: Sequence[Erasure]) -> None:
        row_ids = self._find(lance_rows.to_forget(erasures), "chunk")["_rowid"]
        if not row_ids and self._swept:
            return
        if self._is_indexed():
            self._table.drop_index(INDEX_NAME)
        self._remove(row_ids)
        self._sweep()
        self._index()

    def _sweep(self) -> None:
        """Take every file off the disk that the current version does not need, leftovers of a crash included."""
        for _ in range(SWEEPS_MAX):
            self._table.optimize(cleanup_older_than=VERSIONS_GONE, delete_unverified=True)
            if len(self._table.list_versions()) == 1:
                self._swept = True
                trim_memory()
                return
        raise LanceError("old versions of the long-term store cannot be removed; was the clock set back?")

    def _optimize(self) -> None:
        self._index()
        self._table.optimize(cleanup_older_than=VERSIONS_KEPT)
        trim_memory()

    def _index(self) -> None:
        if not self._is_indexed() and self._table.count_rows() >= INDEX_ROWS_MIN:
            self._table.create_index(INDEXED, config=self._lancedb.index.Bitmap(), name=INDEX_NAME)

    def _is_indexed(self) -> bool:
        return any(index.name == INDEX_NAME for index in self._table.list_indices())

    def _search(self, vector: npt.NDArray[np.float32], scope: Scope, k: int) -> list[LanceHit]:
        columns = ["session_id", "message_id", "chunk", "log_index"]
        query = self._table.search(vector, vector_column_name="vector").distance_type("cosine")
        found = query.where(lance_rows.in_scope(scope), prefilter=True).limit(k).select([*columns, "_distance"])
        return [
            LanceHit(hit["session_id"], hit["message_id"], hit["chunk"], hit["log_index"], 1.0 - hit["_distance"])
            for hit in found.to_arrow().to_pylist()
        ]


def _guarded(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    try:
        return function(*arguments, **options)
    except (ConfigError, LanceError):
        raise
    except BaseException as error:
        # LanceDB raises RuntimeError, ValueError, OSError and, when its Rust code panics, a BaseException: whatever
        # it is, this thread serves nothing else, and the feed opens the store again.
        raise LanceError(f"{type(error).__name__}: {str(error)[:ERROR_CHARACTERS_MAX]}") from error


def _driver() -> tuple[Any, Any]:
    """Import the driver, in the store's thread: it would hold up a start by more than a second."""
    for name, value in DRIVER_SETTINGS.items():
        os.environ.setdefault(name, value)
    import lancedb  # noqa: PLC0415  see above
    import lancedb.index  # noqa: PLC0415
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute  # noqa: PLC0415

    pa.set_memory_pool(pa.system_memory_pool())
    return lancedb, pa
