"""Ports that stay ours, and whose process is at the other end of a connection, as Linux tells it."""

import itertools
import random
import re
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))  # gRPC dials 127.0.0.1 from a socket of either family
_LOWEST_PORT = 10_000


def find_lasting_ports(rng: random.Random) -> Iterator[int]:
    """Yield free TCP ports of 127.0.0.1 that no outgoing connection can take.

    A node that is away for seconds has to find its port free when it comes back, and a client that dials it meanwhile
    must not be connected with itself: both happen with ports that the system hands out.
    """
    first_handed_out = int(_PORTS.read_text().split()[0])
    highest = first_handed_out if first_handed_out > _LOWEST_PORT + 1_000 else 32_768
    start = rng.randrange(_LOWEST_PORT, highest)
    for port in itertools.chain(range(start, highest), range(_LOWEST_PORT, start)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port


def find_dialler(pids: Iterable[tuple[int, int]], *, from_port: int, to_port: int) -> int | None:
    """Return which of the nodes, given as (node id, process id), owns the connection between two local ports.

    None when none does: it is someone else's, or its owner has ended already.
    """
    inode = _inode(from_port, to_port)
    if inode is None:
        return None
    return next((node_id for node_id, pid in pids if _owns(pid, f"socket:[{inode}]")), None)


def _inode(from_port: int, to_port: int) -> str | None:
    """Return the socket whose local port is `from_port` and whose remote port is `to_port`."""
    # The tables have thousands of lines, of connections that have ended, and taking each apart would take too long.
    line = re.compile(rf":{from_port:04X} [0-9A-F]+:{to_port:04X} (?:\S+ +){{6}}(\d+)")
    for table in _TABLES:
        if table.exists() and (found := line.search(table.read_text())):  # the system may have no IPv6
            return found[1]
    return None


def _owns(pid: int, name: str) -> bool:
    folder = Path(f"/proc/{pid}/fd")
    try:
        descriptors = list(folder.iterdir())
    except OSError:  # it has ended
        return False
    return any(_target(descriptor) == name for descriptor in descriptors)


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:  # closed meanwhile
        return ""
