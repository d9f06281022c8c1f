"""Loading what a fold needs out of projections.db."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from engram.database import Connection, look_up
from engram.events import Scalar
from engram.projections.ledger import Needs
from engram.projections.lives import FactState, Life, MessageState, View

_LIFE = """
WITH wanted (tenant, session_id) AS (VALUES (?,?))
SELECT tenant, session_id, s.session_key, created_at_ms, agent_id, user_id, metadata, visibility, updated_at_ms,
  updated_index, message_count, fact_count, token_count, pending_embeddings, abandoned_embeddings, next_ordinal,
  vectors_index, deletions
FROM wanted CROSS JOIN sessions s USING (tenant, session_id) LEFT JOIN profiles p ON p.session_key = s.session_key
"""
_MESSAGE = """
WITH wanted (session_key, message_id) AS (VALUES (?,?))
SELECT session_key, message_id, slot, ordinal, role, text, tokens, at_ms, embedding, vectors_index, model
FROM wanted CROSS JOIN messages USING (session_key, message_id) CROSS JOIN contents USING (slot)
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
    for tenant, session_id, *columns in look_up(connection, _LIFE, list(needed)):
        view.lives[tenant, session_id] = _life(columns, tenant, session_id)
    lives = {life.key: (life, needed[session]) for session, life in view.lives.items()}
    _load_messages(connection, lives)
    for life, needs in lives.values():
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


def _life(row: Sequence[Any], tenant: str, session_id: str) -> Life:
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


def _load_messages(connection: Connection, lives: Mapping[int, tuple[Life, Needs]]) -> None:
    wanted = [(key, message_id) for key, (_, needs) in lives.items() for message_id in needs.message_ids]
    for key, message_id, *columns in look_up(connection, _MESSAGE, wanted):
        lives[key][0].messages[message_id] = MessageState(*columns)
    for life, needs in lives.values():
        if life.deletions:
            for message_id in needs.message_ids - life.messages.keys():
                if connection.execute(_TOMBSTONE, (life.key, message_id)).fetchone():
                    life.tombstones.add(message_id)


def _load_facts(connection: Connection, life: Life, needs: Needs) -> None:
    if not life.fact_count:
        return
    for query, keys in ((_FACT_BY_ID, needs.fact_ids), (_FACT_BY_TEXT, needs.fact_texts)):
        for key in keys:
            for row in connection.execute(query, (life.key, key)):
                fact = FactState(*row)
                life.facts[fact.fact_id] = fact
