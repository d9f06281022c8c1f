"""What LanceDB holds: the table's columns, and the filters that find rows in it.

Nothing here calls LanceDB. Values go into filters as SQL literals, since it takes no parameters.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

FORMAT = "1"
"""Raised when the columns change their names or meaning; a table of another format is built afresh."""

PLAIN = {"lance-encoding:compression": "none"}
"""Of a column: written as it is. Compressing takes 5 of 8 us a row, and makes the files 15 % smaller."""

FRAGMENT_BITS = 32
"""A row id is the number of its fragment and, in these lower bits, its place in there."""


FRONTIER_SESSIONS_MAX = 20_000
"""A few megabytes; a session that comes back after so many others costs one look into the table."""


class EmbeddedRow(Protocol):
    """A chunk of a message with its vector, as the primary store has it."""

    @property
    def tenant(self) -> str: ...
    @property
    def session_id(self) -> str: ...
    @property
    def message_id(self) -> str: ...
    @property
    def ordinal(self) -> int:
        """Number of the message in its session: later ones have higher numbers."""

    @property
    def chunk(self) -> int:
        """Number of the chunk in its message, from 0."""

    @property
    def agent_id(self) -> str | None: ...
    @property
    def user_id(self) -> str | None: ...
    @property
    def role(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def text(self) -> str:
        """Of the whole message."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int:
        """The chunk is the characters [start, end) of `text`."""

    @property
    def when_ms(self) -> int: ...
    @property
    def log_index(self) -> int:
        """Log index of the entry that gave the message its vectors."""

    @property
    def model(self) -> str: ...
    @property
    def vector(self) -> bytes:
        """Little-endian float16."""


class Kept(NamedTuple):
    """A row in a form in which one from LanceDB and one from the primary store can be compared."""

    tenant: str
    session_id: str
    message_id: str
    ordinal: int
    chunk: int
    agent_id: str | None
    user_id: str | None
    role: str
    name: str | None
    text: str
    when_ms: int
    log_index: int
    vector: bytes


class Space(NamedTuple):
    """What vectors can be compared with one another."""

    model: str
    dimension: int

    def holds(self, row: EmbeddedRow) -> bool:
        """Return whether the row's vector is one of these."""
        return row.model == self.model and len(row.vector) == 2 * self.dimension


class Scope(NamedTuple):
    """Where to search: everything of a tenant, or of some of its sessions, one agent or one user."""

    tenant: str
    session_ids: Collection[str] | None = None
    agent_id: str | None = None
    user_id: str | None = None


class Erasure(NamedTuple):
    """What to forget: a message or a whole session, as far as it was written at or before a log index."""

    tenant: str
    session_id: str
    message_id: str | None
    """None: the whole session."""
    up_to_index: int


class Frontier:
    """The highest ordinal in the table, for each session that was written lately.

    A row behind it may belong to a message that is in the table already; one beyond it cannot.
    """

    def __init__(self) -> None:
        self._highest: dict[tuple[str, str], int] = {}

    def unknown(self, rows: Iterable[EmbeddedRow]) -> list[EmbeddedRow]:
        """Return the rows of sessions of which nothing is known."""
        return [row for row in rows if (row.tenant, row.session_id) not in self._highest]

    def learn(self, rows: Iterable[EmbeddedRow], found: Iterable[tuple[str, str, int]], lowest: int) -> None:
        """Note what the table holds of the sessions of `rows`: `found`, and nothing else from the ordinal `lowest` on."""
        for row in rows:
            self._highest.setdefault((row.tenant, row.session_id), lowest - 1)
        for tenant, session_id, ordinal in found:
            if (tenant, session_id) in self._highest:
                self._raise((tenant, session_id), ordinal)

    def behind(self, rows: Iterable[EmbeddedRow]) -> list[EmbeddedRow]:
        """Return the rows that may be of messages that are in the table."""
        return [row for row in rows if row.ordinal <= self._highest[row.tenant, row.session_id]]

    def move(self, rows: Iterable[EmbeddedRow]) -> None:
        """Note that `rows` are in the table now. Sessions that were written longest ago are forgotten."""
        for row in rows:
            self._raise((row.tenant, row.session_id), row.ordinal)
        while len(self._highest) > FRONTIER_SESSIONS_MAX:
            del self._highest[next(iter(self._highest))]

    def _raise(self, session: tuple[str, str], ordinal: int) -> None:
        self._highest[session] = max(self._highest.pop(session, -1), ordinal)


def schema(arrow: Any, space: Space) -> Any:
    """Return the table's columns; format, model and dimension are recorded in its metadata."""
    text = arrow.string()
    fields = [
        arrow.field("session_id", text, nullable=False),
        arrow.field("message_id", text, nullable=False),
        arrow.field("ordinal", arrow.int64(), nullable=False),
        arrow.field("chunk", arrow.int32(), nullable=False),
        arrow.field("tenant", text, nullable=False),
        arrow.field("agent_id", text),
        arrow.field("user_id", text),
        arrow.field("role", text, nullable=False),
        arrow.field("name", text),
        arrow.field("text", text, nullable=False),
        arrow.field("when", arrow.timestamp("ms", "UTC"), nullable=False),
        arrow.field("log_index", arrow.int64(), nullable=False),
        arrow.field("vector", arrow.list_(arrow.float32(), space.dimension), nullable=False),
    ]
    return arrow.schema(
        [field.with_metadata(PLAIN) for field in fields],
        metadata={
            "engram.format": FORMAT,
            "engram.model": space.model,
            "engram.dimension": str(space.dimension),
        },
    )


