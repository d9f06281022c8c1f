"""Talk between people: a turn is understood by the turns around it. Pure.

"Which lake did you paint?" "The one behind our house." "Was that last summer?" "Yes, with the kids." What somebody asks
later was said over several turns, and none of them holds all the words of the question. So a turn of talk counts for
what it says and for what the turns around it say.

An assistant's long answers hold every word, and who goes on by himself often changes the subject: there it was measured
to lose. So talk is only where one person answers another, and elsewhere nothing here changes anything.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

TURNS_REACH = 2
"""How many turns before and behind a turn are around it."""

TURNS_SHARE = 0.5
"""How much of what a turn is worth, by its words and by its meaning, is the worth of the turns around it."""

Floats = npt.NDArray[np.floating]
Numbers = npt.NDArray[np.integer]
Booleans = npt.NDArray[np.bool_]
Number = TypeVar("Number", np.uint8, np.uint32, np.floating)


class Turns(NamedTuple):
    """Which rows are turns of talk; arrays of one length."""

    answers: Booleans
    """Whether a person speaks right after another one, in the same episode."""
    counts: npt.NDArray[np.uint8]
    """Turns around each and itself; 1: no talk."""
    lengths: npt.NDArray[np.uint32]
    """Terms of all of them."""


def turns_of(person: Booleans, starts: Booleans, speakers: Numbers, lengths: npt.NDArray[np.uint32]) -> Turns:
    """Return the turns of rows: whether a person speaks, whether an episode starts, who speaks, how many terms."""
    answers = np.zeros(len(person), np.bool_)
    answers[1:] = person[1:] & person[:-1] & ~starts[1:] & (speakers[1:] != speakers[:-1])
    return Turns(answers, around(np.ones(len(person), np.uint8), answers), around(lengths, answers))


def around(values: npt.NDArray[Number], answers: Booleans) -> npt.NDArray[Number]:
    """Return for each row the sum of its value and those of the turns around it."""
    total = values.copy()
    for distance, together in _reached(answers):
        np.add(total[distance:], values[:-distance], out=total[distance:], where=together)
        np.add(total[:-distance], values[distance:], out=total[:-distance], where=together)
    return total


def near(rows: Numbers, turns: Turns) -> Numbers:
    """Return the turns of talk that are one of `rows` or have one around them, ascending."""
    marked = np.zeros(len(turns.answers), np.bool_)
    marked[rows] = True
    reached = marked.copy()
    for distance, together in _reached(turns.answers):
        reached[distance:] |= marked[:-distance] & together
        reached[:-distance] |= marked[distance:] & together
    return np.flatnonzero(reached & (turns.counts > 1))


def _reached(answers: Booleans) -> Iterator[tuple[int, Booleans]]:
    """Yield each distance, and whether the row so far behind each row is a turn of the same talk."""
    together = answers[1:]
    for distance in range(1, min(TURNS_REACH, len(answers) - 1) + 1):
        yield distance, together
        together = together[:-1] & answers[distance + 1 :]


def side_by_side(rows: Numbers, turns: Turns) -> Numbers:
    """Return a column of a table for each of `rows`, which ascend.

    Turns of one talk stand side by side. So many columns stay empty before each talk that nothing before is around it.
    """
    parted = ~turns.answers[rows] | (np.diff(rows, prepend=-1) > 1)
    return np.arange(len(rows)) + TURNS_REACH * np.cumsum(parted)


def sums_around(table: Floats) -> Floats:
    """Return the sum of each column of `side_by_side` and those around it; the empty ones at both ends are left out."""
    width = table.shape[1] - 2 * TURNS_REACH
    total = table[:, :width].copy()
    for shift in range(1, 2 * TURNS_REACH + 1):
        total += table[:, shift : shift + width]
    return total
