"""Digests of the read models: equal for two stores that answer every reader the same.

Left out is what only the erasing itself looks at (traces, erasures), the sealed recall indexes, which readers may
write at any time, and the applied index. The timeline counts for sessions that are there.
"""

import hashlib
from typing import Any, Final

from engram.database import Connection
from engram.projections.slots import log_index_of

_TABLES: Final = {
    "sessions": (
        "s.session_key, tenant, session_id, agent_id, user_id, metadata, visibility, created_at_ms, updated_at_ms,"
        " updated_index, message_count, fact_count, token_count, pending_embeddings, abandoned_embeddings,"
        " next_ordinal, vectors_index, deletions"
        " FROM sessions s LEFT JOIN profiles p ON p.session_key = s.session_key ORDER BY s.session_key"
    ),
    "messages": (
        "slot, session_key, ordinal, message_id, role, name, text, tokens, occurred_at_ms, at_ms, metadata, embedding,"
        " vectors_index, model FROM messages JOIN contents USING (slot) ORDER BY slot"
    ),
    "vectors": 'slot, session_key, ordinal, chunk, start, "end", vector FROM vectors WHERE session_key > 0 ORDER BY slot',
    "facts": "slot, session_key, fact_id, text, tokens, at_ms FROM facts WHERE session_key > 0 ORDER BY slot",
    "tombstones": "0, session_key, message_id FROM tombstones ORDER BY session_key, message_id",
    "timeline": (
        "0, session_key, log_index FROM timeline WHERE session_key IN (SELECT session_key FROM sessions)"
        " ORDER BY session_key, log_index"
    ),
    "totals": "0, sessions, messages, facts, pending, abandoned FROM state",
}
_SLOTTED: Final = frozenset({"messages", "vectors", "facts"})
"""Their first column is a slot. Only its log index counts: where an entry lost a message, the others move up."""


def digest(connection: Connection) -> dict[str, str]:
    """Return the SHA-256 of each read model, as hexadecimal digits; reads everything."""
    connection.execute("BEGIN")
    try:
        return {table: _digest(connection, table, columns) for table, columns in _TABLES.items()}
    finally:
        connection.execute("COMMIT")


def _digest(connection: Connection, table: str, columns: str) -> str:
    total = hashlib.sha256()
    for row in connection.execute(f"SELECT {columns}"):
        total.update(repr(_comparable(row, is_slotted=table in _SLOTTED)).encode("utf-8", "surrogatepass"))
    return total.hexdigest()


def _comparable(row: tuple[Any, ...], *, is_slotted: bool) -> tuple[Any, ...]:
    return (log_index_of(row[0]), *row[1:]) if is_slotted else row
