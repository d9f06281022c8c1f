"""Whom the drills let engram forget, and where they look for what it remembers."""

import random
from pathlib import Path
from typing import Any

MESSAGES = 40


class Subject:
    """What one person said, all of it recognizable by one word that nobody else has."""

    def __init__(self, session_id: str, chance: random.Random) -> None:
        self.session_id = session_id
        # A word without repeats: it stays as it is in a file, also where texts are compressed.
        self.marker = f"{chance.getrandbits(128):032x}"

    def message(self, number: int) -> dict[str, Any]:
        return {"id": f"m{number}", "role": "user", "content": f"{self.marker} said number {number}"}


def places(folder: Path, marker: str) -> set[str]:
    """Return the folders and files, relative to `folder`'s top, that hold `marker`."""
    found = set()
    for path in folder.rglob("*"):
        try:
            if path.is_file() and marker.encode() in path.read_bytes():
                found.add(path.relative_to(folder).parts[0])
        except FileNotFoundError:  # LanceDB has just removed it
            continue
    return found
