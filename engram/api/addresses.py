"""Addresses of nodes, as requests name them. Clients are sent to them, so nothing else gets through."""

import re
from ipaddress import IPv6Address

from engram.api.parameters import shown
from engram.api.schemas import ADDRESS_PATTERN
from engram.errors import InvalidError

PORT_MAX = 65535

_ANY_HOSTS = frozenset({"0.0.0.0", "[::]"})  # noqa: S104 - compared with, not bound to
_address = re.compile(ADDRESS_PATTERN)


def check_address(field: str, text: str) -> str:
    """Return `text` if it is `host:port`, with an IPv6 host in brackets, that another machine can reach.

    Raises:
        InvalidError: It is not.
    """
    host, _, port = text.rpartition(":")
    if _address.fullmatch(text) is None or not (host[0] != "[" or _is_ipv6(host[1:-1])):
        raise InvalidError(f"{field} is {shown(text)}; it takes host:port, an IPv6 host in brackets")
    if not 1 <= int(port) <= PORT_MAX:
        raise InvalidError(f"{field} is {shown(text)}; its port must be from 1 to {PORT_MAX}")
    if host in _ANY_HOSTS:
        raise InvalidError(f"{field} is {shown(text)}, which tells other nodes nothing; it takes one they can reach")
    return text


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
