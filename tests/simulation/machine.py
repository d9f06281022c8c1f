"""What is applied: a model of it that all nodes share, and what each node makes of it.

The log's entries are commands with an id. The model is what comes of all that is committed, each id counting once; a
node that applies an entry answers for it as the model does. A command may delete a key: then every node erases the
payloads of that key from its own log, in its own time.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from engram.log.consensus.types import Entry, EntryKind

if TYPE_CHECKING:
    from tests.simulation.dice import Dice
    from tests.simulation.node import Node

KEYS = 4


class Model(Protocol):
    """What comes of the log."""

    def command(self, number: int, dice: "Dice") -> bytes:
        """Return the payload of a new command, which nobody else has given that number."""

    def committed(self, entry: Entry) -> None:
        """Take in the next entry."""

    def counted_at(self, number: int) -> int:
        """Return the index of the entry by which command `number` counts; 0 when it does not."""

    def may_become(self, entry: Entry, data: bytes) -> bool:
        """Return whether a node may have erased `entry` so that `data` is left."""

    def close(self) -> None:
        """Let go of what the run needed."""


class Machine(Protocol):
    """What one node makes of the log. It outlives the process."""

    def applied(self, node: "Node") -> None:
        """Take in what the node has applied since."""

    def restarted(self, node: "Node") -> None:
        """Go on after a crash."""

    def wiped(self) -> None:
        """Begin anew, on a new disk."""


class Deletion(NamedTuple):
    """An entry that deletes a key, and the entries that hold what is to be erased."""

    log_index: int
    erased: Sequence[int]


class Counting:
    """The model of commands that are only counted."""

    def __init__(self) -> None:
        self.deletions: list[Deletion] = []
        self._counted_at: dict[int, int] = {}
        self._indexes_of: dict[int, list[int]] = {}
        self._erased: set[int] = set()

    def command(self, number: int, dice: "Dice") -> bytes:
        kind = b"d" if dice.chance(0.08) else b"w"
        return b"%b %d %d %b" % (kind, number, dice.below(KEYS), b"x" * dice.pick((0, 0, 20, 150)))

    def committed(self, entry: Entry) -> None:
        if entry.kind is not EntryKind.NORMAL or not entry.data:
            return
        kind, number, key, _ = entry.data.split(b" ")
        self._counted_at.setdefault(int(number), entry.index)
        indexes = self._indexes_of.setdefault(int(key), [])
        if kind == b"w":
            indexes.append(entry.index)
        elif indexes:
            self.deletions.append(Deletion(entry.index, tuple(indexes)))
            self._erased.update(indexes)
            indexes.clear()

    def counted_at(self, number: int) -> int:
        return self._counted_at.get(number, 0)

    def may_become(self, entry: Entry, data: bytes) -> bool:
        return data == b"" and entry.index in self._erased

    def close(self) -> None:
        pass


class Erasing:
    """Erases from a node's log what the model says is deleted."""

    def __init__(self, model: Counting) -> None:
        self._model = model
        self._begun = self._done = 0
        """How many deletions are being carried out, and how many are carried out for good."""

    def applied(self, node: "Node") -> None:
        deletions = self._model.deletions
        while self._begun < len(deletions) and deletions[self._begun].log_index <= node.applied_index:
            erased = deletions[self._begun].erased
            self._begun += 1
            node.rewrite(dict.fromkeys(erased, b""), self._end)

    def restarted(self, node: "Node") -> None:
        self._begun = self._done
        self.applied(node)

    def wiped(self) -> None:
        self._begun = self._done = 0

    def _end(self) -> None:
        self._done += 1
