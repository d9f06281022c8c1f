"""Who may open a stream to whom. Ports and names are reused; identities are not, so every stream states both."""

from dataclasses import dataclass
from enum import StrEnum

from engram.log.codec import Batch, Hello, Welcome
from engram.log.consensus.types import MessageType

_FORWARDED = frozenset({MessageType.PROPOSE, MessageType.READ_INDEX, MessageType.TRANSFER_LEADER})
"""A follower passes these on to its leader in the name of whoever asked."""


class Refusal(StrEnum):
    """Why a stream was refused, or ended by the one who receives. Stable: for metrics."""

    WRONG_CLUSTER = "wrong_cluster"
    WRONG_NODE = "wrong_node"
    """The address belongs to another node than the sender believed."""
    STALE = "stale"
    """A newer start of the same node, or a newer stream of the same start, is known."""
    STRANGER = "stranger"
    """The sender is not a peer."""
    MALFORMED = "malformed"
    """It sent what this version does not understand, or what is not for it."""


class RefusedError(Exception):
    """A stream must not go on; the message says what was expected and what came."""

    def __init__(self, refusal: Refusal, detail: str) -> None:
        super().__init__(detail)
        self.refusal = refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a node states about itself."""

    cluster_id: str
    node_id: int
    boot_epoch: int
    """Higher at each start of the node, from 1."""
    address: str
    """host:port where other nodes reach it."""


class Doorkeeper:
    """Remembers the newest start and stream of each peer, and lets nothing older in."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._epochs: dict[int, int] = {}
        self._streams: dict[int, Hello] = {}

    def forget(self, node_id: int) -> None:
        """Forget what is known of `node_id`, which is no peer any more."""
        self._epochs.pop(node_id, None)
        self._streams.pop(node_id, None)

    def check_identity(self, hello: Hello) -> None:
        """Check that `hello` is meant for this node.

        Raises:
            RefusedError: It is not.
        """
        self._check_cluster(hello.cluster_id, hello.sender)
        if hello.to != self._identity.node_id:
            raise RefusedError(
                Refusal.WRONG_NODE, f"this is node {self._identity.node_id}; node {hello.sender} wants node {hello.to}"
            )
        if hello.sender == self._identity.node_id:
            raise RefusedError(Refusal.WRONG_NODE, f"node {hello.sender} is this node itself")

    def admit(self, hello: Hello) -> None:
        """Make the stream that `hello` opens the only one of its sender.

        Raises:
            RefusedError: There is a newer one.
        """
        self._check_epoch(hello.sender, hello.boot_epoch)
        known = self._streams.get(hello.sender)
        if known is not None and (known.boot_epoch, known.stream) >= (hello.boot_epoch, hello.stream):
            raise RefusedError(
                Refusal.STALE, f"node {hello.sender}: stream {hello.stream} comes after stream {known.stream}"
            )
        self._streams[hello.sender] = hello

    def check_current(self, hello: Hello) -> None:
        """Check that no newer stream replaced the one that `hello` opened: what it still brings would be out of order.

        Raises:
            RefusedError: One did, or its sender was removed.
        """
        if self._streams.get(hello.sender) is not hello:
            raise RefusedError(
                Refusal.STALE, f"node {hello.sender}: stream {hello.stream} was replaced, or the node removed"
            )

    def check_welcome(self, node_id: int, welcome: Welcome) -> None:
        """Check that `welcome` comes from `node_id`, and from its newest start.

        Raises:
            RefusedError: It does not.
        """
        self._check_cluster(welcome.cluster_id, node_id)
        if welcome.node_id != node_id:
            raise RefusedError(Refusal.WRONG_NODE, f"node {welcome.node_id} answers at the address of node {node_id}")
        self._check_epoch(node_id, welcome.boot_epoch)

    def _check_cluster(self, cluster_id: str, node_id: int) -> None:
        if cluster_id != self._identity.cluster_id:
            raise RefusedError(
                Refusal.WRONG_CLUSTER,
                f"node {node_id} belongs to cluster {cluster_id!r}, this node to {self._identity.cluster_id!r}",
            )

    def _check_epoch(self, node_id: int, boot_epoch: int) -> None:
        known = self._epochs.get(node_id, 0)
        if boot_epoch < known:
            raise RefusedError(Refusal.STALE, f"node {node_id}: start {boot_epoch} comes after start {known}")
        self._epochs[node_id] = boot_epoch


def check_batch(hello: Hello, batch: Batch) -> None:
    """Check that `batch` may come over the stream that `hello` opened, after it.

    Raises:
        RefusedError: It greets again, or a message is for another node, in the name of another node, or a snapshot,
            which has its own channel.
    """
    if batch.hello is not None:
        raise RefusedError(Refusal.MALFORMED, f"node {hello.sender} sends a second hello")
    for message in batch.messages:
        if message.type is MessageType.SNAPSHOT:
            raise RefusedError(Refusal.MALFORMED, f"node {hello.sender} sends a snapshot among its messages")
        is_own = message.sender == hello.sender or message.type in _FORWARDED
        if message.to != hello.to or not is_own:
            raise RefusedError(
                Refusal.MALFORMED,
                f"node {hello.sender} sends {message.type.name} from node {message.sender} to node {message.to}",
            )
