"""What waits to be sent to one node: bounded, in order, and never older than the last attempt to reach it."""

from collections import deque

from engram.log.codec import message_bytes
from engram.log.consensus.types import Message, MessageType
from engram.log.merging import merged

RESERVE_MESSAGES = 1_024
RESERVE_BYTES = 1024 * 1024
"""Room beyond the limits that only small messages get: votes and heartbeats pass when appends have filled the rest."""

MERGED_BYTES_MAX = 256 * 1024
"""What is larger is sent by itself: the other end can begin with it."""

_BULK = frozenset({MessageType.APPEND, MessageType.PROPOSE})

_PULSES = frozenset({MessageType.HEARTBEAT, MessageType.HEARTBEAT_RESPONSE})
"""Of these one waiting is as good as many."""


class Outbox:
    """A queue that says no. What is dropped, or taken and lost, is for the core to send again.

    Args:
        messages_max: How many may wait; others than appends and proposals have RESERVE_MESSAGES besides.
        bytes_max: How many bytes, likewise. One message may exceed it when nothing else waits.
        message_bytes_max: A larger message is never sent: the other end would refuse it.
    """

    def __init__(self, *, messages_max: int, bytes_max: int, message_bytes_max: int) -> None:
        self.bytes = 0
        """An upper bound of what the waiting messages have."""
        self.dropped = 0
        """Messages that were never sent, since the start."""
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._message_bytes_max = message_bytes_max
        self._waiting: deque[tuple[Message, int]] = deque()
        self._pulses: set[tuple[MessageType, int, bytes]] = set()
        self._acknowledged: tuple[int, int, int] | None = None
        """The last acknowledgement that was taken: term, session, index."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, message: Message) -> bool:
        """Queue `message`; return False if it was dropped. A second heartbeat that says the same is neither."""
        if message.type in _PULSES:
            pulse = _pulse(message)
            if pulse in self._pulses:
                return True
        size = message_bytes(message)
        if self._merge(message, size):
            return True
        if not self._fits(message, size):
            self.dropped += 1
            return False
        if message.type in _PULSES:
            self._pulses.add(_pulse(message))
        self._waiting.append((message, size))
        self.bytes += size
        return True

    def repeats(self, message: Message) -> bool:
        """Return whether `message` acknowledges what the other end was told already: it does not matter when it leaves.

        A follower answers each append, also one that only tells it what is committed.
        """
        acknowledged = _acknowledgement(message)
        return acknowledged is not None and acknowledged == self._acknowledged

    def take(self, bytes_max: int) -> list[Message]:
        """Remove and return the oldest messages, as many as fit `bytes_max`; at least one if there is any."""
        taken: list[Message] = []
        taken_bytes = 0
        while self._waiting and (not taken or taken_bytes + self._waiting[0][1] <= bytes_max):
            message, size = self._waiting.popleft()
            taken.append(message)
            taken_bytes += size
            if message.type in _PULSES:
                self._pulses.discard(_pulse(message))
            self._acknowledged = _acknowledgement(message) or self._acknowledged
        self.bytes -= taken_bytes
        return taken

    def drop_all(self) -> int:
        """Drop everything that waits, and return how many messages that was. What was taken may be lost, too."""
        count = len(self._waiting)
        self._acknowledged = None
        self._waiting.clear()
        self._pulses.clear()
        self.bytes = 0
        self.dropped += count
        return count

    def _merge(self, message: Message, size: int) -> bool:
        """Let the newest message that waits say what `message` says, too, if it can."""
        if not self._waiting:
            return False
        newest, newest_size = self._waiting[-1]
        both = merged(newest, message) if newest_size + size <= MERGED_BYTES_MAX else None
        if both is None:
            return False
        both_size = message_bytes(both)
        if self.bytes - newest_size + both_size > self._bytes_max:
            return False
        self._waiting[-1] = (both, both_size)
        self.bytes += both_size - newest_size
        return True

    def _fits(self, message: Message, size: int) -> bool:
        if size > self._message_bytes_max:
            return False
        if not self._waiting:
            return True
        is_bulk = message.type in _BULK
        messages_max = self._messages_max + (0 if is_bulk else RESERVE_MESSAGES)
        bytes_max = self._bytes_max + (0 if is_bulk else RESERVE_BYTES)
        return len(self._waiting) < messages_max and self.bytes + size <= bytes_max


def _acknowledgement(message: Message) -> tuple[int, int, int] | None:
    if message.type is not MessageType.APPEND_RESPONSE or message.reject:
        return None
    return message.term, message.session, message.index


def _pulse(message: Message) -> tuple[MessageType, int, bytes]:
    return message.type, message.term, message.context
