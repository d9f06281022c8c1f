"""What becomes of messages between nodes: they are lost, late, doubled, overtaken, cut off; and snapshots on their way."""

from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

from engram.log.consensus.types import Message, MessageType
from tests.simulation.weather import TICK_US

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

STRAGGLER_US = 3_000_000
PAUSE_AFTER_FAILURE_US = 4 * TICK_US
PART_ROWS = 8
"""Rows of a snapshot that are sent at once."""

_TOLD_BY_SESSION = frozenset({MessageType.APPEND_RESPONSE, MessageType.HEARTBEAT_RESPONSE})
"""Answers may be taken in just before their sender is known to have another disk: the core must tell them apart."""


class NewerDisk(NamedTuple):
    """The disk of a member, as it said itself, and the log index as of which that is so."""

    store_id: str
    log_index: int


class Envelope(NamedTuple):
    """A message on its way, and between which disks."""

    message: Message
    sender_id: int
    """Who sent it; `message.sender` may be another, for whom this one passes a transfer on to the leader."""
    sender_store: str
    sender_index: int
    """Up to where the sender has applied the log, if by that it has this disk; else 0."""
    to_store: str
    """What the sender believes that the disk of the receiver is; empty: it does not know."""


class Transfer:
    """A snapshot on its way: the message, and the rows before it that the receiver lacks."""

    def __init__(self, envelope: Envelope, sender_life: int) -> None:
        self.envelope = envelope
        self.sender_life = sender_life
        self.receiver_life = 0

    @property
    def message(self) -> Message:
        return self.envelope.message

    @property
    def index(self) -> int:
        """Where the snapshot was taken."""
        assert self.message.snapshot is not None
        return self.message.snapshot.meta.index


