"""`engram rebuild redis`: drop a stopped node's key space, and write it again from the primary store."""

from collections.abc import Callable
from typing import Final

import msgspec

from engram.projections.redis_filling import Filling, Source, Written, clear
from engram.projections.redis_rows import State
from engram.projections.redis_store import RedisStore

ROWS_MAX: Final = 2_000
"""Messages of one write: nobody else waits for a stopped node."""


async def rebuild(redis: RedisStore, source: Source, progress: Callable[[int], None], *, log_store: str) -> int:
    """Empty the key space and write it again; return the number of messages that are in it. The node must be stopped.

    `log_store` is the store id of the log (`SqliteLog.state.store_id`). `progress` hears how many more sessions are
    done. Stopped halfway, the next start of the node writes the rest.

    Raises:
        RedisFailedError: Redis failed.
        RedisChangedError: Somebody else writes to the same key space.
    """
    await clear(redis)
    state = State(store=log_store, epoch="rebuild", number=0, applied=0, complete=False, unscrubbed=True)
    await redis.begin(state)

    async def write(written: Written, _: bool) -> None:  # noqa: FBT001  a callable has no names
        nonlocal state
        before, state = state, msgspec.structs.replace(state, number=state.number + 1)
        await redis.write(before, state, written.puts, written.removals)

    filling = Filling(source, redis, store=log_store, write=write, rows_max=ROWS_MAX)
    while not filling.is_done:
        compared = filling.compared
        await filling.step()
        progress(filling.compared - compared)
    await redis.write(
        state, msgspec.structs.replace(state, number=state.number + 1, applied=source.applied_index, complete=True)
    )
    return filling.messages
