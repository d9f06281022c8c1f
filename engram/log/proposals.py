"""Entries that are proposed in the same turn of the loop: they reach the core together, and before anything else does.

Each append to a follower, and each answer, costs the same however many entries it carries; so what many clients write at
the same time shares them.
"""

from collections import deque

from engram.clock import Clock
from engram.log.consensus.rawnode import RawNode
from engram.log.consensus.types import NO_NODE, DropReason, InvariantViolation, ProposalDroppedError, Role
from engram.log.options import UNCOMMITTED_BYTES_MAX, Observer
from engram.log.position import Position


class Proposals:
    """What was proposed and is not known to be committed yet. `flush` comes before every other call of the core."""

    def __init__(self, clock: Clock, observer: Observer) -> None:
        self._clock = clock
        self._observer = observer
        self._payloads: list[bytes] = []
        self._bytes = 0
        self._uncommitted: deque[tuple[int, float]] = deque()  # index, and when

    def add(self, raw: RawNode, data: bytes) -> Position:
        """Take `data` for the leader's log, and return where it will be.

        Raises:
            ProposalDroppedError: It cannot be appended.
        """
        raft = raw.raft
        reason = self._refusal(raw, data)
        if reason is not None:
            raise ProposalDroppedError(reason)
        self._payloads.append(data)
        self._bytes += len(data)
        log_index = raw.last_index + len(self._payloads)
        self._uncommitted.append((log_index, self._clock.monotonic_s()))
        return Position(log_index, raft.term)

    def flush(self, raw: RawNode) -> None:
        """Append what was taken. The core cannot refuse: what it would have refused was not taken."""
        if not self._payloads:
            return
        payloads, self._payloads, self._bytes = self._payloads, [], 0
        last_index = raw.last_index + len(payloads)
        try:
            raw.propose(*payloads)
        except ProposalDroppedError as error:
            raise InvariantViolation(f"entries up to {last_index} were promised their places: {error}") from error
        if raw.last_index != last_index:
            raise InvariantViolation(f"entries up to {last_index} were promised their places, but got {raw.last_index}")

    def committed(self, applied_index: int) -> None:
        """Tell the observer how long those up to `applied_index` took."""
        if self._uncommitted and self._uncommitted[0][0] <= applied_index:
            now_s = self._clock.monotonic_s()
            while self._uncommitted and self._uncommitted[0][0] <= applied_index:
                self._observer.committed(now_s - self._uncommitted.popleft()[1])

    def _refusal(self, raw: RawNode, data: bytes) -> DropReason | None:
        raft = raw.raft
        if raft.role is not Role.LEADER:
            return DropReason.NOT_LEADER if raft.leader_id != NO_NODE else DropReason.NO_LEADER
        if raft.id not in raft.tracker.progress:
            return DropReason.NOT_MEMBER
        if raft.transferee != NO_NODE:
            return DropReason.TRANSFERRING
        waiting_bytes = raft.uncommitted_bytes + self._bytes
        if waiting_bytes and waiting_bytes + len(data) > UNCOMMITTED_BYTES_MAX:
            return DropReason.LOG_FULL
        return None
