"""Digests of the read models: equal for two stores that answer every reader the same."""

import hashlib
from collections.abc import Callable
from typing import Final

from engram.database import Connection
from engram.projections.read_models import READ_MODELS, ReadModel

ROWS: Final = 512
"""Rows that are taken out of SQLite, and encoded, in one step."""


class AbandonedError(Exception):
    """Somebody waits for the end of a long read; it may be tried again."""


def digest(connection: Connection) -> dict[str, str]:
    """Return the SHA-256 of each read model, as hexadecimal digits; reads everything."""
    return digest_at(connection)[1]


def digest_at(connection: Connection, is_in_the_way: Callable[[], bool] = lambda: False) -> tuple[int, dict[str, str]]:
    """Return the log index that the read models are at, and the digest of each.

    Raises:
        AbandonedError: `is_in_the_way` said so.
    """
    connection.execute("BEGIN")
    try:
        (applied_index,) = connection.execute("SELECT applied_index FROM state").fetchone()
        return int(applied_index), {model.name: _digest(connection, model, is_in_the_way) for model in READ_MODELS}
    finally:
        connection.execute("COMMIT")


def _digest(connection: Connection, model: ReadModel, is_in_the_way: Callable[[], bool]) -> str:
    total = hashlib.sha256()
    cursor = connection.execute(f"{model.select} ORDER BY {model.order}")
    while rows := cursor.fetchmany(ROWS):
        if is_in_the_way():
            cursor.close()
            raise AbandonedError
        for row in rows:
            total.update(repr(model.comparable(row)).encode("utf-8", "surrogatepass"))
    return total.hexdigest()
