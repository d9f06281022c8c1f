"""Cluster administration. A standalone node says so before it looks at anything else."""

from typing import NoReturn

from engram.api.calls import Call
from engram.errors import NotClusteredError


async def not_clustered(_call: Call) -> NoReturn:
    """Refuse: there is no cluster to look at or to change.

    Raises:
        NotClusteredError: Always.
    """
    raise NotClusteredError("the node runs standalone; NODE_ID and RAFT_ADDR make it part of a cluster")
