"""What happened, for people and for comparing: the last steps in words, and a digest of all of them."""

import hashlib
from collections import deque
from typing import TYPE_CHECKING, Any

from engram.log.consensus.types import Entry, Message

if TYPE_CHECKING:
    from tests.simulation.world import Handler, World


class Trace:
    """Keeps the last `kept` steps, and a digest of every step and of what it made of the nodes."""

    def __init__(self, *, kept: int = 60) -> None:
        self.lines: deque[str] = deque(maxlen=kept)
        self._digest = hashlib.sha256()

    def note(self, world: "World", handler: "Handler", about: Any) -> None:
        """Note a step that was taken."""
        line = f"{world.now_us / 1000:10.1f} ms  {_name(handler)} {_words(about)}".rstrip()
        self.lines.append(line)
        self._digest.update(line.encode())
        for node in world.nodes.values():
            self._digest.update(_state(node).encode())
        owner = getattr(handler, "__self__", None)
        node_id = getattr(owner, "id", None) or getattr(getattr(about, "message", None), "to", None)
        if node_id in world.nodes:
            self.lines[-1] = f"{line}\n{'':15}{_state(world.nodes[node_id])}"

    def digest(self) -> str:
        """Return the SHA-256 of all that was noted, as hexadecimal digits."""
        return self._digest.hexdigest()


def _name(handler: "Handler") -> str:
    owner = getattr(handler, "__self__", None)
    name = handler.__qualname__.rpartition(".<locals>")[0] or handler.__qualname__
    number = getattr(owner, "node_id", None) or getattr(owner, "id", None)
    return name if number is None else f"{name} {number}"


def _words(about: Any) -> str:
    match about:
        case Message():
            return described(about)
        case int() | str() | tuple() if not hasattr(about, "message"):
            return str(about)
        case _:
            message = getattr(about, "message", None)
            return described(message) if isinstance(message, Message) else ""


def described(message: Message) -> str:
    """Return a message in words."""
    parts = [f"{message.sender}->{message.to} {message.type.name} term {message.term}"]
    parts += [f"at {message.index}/{message.log_term}"] if message.index or message.log_term else []
    parts += [" ".join(map(_entry, message.entries))] if message.entries else []
    parts += [f"commit {message.commit}"] if message.commit else []
    parts += [f"rejected, hint {message.reject_hint}"] if message.reject else []
    if message.snapshot is not None:
        meta = message.snapshot.meta
        parts.append(f"snapshot {meta.index}/{meta.term} {meta.conf_state.voters}")
    return ", ".join(parts)


def _entry(entry: Entry) -> str:
    return f"[{entry.index}/{entry.term} {entry.kind.name.lower()} {len(entry.data)} B]"


def _state(node: Any) -> str:
    disk = node.disk
    on_disk = f"disk term {disk.state.term} vote {disk.state.vote} last {len(disk.rows)} base {disk.state.base_index}"
    if not node.is_up:
        return f"node {node.id} down; {on_disk}"
    raft = node.raw.raft
    return (
        f"node {node.id} {raft.role.name.lower()} of {raft.leader_id} term {raft.term} vote {raft.vote}"
        f" commit {raft.log.committed} last {raft.log.last_index} applied {node.applied_index}; {on_disk}"
    )
