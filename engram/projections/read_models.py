"""The read models as rows: what a digest sums up, and what a comparison goes through.

Left out is what only the erasing itself looks at (traces, erasures), the sealed recall indexes, which readers may
write at any time, and the applied index. The timeline counts for sessions that are there.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from engram.projections.slots import log_index_of

Row = tuple[Any, ...]
"""The key, then the columns. Of a slot only its log index counts: where an entry lost a row, the others move up."""

SLOT: Final = "slot"


class ReadModel(NamedTuple):
    """One table as readers see it."""

    name: str
    source: str
    """What stands behind FROM."""
    condition: str
    key: Sequence[str]
    """Columns that order the rows, and of which an index of SQLite's can find a range."""
    columns: Sequence[str]
    identity: Sequence[str]
    """Columns that tell the rows of one entry apart, where the key is a slot."""

    @property
    def is_slotted(self) -> bool:
        """Whether the key is a slot."""
        return self.key[0] == SLOT

    @property
    def select(self) -> str:
        """The query for all rows, as far as its condition."""
        return f"SELECT {', '.join([*self.key, *self.columns])} FROM {self.source} WHERE {self.condition}"  # noqa: S608

    @property
    def order(self) -> str:
        """What stands behind ORDER BY."""
        return ", ".join(self.key)

    def comparable(self, row: Row) -> Row:
        """Return a row as it is the same in every store that answers readers the same."""
        return (log_index_of(row[0]), *row[1:]) if self.is_slotted else row

    def value(self, row: Row, column: str) -> Any:
        """Return one column of a row; the name stands without the table's."""
        names = [name.split(".")[-1].strip('"') for name in (*self.key, *self.columns)]
        return row[names.index(column)]


def _columns(text: str) -> Sequence[str]:
    return tuple(text.split())


READ_MODELS: Final[Collection[ReadModel]] = (
    ReadModel(
        "sessions",
        "sessions s LEFT JOIN profiles p ON p.session_key = s.session_key",
        "true",
        ("s.session_key",),
        _columns(
            "tenant session_id agent_id user_id metadata agent_hash user_hash visibility created_at_ms updated_at_ms"
            " updated_index message_count fact_count token_count pending_embeddings abandoned_embeddings next_ordinal"
            " vectors_index deletions"
        ),
        (),
    ),
    ReadModel(
        "messages",
        "messages CROSS JOIN contents USING (slot)",
        "true",
        (SLOT,),
        _columns(
            "session_key ordinal message_id role name text tokens occurred_at_ms at_ms metadata embedding vectors_index"
            " model"
        ),
        ("session_key", "ordinal"),
    ),
    ReadModel(
        "vectors",
        "vectors",
        "session_key > 0",
        (SLOT,),
        _columns('session_key ordinal chunk start "end" vector'),
        ("session_key", "ordinal", "chunk"),
    ),
    ReadModel(
        "facts",
        "facts",
        "session_key > 0",
        (SLOT,),
        _columns("session_key fact_id text tokens at_ms"),
        ("session_key", "fact_id"),
    ),
    ReadModel("tombstones", "tombstones", "true", ("session_key", "message_id"), (), ()),
    ReadModel(
        "timeline",
        "timeline",
        "session_key IN (SELECT session_key FROM sessions)",
        ("session_key", "log_index"),
        (),
        (),
    ),
    ReadModel("totals", "state", "true", ("only_row",), _columns("sessions messages facts pending abandoned"), ()),
)