def misfit(arrow: Any, columns: Any) -> str | None:
    """Return what tells a table with `columns` from one of this version, if anything does; the model may be another."""
    metadata = {key.decode(): value.decode() for key, value in (columns.metadata or {}).items()}
    if metadata.get("engram.format") != FORMAT:
        return f"is of format {metadata.get('engram.format')}, not {FORMAT}"
    model, dimension = metadata.get("engram.model"), metadata.get("engram.dimension", "")
    if model is None or not dimension.isdecimal():
        return "does not say whose vectors it has"
    wanted = schema(arrow, Space(model, int(dimension)))
    if not columns.equals(wanted):
        names = sorted(set(wanted.names) ^ set(columns.names))
        return f"has other columns: {', '.join(names) or 'of other types'}"
    return None


def table(arrow: Any, columns: Any, rows: Sequence[EmbeddedRow]) -> Any:
    """Return `rows` as an Arrow table with the columns of `schema`; their vectors have its dimension."""
    vectors = np.frombuffer(b"".join(row.vector for row in rows), dtype="<f2").astype("<f4")
    dimension = columns.field("vector").type.list_size
    values = {
        "session_id": [row.session_id for row in rows],
        "message_id": [row.message_id for row in rows],
        "ordinal": [row.ordinal for row in rows],
        "chunk": [row.chunk for row in rows],
        "tenant": [row.tenant for row in rows],
        "agent_id": [row.agent_id for row in rows],
        "user_id": [row.user_id for row in rows],
        "role": [row.role for row in rows],
        "name": [row.name for row in rows],
        "text": [row.text[row.start : row.end] for row in rows],
        "when": [row.when_ms for row in rows],
        "log_index": [row.log_index for row in rows],
    }
    arrays = [arrow.array(values[field.name], field.type) for field in columns if field.name != "vector"]
    arrays.append(arrow.FixedSizeListArray.from_arrays(arrow.array(vectors), dimension))
    return arrow.Table.from_arrays(arrays, schema=columns)


def kept_of(row: EmbeddedRow) -> Kept:
    """Return what LanceDB should keep of a row."""
    return Kept(
        tenant=row.tenant,
        session_id=row.session_id,
        message_id=row.message_id,
        ordinal=row.ordinal,
        chunk=row.chunk,
        agent_id=row.agent_id,
        user_id=row.user_id,
        role=row.role,
        name=row.name,
        text=row.text[row.start : row.end],
        when_ms=row.when_ms,
        log_index=row.log_index,
        vector=row.vector,
    )


def kept(found: Any) -> list[Kept]:
    """Return the rows of an Arrow table with the columns of `schema`."""
    columns = {name: found[name].to_pylist() for name in found.column_names if name not in {"vector", "when"}}
    columns["when_ms"] = found["when"].cast("int64").to_pylist()
    flat = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    columns["vector"] = [row.tobytes() for row in flat.astype("<f2").reshape(len(found), -1)] if len(found) else []
    return [Kept(*values) for values in zip(*(columns[name] for name in Kept._fields), strict=True)]


def between(after: int, up_to: int) -> str:
    """Return the filter for what the log gave behind one index and up to another."""
    return f"log_index > {after} AND log_index <= {up_to}"


def in_scope(scope: Scope) -> str:
    """Return the filter for the rows of `scope`."""
    parts = [f"tenant = {_literal(scope.tenant)}"]
    if scope.session_ids is not None:
        parts.append(_one_of("session_id", scope.session_ids))
    if scope.agent_id is not None:
        parts.append(f"agent_id = {_literal(scope.agent_id)}")
    if scope.user_id is not None:
        parts.append(f"user_id = {_literal(scope.user_id)}")
    return " AND ".join(parts)


def to_forget(erasures: Iterable[Erasure]) -> str:
    """Return the filter for the rows that any of `erasures` means."""
    return " OR ".join(f"({_erased(erasure)})" for erasure in erasures)


def of_messages(rows: Iterable[EmbeddedRow]) -> str:
    """Return a filter for all rows of the messages of `rows`, and of some others with the same ids elsewhere."""
    rows = list(rows)
    sessions = _one_of("session_id", {row.session_id for row in rows})
    return f"{sessions} AND {_one_of('message_id', {row.message_id for row in rows})}"


def from_ordinal(rows: Iterable[EmbeddedRow], lowest: int) -> str:
    """Return the filter for the rows of the sessions of `rows` from the ordinal `lowest` on."""
    return f"{_one_of('session_id', {row.session_id for row in rows})} AND ordinal >= {lowest}"


def of_rows(row_ids: Collection[int]) -> str:
    """Return the filter for exactly these rows."""
    return f"_rowid IN ({', '.join(map(str, row_ids))})"


def beside_rows(row_ids: Iterable[int]) -> str:
    """Return the filter for every row of the fragments that hold one of these rows."""
    fragments = sorted({row_id >> FRAGMENT_BITS for row_id in row_ids})
    return " OR ".join(
        f"(_rowid >= {fragment << FRAGMENT_BITS} AND _rowid < {(fragment + 1) << FRAGMENT_BITS})"
        for fragment in fragments
    )


def _erased(erasure: Erasure) -> str:
    parts = [
        f"tenant = {_literal(erasure.tenant)}",
        f"session_id = {_literal(erasure.session_id)}",
        f"log_index <= {erasure.up_to_index}",
    ]
    if erasure.message_id is not None:
        parts.append(f"message_id = {_literal(erasure.message_id)}")
    return " AND ".join(parts)


def _one_of(column: str, values: Iterable[str]) -> str:
    literals = ", ".join(map(_literal, values))
    return f"{column} IN ({literals})" if literals else "false"


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
