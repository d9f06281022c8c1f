"""Where a proposal went."""

from typing import NamedTuple


class Position(NamedTuple):
    """A proposal counts only if the entry applied at `log_index` has this term."""

    log_index: int
    term: int
