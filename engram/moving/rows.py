"""Reading a log that lives on while it is read, so that what was read is the log at one index.

Rows below an index never change but by being rewritten: what was deleted is erased from them. An erasure that comes
while rows are read may take something from a row that was not read yet; then the deletion that asked for it must be
read, too, or what was read would be the log at no index at all. So whoever reads goes on up to there.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from engram.errors import OverloadedError
from engram.projections.entries import LogEntry

CHUNK_ROWS = 512
"""Rows read at a time: an append waits for a few milliseconds at most."""

ROUNDS_MAX = 1000
"""Each goes on from where the last one ended, and is short after the first. Deletions without a pause could make it
endless."""


class Log(Protocol):
    """The part of the log that is read."""

    @property
    def applied_index(self) -> int:
        """The last index that is known to be committed."""

    @property
    def rewrites(self) -> int:
        """How often rows were rewritten; counted before any of them is."""

    async def read(self, after: int, limit: int) -> Sequence[LogEntry]:
        """Return the first `limit` committed entries above `after`, or fewer, but at least one if there is one."""


async def rows_at_one_index(log: Log, after: int = 0) -> AsyncGenerator[Sequence[LogEntry]]:
    """Yield the committed rows above `after`; when it ends, those yielded are the log as it was at the last of them.

    Raises:
        OverloadedError: So much is deleted that there is no such index.
    """
    for _ in range(ROUNDS_MAX):
        rewrites, up_to = log.rewrites, log.applied_index
        while after < up_to:
            rows = [row for row in await log.read(after, CHUNK_ROWS) if row.index <= up_to]
            if not rows:
                break
            yield rows
            after = rows[-1].index
        if log.rewrites == rewrites:
            return
    raise OverloadedError("rows are erased all the time: try again when fewer deletions are under way")
