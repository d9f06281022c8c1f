"""Slots: where a row of a read model stands in the order of the log.

A slot is a log index and a place within its entry in one integer, so that a table keyed by it only ever grows at its
end, and a range of log indexes is a range of keys.
"""

ENTRY_BITS = 20
"""Rows of one entry: its payload has less than 4 MiB, and every row takes more than 4 bytes of it."""


def first_slot(log_index: int) -> int:
    """Return the lowest slot of an entry; `first_slot(n + 1)` is above every slot of entry n."""
    return log_index << ENTRY_BITS


def log_index_of(slot: int) -> int:
    """Return the log index of the entry that a slot is in."""
    return slot >> ENTRY_BITS
