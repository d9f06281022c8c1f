"""Where a write goes that reached a node which does not lead."""

from urllib.parse import quote

from engram.api.errors import RedirectError
from engram.api.paths import split_target
from engram.api.services import Cluster
from engram.errors import NoLeaderError, UnavailableError

_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


def elsewhere(cluster: Cluster | None, raw_target: str) -> UnavailableError:
    """Return the error that sends a request to the leader, or that says why it can be sent nowhere.

    A node never sends anybody to itself: it does not lead, so that would be a circle.
    """
    if cluster is None:
        return NoLeaderError("no leader is known")
    status = cluster.status()
    if not status.cluster_id:
        return NoLeaderError("the node belongs to no cluster yet: POST /cluster/init forms one")
    if status.leader_id in {0, status.node_id}:
        return NoLeaderError("no leader is known: an election is under way, or too few nodes are reachable")
    address = cluster.leader_http()
    own = next((member.http_address for member in status.members if member.node_id == status.node_id), "")
    if address is None or address == own:
        return NoLeaderError(f"node {status.leader_id} leads, but where it serves HTTP is not known")
    return RedirectError(status.leader_id, f"http://{address}{_origin_form(raw_target)}")


def _origin_form(raw_target: str) -> str:
    """Return path and query as they came; what no URL may have in it is percent-encoded."""
    path, query = split_target(raw_target)
    target = f"{path}?{query}" if query or raw_target.endswith("?") else path
    return quote(target.encode("utf-8", "surrogateescape"), safe=_PRINTABLE)
