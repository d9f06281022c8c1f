"""What a store holds, without the places in the log that it came from: equal where two logs say the same."""

import sqlite3
from pathlib import Path
from typing import Any

from engram.projections.read_models import READ_MODELS

PLACES = frozenset({"slot", "session_key", "s.session_key", "updated_index", "vectors_index", "only_row"})
"""Columns that hold log indexes; and one that holds nothing."""


def contents_of(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each read model in the file at `path`, in log order, each under its session's id.

    The timeline is nothing but places.
    """
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        rows = connection.execute("SELECT session_key, tenant, session_id FROM sessions").fetchall()
        names = {key: (tenant, session_id) for key, tenant, session_id in rows}
        found: dict[str, list[tuple[Any, ...]]] = {}
        for model in READ_MODELS:
            if model.name == "timeline":
                continue
            columns = [*model.key, *model.columns]
            found[model.name] = [
                tuple(
                    names.get(value, value) if column.endswith("session_key") else value
                    for column, value in zip(columns, row, strict=True)
                    if column.endswith("session_key") or column not in PLACES
                )
                for row in connection.execute(f"{model.select} ORDER BY {model.order}")
            ]
        return found
    finally:
        connection.close()
