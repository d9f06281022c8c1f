"""Linearizable reads without a log entry: which ones a round of heartbeats has proved this leader may answer.

Reads are numbered. A heartbeat carries the number of the last read that was waiting when it was sent, and its answer
brings it back: whoever answers read n has, by then, not followed a newer leader, so reads 1 to n are confirmed on its
part. Enough voters confirm as they commit: by the number that a quorum has reached.
"""

from collections.abc import Sequence
from enum import Enum

from engram.log.consensus.quorum import joint_committed_index
from engram.log.consensus.tracker import Members
from engram.log.consensus.types import Message

_NUMBER_BYTES = 8


class ReadOnlyOption(Enum):
    """What proves that a leader still leads."""

    SAFE = "safe"
    """A round of heartbeats after the read was asked for."""
    LEASE_BASED = "lease-based"
    """That a quorum was heard of lately. Wrong when clocks run at different speeds, or a process sleeps."""


class ReadRequests:
    """The reads that wait for one term's leader to be confirmed."""

    def __init__(self) -> None:
        self._confirmed = 0
        self._waiting: list[tuple[Message, int]] = []
        self._answered: dict[int, int] = {}

    @property
    def are_waiting(self) -> bool:
        """Whether any read is not confirmed."""
        return bool(self._waiting)

    def add(self, request: Message, commit_index: int) -> None:
        """Let `request`, which is answered with `commit_index`, wait."""
        self._waiting.append((request, commit_index))

    def heartbeat_context(self) -> bytes:
        """Return what a heartbeat must carry to confirm all reads that wait; empty when none does."""
        if not self._waiting:
            return b""
        return (self._confirmed + len(self._waiting)).to_bytes(_NUMBER_BYTES, "big")

    def acknowledge(self, node_id: int, context: bytes) -> None:
        """Note that `node_id` answered a heartbeat that carried `context`; answers may come late or twice."""
        number = int.from_bytes(context, "big")
        self._answered[node_id] = max(self._answered.get(node_id, 0), number)

    def confirm(self, members: Members) -> Sequence[tuple[Message, int]]:
        """Return the reads, with their index, that enough voters have confirmed by now, and forget them."""
        number = joint_committed_index(members.incoming, members.outgoing, self._answered)
        count = max(min(number - self._confirmed, len(self._waiting)), 0)
        confirmed = self._waiting[:count]
        del self._waiting[:count]
        self._confirmed += count
        return confirmed
