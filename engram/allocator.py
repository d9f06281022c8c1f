"""Memory: the C library is told to give it back, Python to look seldom for what nobody can reach.

glibc gives every thread a heap of its own, up to eight a core, and lets each keep what was freed in it; and once a large
block was freed, it keeps blocks of that size, too. With a dozen threads and arrays of a megabyte that holds on to 60 to
80 MB of the 500 that a node with 100 000 messages may have, measured. Another C library has no such knobs and needs none.
"""

import ctypes
import gc

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8

ARENAS_MAX = 2
MMAP_BYTES_MIN = 256 * 1024
"""A block of this size is mapped by itself, and gone when it is freed."""
TRIM_BYTES = 1024 * 1024
"""More than this at the end of a heap goes back to the system."""

ALLOCATIONS = 20_000
"""Objects made before a collection looks for cycles. A batch of messages makes some thousands that are freed without
one; Python's own 700 spends a tenth of an ingest, or of a rebuild, on looking, measured."""


def bound_memory() -> None:
    """Set the bounds, for the whole process; before it has made threads, or they have heaps already."""
    _call("mallopt", M_ARENA_MAX, ARENAS_MAX)
    _call("mallopt", M_MMAP_THRESHOLD, MMAP_BYTES_MIN)
    _call("mallopt", M_TRIM_THRESHOLD, TRIM_BYTES)


def trim_memory() -> None:
    """Give freed memory back now: after work that takes much of it, for a moment."""
    _call("malloc_trim", 0)


def spare_collections() -> None:
    """Let collections leave alone what is here now, which stays, and come seldom; for the whole process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, 20, 50)


def _call(name: str, *arguments: int) -> None:
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return
    function(*arguments)
