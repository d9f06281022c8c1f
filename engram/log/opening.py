"""What opening the log's file does: make it or bring it up to date, check all of it, read its live part.

Everything here runs in the database's thread.
"""

from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from engram.database import Connection
from engram.errors import ConfigError, CorruptionError
from engram.log import rows, staging
from engram.log.consensus.types import ConfState
from engram.log.rows import Problem, State
from engram.log.staging import Staged
from engram.log.window import Window

_PROBLEMS_MAX = 1000
"""A file that has more of them is not examined further."""


class Opened(NamedTuple):
    """What of the file is kept in memory."""

    state: State
    window: Window
    staged: Staged


def boot(connection: Connection, new: State, window_bytes_max: int) -> Opened:
    """Open the file, which begins as `new` if there is nothing in it, for a node that is about to run.

    Raises:
        CorruptionError: Anything is not as it was written. Then nothing in the file was changed.
        ConfigError: It is another node's.
    """
    found = rows.found_format(connection)
    if found is None:
        connection.execute("BEGIN IMMEDIATE")
        rows.create(connection, new)
        connection.execute("COMMIT")
    state = rows.load_state(connection)
    if state.node_id != new.node_id:
        raise ConfigError(f"the log is that of node {state.node_id}; this is node {new.node_id}")
    for problem in rows.problems(connection, state):
        raise CorruptionError(str(problem))  # the first is enough to stop
    if found == rows.OLD_FORMAT:
        connection.execute("BEGIN IMMEDIATE")
        rows.migrate(connection, state)
        connection.execute("COMMIT")
    window = Window(base_index=state.base_index, base_term=state.base_term, bytes_max=window_bytes_max)
    while window.last_index < state.last_index:
        window.append(
            rows.read(
                connection, window.last_index, state.last_index, rows.CHUNK_ENTRIES_MAX, base_index=state.base_index
            )
        )
    staged = staging.load(connection, state.commit)
    state = replace(state, boot_epoch=state.boot_epoch + 1)
    rows.save_state(connection, state)
    return Opened(state, window, staged)


def look(connection: Connection) -> Opened:
    """Open the file to look at it only, unchecked."""
    state = State(store_id="", node_id=0, base_members=ConfState())
    with suppress(CorruptionError):  # find_problems will tell
        if rows.found_format(connection) is not None:
            state = rows.load_state(connection)
    return Opened(state, Window(base_index=0, base_term=0, bytes_max=0), Staged())


def find_problems(connection: Connection, found: list[Problem]) -> None:
    """Add to `found` what is wrong with the file, at most 1000 things.

    Raises:
        CorruptionError: So much that the search cannot go on.
    """
    if rows.found_format(connection) is None:
        found.append(Problem(None, "the file has nothing in it, not even an empty log"))
        return
    found.extend(islice(rows.problems(connection, rows.load_state(connection)), _PROBLEMS_MAX))
