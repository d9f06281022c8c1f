"""Mutants of what reads, copies and thins out the past, of Redis, and of the end of the log."""

from tests.mutants.mutant import Mutant

_WAL, _ENDING = "tests/log/test_wal.py", "tests/log/test_ending.py"
_DISK = "tests/disk/test_log_store.py"
_BACKUP, _COPYING, _ROWS = "tests/cli/test_backup.py", "tests/moving/test_copying.py", "tests/moving/test_rows.py"
_IMPORT, _FORMAT = "tests/moving/test_importing.py", "tests/moving/test_backup_format.py"
_REDIS, _FEED, _CHANGES = (
    "tests/property/test_redis.py",
    "tests/projections/test_redis_feed.py",
    "tests/projections/test_redis_changes.py",
)
_MEMORY = "tests/projections/test_redis_memory.py"
_PAST, _AS_OF = "tests/property/test_past.py", "tests/api/test_as_of.py"
_RETENTION, _HISTORY = "tests/property/test_retention.py", "tests/api/test_history.py"

MUTANTS = (
    Mutant(
        "mark-not-asked",
        "after a killed process a flipped bit takes the last transaction, without a word",
        "engram/log/ending.py",
        "self.ending = examine(wal, _Opened(self._path), None if mark is None else mark.place)",
        "self.ending = examine(wal, _Opened(self._path), None)",
        (_ENDING,),
    ),
    Mutant(
        "mark-written-once",
        "the mark speaks of the opening, and a flipped bit takes what came after it",
        "engram/log/sqlite.py",
        "await self._database.transact(change, after=partial(self._marker.note, after.last_index))",
        "await self._database.transact(change)",
        (_ENDING,),
    ),
    Mutant(
        "mark-one-commit-behind",
        "the mark is written before there is anything to mark, and a flipped bit takes the last transaction",
        "engram/database.py",
        '                connection.execute("COMMIT")\n            except BaseException:\n'
        "                if connection.in_transaction:  # SQLite has rolled back by itself after some errors\n"
        '                    connection.execute("ROLLBACK")\n                raise\n            after()\n',
        '                after()\n                connection.execute("COMMIT")\n            except BaseException:\n'
        "                if connection.in_transaction:  # SQLite has rolled back by itself after some errors\n"
        '                    connection.execute("ROLLBACK")\n                raise\n',
        (_ENDING,),
    ),
    Mutant(
        "torn-frames-taken-for-damage",
        "a node does not start after an ordinary crash",
        "engram/log/wal.py",
        "        if goes_on and is_commit:\n",
        "        if goes_on:\n",
        (_WAL,),
    ),
    Mutant(
        "later-frames-not-looked-at",
        "after a power cut a flipped bit ends the log anywhere",
        "engram/log/wal.py",
        "    if broken is not None and _goes_on(frames, broken, total, header.salts, sums):\n",
        "    if broken is not None and broken.number < 0:\n",
        (_WAL,),
    ),
    Mutant(
        "older-generation-taken-for-damage",
        "a node does not start when its write-ahead log has begun anew",
        "engram/log/wal.py",
        "        is_ours = frame.salts == salts\n",
        "        is_ours = True\n",
        (_WAL, _DISK),
    ),
    Mutant(
        "damaged-header-believed",
        "a flipped bit in the header takes the whole write-ahead log",
        "engram/log/wal.py",
        "return Ending(None, 0, _lost_with_the_header(wal, database))",
        "return Ending(None, 0)",
        (_WAL,),
    ),
    Mutant(
        "what-sqlite-read-not-compared",
        "a write-ahead log that is read wrongly once is removed",
        "engram/log/ending.py",
        "        if found != self.ending.frames:\n",
        "        if found > self.ending.frames:\n",
        (_DISK,),
    ),
    Mutant(
        "backup-without-its-last-row",
        "a backup lacks the newest entry, and says that it is whole",
        "engram/moving/rows.py",
        "if row.index <= up_to]",
        "if row.index < up_to]",
        (_ROWS, _COPYING, _BACKUP),
    ),
    Mutant(
        "rows-erased-meanwhile-copied",
        "a copy that was made during a deletion has the text, and not the deletion",
        "engram/moving/rows.py",
        "        if log.rewrites == rewrites:\n            return\n",
        "        return\n",
        (_ROWS, _COPYING),
    ),
    Mutant(
        "backup-before-erasures-are-done",
        "a backup has the text of what was deleted before it was begun",
        "engram/moving/copying.py",
        "            await self._wait_clean()\n",
        "",
        (_COPYING,),
    ),
    Mutant(
        "backup-rows-out-of-order",
        "a backup whose parts were exchanged becomes a log",
        "engram/moving/backup_format.py",
        "            if index <= self._last[0] or term < self._last[1]:\n",
        "            if term < self._last[1]:\n",
        (_FORMAT,),
    ),
    Mutant(
        "backup-digest-not-checked",
        "a backup that was put together from two is restored",
        "engram/moving/backup_format.py",
        "if tail.sha256 != self._sha256.digest():",
        "if not tail.sha256:",
        (_FORMAT,),
    ),
    Mutant(
        "restored-log-with-the-old-disk",
        "a restored node is taken for the one whose promises it has forgotten",
        "engram/log/restoring.py",
        "state = State(store_id=str(uuid.uuid4()), node_id",
        'state = State(store_id="a-store", node_id',
        (_BACKUP,),
    ),
    Mutant(
        "import-with-other-indexes",
        "entries of an import stand elsewhere than in the log that it came from",
        "engram/moving/importing.py",
        "            yield from self._gap(entry.index - 1)\n",
        "            yield from self._gap(entry.index - 2)\n",
        (_IMPORT,),
    ),
    Mutant(
        "redis-written-whatever-its-state",
        "a Redis that was put back to an older state is added to, and believed",
        "engram/projections/redis_store.py",
        "            if await pipeline.get(self.keys.state) != encode_state(before):\n",
        "            if await pipeline.get(self.keys.state) is None:\n",
        ("tests/projections/test_redis_store.py",),
    ),
    Mutant(
        "redis-sessions-outside-the-transaction",
        "after a crash the state of Redis speaks of sessions that are not there",
        "engram/projections/redis_store.py",
        "            pipeline.multi()\n            pipeline.set(self.keys.state, encode_state(after))\n",
        "            await pipeline.set(self.keys.state, encode_state(after))\n            pipeline.multi()\n",
        (_FEED, _MEMORY, "tests/projections/test_redis_keys.py"),
    ),
    Mutant(
        "redis-ahead-of-what-is-written",
        "Redis says that it has entries of which sessions are still to be written",
        "engram/projections/redis_feed.py",
        "return self._source.applied_index if first is None else first - 1",
        "return self._source.applied_index",
        (_FEED,),
    ),
    Mutant(
        "as-of-off-by-one",
        "a look back lacks the entry that it looks back to",
        "engram/projections/sqlite_past.py",
        "return found if found is not None and found.log_index <= log_index else None",
        "return found if found is not None and found.log_index < log_index else None",
        (_PAST, _AS_OF),
    ),
    Mutant(
        "facts-of-later-in-the-past",
        "a look back shows facts that were pinned later",
        "engram/projections/sqlite_past.py",
        "if fact.log_index <= log_index]",
        "if fact.log_index <= log_index + 1]",
        (_PAST, _AS_OF),
    ),
    Mutant(
        "session-of-later-in-the-past",
        "a look back shows a session before it began",
        "engram/projections/sqlite_past.py",
        "if found is not None and found.session_key <= log_index else None",
        "if found is not None else None",
        (_PAST, _AS_OF),
    ),
    Mutant(
        "retention-of-what-still-counts",
        "the vectors that a message has are taken from its history",
        "engram/projections/retention.py",
        "if message is None or not log_index < message.vectors_index <= horizon_index:",
        "if message is None or not log_index <= message.vectors_index <= horizon_index:",
        (_RETENTION,),
    ),
    Mutant(
        "retention-above-the-horizon",
        "vectors go that are replaced only behind the horizon",
        "engram/projections/retention.py",
        "if message is None or not log_index < message.vectors_index <= horizon_index:",
        "if message is None or not log_index < message.vectors_index:",
        (_RETENTION,),
    ),
    Mutant(
        "retention-of-another-life",
        "entries of an older life of a session are emptied before the eraser has seen them",
        "engram/projections/retention.py",
        "if life is None or life.key > entry.log_index or any(",
        "if life is None or any(",
        (_RETENTION,),
    ),
    Mutant(
        "refused-message-in-the-history",
        "a history shows a message that did not count",
        "engram/projections/effects.py",
        "return made == log_index and _is_first(seen, MessageAppended, event.message_id)",
        "return made is not None and _is_first(seen, MessageAppended, event.message_id)",
        ("tests/property/test_effects.py", _HISTORY),
    ),
    Mutant(
        "same-message-twice-in-the-history",
        "a history shows a message twice that an entry repeats",
        "engram/projections/effects.py",
        "    return is_first\n",
        "    return True\n",
        ("tests/property/test_effects.py", _HISTORY),
    ),
    Mutant(
        "vectors-of-nothing-in-the-history",
        "a history shows vectors of a text that is not there",
        "engram/projections/effects.py",
        "return _made_at(connection, key, event.message_id) == (event.source_index or log_index)",
        "return True",
        ("tests/property/test_effects.py", _HISTORY),
    ),
)
