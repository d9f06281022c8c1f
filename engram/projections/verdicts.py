"""What the ledger says of each event of an entry: the same on every node, in every replay."""

from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    """Whether an event counts."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    """Said before with the same content; nothing changes. `first_index` is where."""
    CONFLICT = "conflict"
    """The id is taken by other content; nothing of the entry changes."""
    DELETED = "deleted"
    """The message id was deleted in this session; nothing of the entry changes."""
    UNKNOWN = "unknown"
    """It is about a session, message or fact that is not there (any more); nothing changes."""


class Verdict(NamedTuple):
    """The ledger's word on one event."""

    outcome: Outcome
    first_index: int
    """The entry that counts: this one when accepted, the first one when duplicate; 0 when nothing counts."""
