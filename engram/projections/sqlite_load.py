"""Loading what a fold needs out of projections.db."""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from engram.database import Connection
from engram.events import Scalar
from engram.projections.ledger import Needs
from engram.projections.lives import FactState, Life, MessageState, View

_LIFE = """
SELECT s.session_key, created_at_ms, agent_id, user_id, metadata, visibility, updated_at_ms, updated_index, message_count,
  fact_count, token_count, pending_embeddings, abandoned_embeddings, next_ordinal, vectors_index, deletions
FROM sessions s LEFT JOIN profiles p ON p.session_key = s.session_key WHERE tenant = ? AND session_id = ?
"""
_MESSAGE = """
SELECT slot, ordinal, role, text, tokens, embedding, vectors_index, model
FROM messages JOIN contents USING (slot) WHERE session_key = ? AND message_id = ?
"""
_TOMBSTONE = "SELECT 1 FROM tombstones WHERE session_key = ? AND message_id = ?"
_FACT_BY_ID = (
    "SELECT slot, fact_id, text, tokens, at_ms FROM facts WHERE session_key = ? AND session_key > 0 AND fact_id = ?"
)
_FACT_BY_TEXT = (
    "SELECT slot, fact_id, text, tokens, at_ms FROM facts WHERE session_key = ? AND session_key > 0 AND text = ?"
)


def load(connection: Connection, needed: Mapping[tuple[str, str], Needs]) -> View:
    """Return a view that holds what is needed and there."""
    (last_at_ms,) = connection.execute("SELECT last_at_ms FROM state").fetchone()
    view = View(last_at_ms)
    for session, needs in needed.items():
        row = connection.execute(_LIFE, session).fetchone()
        if row is not None:
            life = view.lives[session] = _life(row, *session)
            _load_messages(connection, life, needs)
            _load_facts(connection, life, needs)
    return view


def metadata_of(data: bytes | None) -> Mapping[str, Scalar]:
    """Return the metadata in a column."""
    return {} if data is None else msgspec.msgpack.decode(data, type=dict[str, Scalar])


def hash_of(tenant: str, identifier: str | None) -> int | None:
    """Return what an index holds for an agent or user: the id itself must not lie where rows move."""
    if identifier is None:
        return None
    digest = hashlib.blake2b(f"{tenant}\0{identifier}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def metadata_column(metadata: Mapping[str, Scalar]) -> bytes | None:
    """Return what a column holds for metadata."""
    return msgspec.msgpack.encode(metadata) if metadata else None


def _life(row: Any, tenant: str, session_id: str) -> Life:
    life = Life(row[0], tenant, session_id, row[1], row[2], row[3], metadata_of(row[4]))
    (
        life.visibility,
        life.updated_at_ms,
        life.updated_index,
        life.message_count,
        life.fact_count,
        life.token_count,
        life.pending,
        life.abandoned,
        life.next_ordinal,
        life.vectors_index,
        life.deletions,
    ) = row[5:]
    life.loaded = life.counters()
    return life


def _load_messages(connection: Connection, life: Life, needs: Needs) -> None:
    for message_id in needs.message_ids:
        row = connection.execute(_MESSAGE, (life.key, message_id)).fetchone()
        if row is not None:
            life.messages[message_id] = MessageState(*row)
        elif life.deletions and connection.execute(_TOMBSTONE, (life.key, message_id)).fetchone():
            life.tombstones.add(message_id)


def _load_facts(connection: Connection, life: Life, needs: Needs) -> None:
    if not life.fact_count:
        return
    for query, keys in ((_FACT_BY_ID, needs.fact_ids), (_FACT_BY_TEXT, needs.fact_texts)):
        for key in keys:
            for row in connection.execute(query, (life.key, key)):
                fact = FactState(*row)
                life.facts[fact.fact_id] = fact
