"""The layout of projections.db.

Forgetting shapes it. SQLite overwrites what it deletes, but not the copies that it leaves behind when it moves rows
between pages, which happens when rows are deleted or grow. So whatever a client wrote lies in tables (contents, vectors,
facts, profiles, recall_blobs) whose rows never move: they are only ever added at the end, never grow, and are blanked
in place instead of deleted, under a session key that no session has. Everything else holds numbers and ids.

A fact that is unpinned is out of its session at once, and blanked when the log is clean of its text: until then the
eraser finds by it what else says the same.

Blanked rows cost a few bytes each; opening the file compacts it when there are more of them than of others.
"""

from typing import Final

VERSION: Final = 4
"""Raise it whenever a table or a fold changes what it means: files of another version are built afresh from the log."""

APPLICATION_ID: Final = 0x656E6772  # "engr"

UNSEALED_ROWS_MIN: Final = 256
"""Sessions with fewer messages beyond their sealed recall index are not indexed as unsealed."""

TABLES: Final = """
CREATE TABLE state (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  applied_index INTEGER NOT NULL,
  applied_term INTEGER NOT NULL,
  last_at_ms INTEGER NOT NULL,
  sessions INTEGER NOT NULL,
  messages INTEGER NOT NULL,
  facts INTEGER NOT NULL,
  pending INTEGER NOT NULL,
  abandoned INTEGER NOT NULL,
  blanked INTEGER NOT NULL,
  opened_under TEXT NOT NULL
) STRICT;
INSERT INTO state VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, '');

CREATE TABLE sessions (
  session_key INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  session_id TEXT NOT NULL,
  agent_hash INTEGER,
  user_hash INTEGER,
  visibility TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  updated_at_ms INTEGER NOT NULL,
  updated_index INTEGER NOT NULL,
  message_count INTEGER NOT NULL,
  fact_count INTEGER NOT NULL,
  token_count INTEGER NOT NULL,
  pending_embeddings INTEGER NOT NULL,
  abandoned_embeddings INTEGER NOT NULL,
  next_ordinal INTEGER NOT NULL,
  vectors_index INTEGER NOT NULL,
  deletions INTEGER NOT NULL,
  sealed_ordinal INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX sessions_by_id ON sessions (tenant, session_id);
CREATE INDEX sessions_by_agent ON sessions (agent_hash) WHERE agent_hash IS NOT NULL;
CREATE INDEX sessions_by_user ON sessions (user_hash) WHERE user_hash IS NOT NULL;
CREATE INDEX sessions_unsealed ON sessions (session_key) WHERE next_ordinal - sealed_ordinal >= 256;

CREATE TABLE profiles (
  session_key INTEGER PRIMARY KEY,
  agent_id TEXT,
  user_id TEXT,
  metadata BLOB
) STRICT;

CREATE TABLE messages (
  slot INTEGER PRIMARY KEY,
  session_key INTEGER NOT NULL,
  ordinal INTEGER NOT NULL,
  message_id TEXT NOT NULL,
  role TEXT NOT NULL,
  tokens INTEGER NOT NULL,
  occurred_at_ms INTEGER,
  at_ms INTEGER NOT NULL,
  embedding INTEGER NOT NULL,
  vectors_index INTEGER NOT NULL,
  model TEXT
) STRICT;
CREATE UNIQUE INDEX messages_by_ordinal ON messages (session_key, ordinal);
CREATE UNIQUE INDEX messages_by_id ON messages (session_key, message_id);
CREATE INDEX messages_pending ON messages (slot) WHERE embedding = 1;
CREATE INDEX messages_abandoned ON messages (slot) WHERE embedding = 2;

CREATE TABLE contents (
  slot INTEGER PRIMARY KEY,
  name TEXT,
  text TEXT NOT NULL,
  metadata BLOB
) STRICT;

CREATE TABLE vectors (
  slot INTEGER PRIMARY KEY,
  session_key INTEGER NOT NULL,
  ordinal INTEGER NOT NULL,
  chunk INTEGER NOT NULL,
  start INTEGER NOT NULL,
  "end" INTEGER NOT NULL,
  vector BLOB NOT NULL
) STRICT;
CREATE INDEX vectors_by_session ON vectors (session_key) WHERE session_key > 0;

CREATE TABLE facts (
  slot INTEGER PRIMARY KEY,
  session_key INTEGER NOT NULL,
  fact_id TEXT NOT NULL,
  text TEXT NOT NULL,
  tokens INTEGER NOT NULL,
  at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX facts_by_session ON facts (session_key) WHERE session_key > 0;

CREATE TABLE tombstones (
  session_key INTEGER NOT NULL,
  message_id TEXT NOT NULL,
  PRIMARY KEY (session_key, message_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE timeline (
  session_key INTEGER NOT NULL,
  log_index INTEGER NOT NULL,
  PRIMARY KEY (session_key, log_index)
) STRICT, WITHOUT ROWID;

CREATE TABLE stamps (
  run INTEGER PRIMARY KEY,
  log_index INTEGER NOT NULL,
  at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX stamps_by_time ON stamps (at_ms);

CREATE TABLE traces (
  session_key INTEGER NOT NULL,
  subject TEXT NOT NULL,
  log_index INTEGER NOT NULL,
  PRIMARY KEY (session_key, subject, log_index)
) STRICT, WITHOUT ROWID;

CREATE TABLE erasures (
  log_index INTEGER NOT NULL,
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  session_key INTEGER NOT NULL,
  tenant TEXT NOT NULL,
  session_id TEXT NOT NULL,
  source_index INTEGER NOT NULL,
  log_is_clean INTEGER NOT NULL,
  PRIMARY KEY (log_index, kind, subject, source_index)
) STRICT, WITHOUT ROWID;

CREATE TABLE recall_blobs (
  blob_key INTEGER PRIMARY KEY,
  session_key INTEGER NOT NULL,
  next_ordinal INTEGER NOT NULL,
  vectors_index INTEGER NOT NULL,
  deletions INTEGER NOT NULL,
  data BLOB NOT NULL
) STRICT;
CREATE INDEX recall_blobs_by_session ON recall_blobs (session_key) WHERE session_key > 0;
"""

