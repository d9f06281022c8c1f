"""Digests of the read models: equal for two stores that answer every reader the same."""

import hashlib
from typing import Final

from engram.database import Connection
from engram.projections.read_models import READ_MODELS, ReadModel

ROWS: Final = 512
"""Rows that are taken out of SQLite, and encoded, in one step."""


def digest(connection: Connection) -> dict[str, str]:
    """Return the SHA-256 of each read model, as hexadecimal digits; reads everything."""
    connection.execute("BEGIN")
    try:
        return {model.name: _digest(connection, model) for model in READ_MODELS}
    finally:
        connection.execute("COMMIT")


def _digest(connection: Connection, model: ReadModel) -> str:
    total = hashlib.sha256()
    cursor = connection.execute(f"{model.select} ORDER BY {model.order}")
    while rows := cursor.fetchmany(ROWS):
        for row in rows:
            total.update(repr(model.comparable(row)).encode("utf-8", "surrogatepass"))
    return total.hexdigest()
