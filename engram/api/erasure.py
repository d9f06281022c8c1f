"""Waiting until what was deleted is gone from disk."""

import asyncio

from engram.api.services import Services
from engram.errors import TimedOutError


async def wait_erased(services: Services, log_index: int) -> None:
    """Return when what the deletion at `log_index` forgets is gone from the files of the log and the projections.

    Raises:
        TimedOutError: Readers no longer see it, but it is still on disk; the erasure goes on.
    """
    try:
        async with asyncio.timeout(services.wait_s):
            await services.erased.wait_erased(log_index)
    except TimeoutError:
        raise TimedOutError(
            f"deleted for readers at index {log_index}, but not gone from disk within {services.wait_s:g} s; "
            "the erasure goes on: retry to wait for it"
        ) from None