class Network:
    """The links between the nodes, each in one direction."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.cut: set[tuple[int, int]] = set()
        """(from, to) of links that lose everything."""
        self.is_calm = False
        """Nothing is lost, doubled or late any more."""
        self.sent: Counter[int] = Counter()
        """Messages, by sender."""
        self._arrivals: dict[tuple[int, int], int] = {}
        self._sending: dict[int, Transfer] = {}
        self._queued: dict[int, deque[Transfer]] = {}
        self._receiving: dict[int, Transfer] = {}

    def send(self, sender: "Node", message: Message) -> None:
        """Let `message` leave."""
        world = self._world
        self.sent[sender.id] += 1
        envelope = Envelope(
            message,
            sender.id,
            sender.disk.state.store_id,
            self._member_index(sender),
            self._store_of(sender, message.to),
        )
        if message.type is MessageType.SNAPSHOT:
            self._queued.setdefault(sender.id, deque()).append(Transfer(envelope, sender.life))
            self._send_next(sender.id)
            return
        if (sender.id, message.to) in self.cut:
            return
        weather = world.weather
        if self.is_calm:
            world.after(self._in_order_us(message, 300 + world.dice.below(700)), self.deliver, envelope)
            return
        if weather.loss and world.dice.chance(weather.loss):
            return
        world.after(self._delay_us(message), self.deliver, envelope)
        if weather.doubling and world.dice.chance(weather.doubling):
            world.after(self._delay_us(message), self.deliver, envelope)

    def under_way(self) -> list[Message]:
        """Return the messages that have not arrived; snapshots left out."""
        return [about.message for about in self._world.under_way() if isinstance(about, Envelope)]

    def _delay_us(self, message: Message) -> int:
        world = self._world
        weather, dice = world.weather, world.dice
        delay_us = weather.latency_us + dice.below(weather.jitter_us)
        if weather.straggling and dice.chance(weather.straggling):
            return delay_us + dice.below(STRAGGLER_US)
        return self._in_order_us(message, delay_us) if weather.is_ordered else delay_us

    def _in_order_us(self, message: Message, delay_us: int) -> int:
        """Return after how long a message arrives that must not overtake those before it on its link."""
        link, now_us = (message.sender, message.to), self._world.now_us
        at_us = self._arrivals[link] = max(now_us + delay_us, self._arrivals.get(link, 0) + 1)
        return at_us - now_us

    def deliver(self, envelope: Envelope) -> None:
        """Let a message arrive, if there is somebody to take it."""
        message = envelope.message
        node = self._world.nodes[message.to]
        if not node.is_up or (envelope.sender_id, message.to) in self.cut or not self._is_welcome(node, envelope):
            return
        world = self._world
        if node.paused_until_us > world.now_us:  # it waits in the socket
            world.after(node.paused_until_us - world.now_us, self.deliver, envelope)
            return
        node.receive(message)

    def _is_welcome(self, node: "Node", envelope: Envelope) -> bool:
        """Return whether both ends have the disks that the other expects, as the handshake sees to."""
        if envelope.to_store not in {"", node.disk.state.store_id}:
            return False
        if envelope.message.type in _TOLD_BY_SESSION:
            return True
        sender_id = envelope.sender_id
        if self._store_of(node, sender_id) in {"", envelope.sender_store}:
            return True
        newer = node.newer_disks.get(sender_id, NewerDisk("", 0))
        if envelope.sender_index <= max(node.applied_index, newer.log_index):
            return False
        node.newer_disks[sender_id] = NewerDisk(envelope.sender_store, envelope.sender_index)
        return True

    @staticmethod
    def _member_index(node: "Node") -> int:
        member = node.roster.book.get(node.id)
        return node.applied_index if member is not None and member.store_id == node.disk.state.store_id else 0

    @staticmethod
    def _store_of(node: "Node", other_id: int) -> str:
        newer = node.newer_disks.get(other_id)
        if newer is not None and newer.log_index > node.applied_index:
            return newer.store_id
        member = node.roster.book.get(other_id)
        return "" if member is None else member.store_id

    # Snapshots: one is sent by a node at a time, and one is taken by a node at a time, the newer one.

    def _send_next(self, sender_id: int) -> None:
        queued = self._queued.get(sender_id)
        if sender_id in self._sending or not queued:
            return
        transfer = self._sending[sender_id] = queued.popleft()
        self._world.after(self._hop_us(), self._offer, transfer)

    def _hop_us(self) -> int:
        return 300 if self.is_calm else self._world.weather.latency_us + self._world.dice.below(20_000)

    def _is_broken(self, transfer: Transfer) -> bool:
        message = transfer.message
        nodes = self._world.nodes
        sender, receiver = nodes[message.sender], nodes[message.to]
        if sender.life != transfer.sender_life or not receiver.is_up or receiver.paused_until_us > self._world.now_us:
            return True
        link = (message.sender, message.to)
        return link in self.cut or link[::-1] in self.cut or not self._is_welcome(receiver, transfer.envelope)

    def _offer(self, transfer: Transfer) -> None:
        if self._is_broken(transfer):
            self._end(transfer, is_ok=False)
            return
        receiver = self._world.nodes[transfer.message.to]
        if receiver.raw.raft.log.unstable.snapshot is not None:
            # One is being installed. That empties the table of staged rows, so none may be added meanwhile.
            self._world.after(TICK_US, self._offer, transfer)
            return
        current = self._receiving.get(receiver.id)
        if current is not None and transfer.message.term < current.message.term:
            self._end(transfer, is_ok=False)
            return
        self._receiving[receiver.id] = transfer
        transfer.receiver_life = receiver.life
        self._send_part(transfer, receiver.disk.staged_index)

    def _send_part(self, transfer: Transfer, after: int) -> None:
        """Send the next rows; behind the last ones the message itself."""
        if self._is_over(transfer):
            self._end(transfer, is_ok=False)
            return
        nodes = self._world.nodes
        message = transfer.message
        rows = nodes[message.sender].disk.rows[after : min(after + PART_ROWS, transfer.index)]
        if not rows:
            self._arrive(transfer)
            return
        after = rows[-1].index
        nodes[message.to].disk.stage(
            rows, lambda: self._world.after(self._hop_us(), lambda _: self._send_part(transfer, after))
        )
        self._world.after(self._world.weather.patience_us * 4, self._give_up, transfer)

    def _is_over(self, transfer: Transfer) -> bool:
        receiver_id = transfer.message.to
        receiver = self._world.nodes[receiver_id]
        is_torn_off = not self.is_calm and self._world.dice.chance(self._world.weather.loss)
        return (
            is_torn_off
            or self._receiving.get(receiver_id) is not transfer
            or receiver.life != transfer.receiver_life
            or self._is_broken(transfer)
        )

    def _arrive(self, transfer: Transfer) -> None:
        self._world.nodes[transfer.message.to].receive(transfer.message)
        if not self.is_calm and self._world.dice.chance(0.3):
            self._world.after(self._world.dice.below(STRAGGLER_US), self._repeat, transfer)
        is_answer_lost = not self.is_calm and self._world.dice.chance(self._world.weather.loss)
        self._end(transfer, is_ok=not is_answer_lost)

    def _repeat(self, transfer: Transfer) -> None:
        """Let a snapshot arrive again, late: whoever has gone on since must not go back."""
        node = self._world.nodes[transfer.message.to]
        if node.is_up and node.life == transfer.receiver_life and node.raw.committed >= transfer.index:
            node.receive(transfer.message)

    def _give_up(self, transfer: Transfer) -> None:
        if self._sending.get(transfer.message.sender) is transfer:
            self._end(transfer, is_ok=False)

    def _end(self, transfer: Transfer, *, is_ok: bool) -> None:
        message = transfer.message
        if self._receiving.get(message.to) is transfer:
            del self._receiving[message.to]
        if self._sending.get(message.sender) is transfer:
            delay_us = self._hop_us() if is_ok else PAUSE_AFTER_FAILURE_US
            self._world.after(delay_us, lambda _: self._tell(transfer, is_ok=is_ok))

    def _tell(self, transfer: Transfer, *, is_ok: bool) -> None:
        message = transfer.message
        if self._sending.get(message.sender) is not transfer:
            return
        del self._sending[message.sender]
        sender = self._world.nodes[message.sender]
        if sender.life == transfer.sender_life and sender.is_up:
            sender.do(lambda raw: raw.report_snapshot(message.to, ok=is_ok))
        self._send_next(message.sender)
