"""The names of keys in Redis: `engram:{node}:{tenant}:{session}:{part}`, and `engram:{node}:state`.

Every node has a key space of its own, so several can use one server. A colon in a tenant or an id stands as `%3A` and
a percent sign as `%25`: what is read between two colons belongs to one name, and no two sessions have the same key.
"""

from typing import Final, NamedTuple

HEADER: Final = "session"
"""A string: the session as readers see it, and how much of it is here."""
MESSAGES: Final = "messages"
"""A list: the latest messages, oldest first."""
CORE: Final = "core"
"""A hash: fact id -> fact, with its place in the order of pinning."""
PARTS: Final = (HEADER, MESSAGES, CORE)

_COLONS: Final = 4
"""In the key of a session's part."""


class SessionName(NamedTuple):
    """What a session is called by its clients."""

    tenant: str
    session_id: str


class SessionKeys(NamedTuple):
    """The keys of one session."""

    header: str
    messages: str
    core: str


class KeySpace:
    """The keys of one node."""

    def __init__(self, node_id: int) -> None:
        self.prefix: Final = f"engram:{node_id}:"
        self.state: Final = f"{self.prefix}state"
        self.pattern: Final = f"{self.prefix}*"
        """What SCAN finds all of them with."""

    def of(self, name: SessionName) -> SessionKeys:
        """Return the keys of a session."""
        start = f"{self.prefix}{_escaped(name.tenant)}:{_escaped(name.session_id)}:"
        return SessionKeys(start + HEADER, start + MESSAGES, start + CORE)

    def session_of(self, key: str) -> SessionName | None:
        """Return whose part `key` is; None when it is none that was written here."""
        if not key.startswith(self.prefix) or key.count(":") != _COLONS:
            return None
        tenant, session_id, part = key[len(self.prefix) :].split(":")
        return SessionName(_unescaped(tenant), _unescaped(session_id)) if part in PARTS else None


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace(":", "%3A")


def _unescaped(name: str) -> str:
    return name.replace("%3A", ":").replace("%25", "%")
