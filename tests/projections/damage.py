"""Damaging projections.db, as a bug or a bad disk would."""

import sqlite3
from pathlib import Path


def alter(path: Path, *statements: str) -> None:
    """Change the file as a bug or a bad disk would, beside whoever has it open."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for statement in statements:
            connection.execute(statement)
    finally:
        connection.close()


def lose_from_index(path: Path, index: str, without: str) -> None:
    """Let an index lack the rows that `without` names, while it says that it has all."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        (text,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (index,)).fetchone()
        connection.execute(f"DROP INDEX {index}")
        connection.execute(f"{text} WHERE NOT ({without})")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (text, index))
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        connection.execute(f"PRAGMA schema_version = {version + 1}")
    finally:
        connection.close()


def root_page(path: Path, name: str) -> int:
    """Return the page that a table or an index begins with."""
    connection = sqlite3.connect(path)
    try:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
        return int(page)
    finally:
        connection.close()
