"""What a node says of the stores that it can do without."""

from engram.api.services import Dependency
from engram.projections.lance_feed import LanceStatus
from engram.projections.redis_projection import RedisProjection


def long_term(status: LanceStatus) -> Dependency:
    """Return how LanceDB is doing; nothing that is asked of a node needs it."""
    detail = f"vectors up to entry {status.cursor}, {status.lag_rows} rows behind" if status.ready else "not open yet"
    return Dependency("lancedb", ready=status.ready, detail=status.last_error or detail, required=False)


def short_term(redis: RedisProjection | None) -> Dependency:
    """Return how Redis is doing, where one is set; the primary store answers for it."""
    if redis is None:
        return Dependency("redis", ready=True, detail="not used: short-term memory is embedded", required=False)
    return Dependency("redis", ready=redis.feed.status().ready, detail=redis.detail(), required=False)
