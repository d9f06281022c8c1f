"""One mutant: a line of the product made wrong, and the tests that must notice."""

from pathlib import Path
from typing import NamedTuple


class Mutant(NamedTuple):
    """A change of one place in one module. The place is found by its text, which must stand there exactly once."""

    name: str
    harm: str
    """What goes wrong, as a reader of docs/reliability.md is told it."""
    module: str
    """Path in the project."""
    text: str
    instead: str
    tests: tuple[str, ...]
    """The quickest test files that should notice, as pytest is given them."""


class StaleMutantError(Exception):
    """The text that a mutant changes does not stand in its module, or more than once: the list must be brought up to date."""


def mutated(mutant: Mutant, project: Path) -> str:
    """Return the mutant's module, with the change.

    Raises:
        StaleMutantError: There is not exactly one place for it.
    """
    source = (project / mutant.module).read_text()
    if (times := source.count(mutant.text)) != 1:
        raise StaleMutantError(f"{mutant.name}: its text stands {times} times in {mutant.module}")
    return source.replace(mutant.text, mutant.instead)