FORGET_CONTENTS: Final = """
UPDATE contents SET name = NULL, text = '', metadata = NULL
WHERE slot IN (SELECT slot FROM messages WHERE session_key = ?)
"""
FORGET_SESSION: Final = (
    FORGET_CONTENTS,
    "UPDATE vectors SET session_key = 0, vector = x'' WHERE session_key = ? AND session_key > 0",
    "UPDATE facts SET session_key = 0, fact_id = '', text = '' WHERE session_key = ? AND session_key > 0",
    "UPDATE profiles SET agent_id = NULL, user_id = NULL, metadata = NULL WHERE session_key = ?",
    "UPDATE recall_blobs SET session_key = 0, data = x'' WHERE session_key = ? AND session_key > 0",
    "DELETE FROM messages WHERE session_key = ?",
    "DELETE FROM tombstones WHERE session_key = ?",
    "DELETE FROM sessions WHERE session_key = ?",
)
"""What to do with a session key to forget its session. Its timeline and traces go when the log is clean of it."""

FORGET_CONTENT: Final = "UPDATE contents SET name = NULL, text = '', metadata = NULL WHERE slot = ?"
UNPIN_FACT: Final = "UPDATE facts SET session_key = 0 WHERE slot = ?"
FORGET_FACT: Final = "UPDATE facts SET fact_id = '', text = '' WHERE slot = ? AND session_key = 0"
FORGET_VECTORS: Final = (
    "UPDATE vectors SET session_key = 0, vector = x'' WHERE slot >= ? AND slot < ? AND session_key = ? AND ordinal = ?"
)
FORGET_BLOB: Final = "UPDATE recall_blobs SET session_key = 0, data = x'' WHERE session_key = ? AND session_key > 0"

BLANKED_MAX: Final = 10_000
"""Fewer blanked messages than that are left where they are."""

COMPACT: Final = """
BEGIN IMMEDIATE;
DELETE FROM contents WHERE slot NOT IN (SELECT slot FROM messages);
DELETE FROM vectors WHERE session_key = 0;
DELETE FROM facts WHERE session_key = 0 AND fact_id = '';
DELETE FROM profiles WHERE session_key NOT IN (SELECT session_key FROM sessions);
DELETE FROM recall_blobs WHERE session_key = 0;
UPDATE state SET blanked = 0;
COMMIT;
VACUUM;
PRAGMA wal_checkpoint(TRUNCATE);
"""
"""Drop what is blanked, and write the whole file anew, which leaves no old copy of anything."""
