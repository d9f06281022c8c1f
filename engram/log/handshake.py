"""Who may open a stream to whom. Ports and names are reused; identities are not, so every stream states both.

A node in no cluster yet, whose cluster id is empty, belongs to the first that greets its disk by name.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from engram.log.codec import Batch, Hello, Welcome
from engram.log.consensus.types import MessageType

_FORWARDED = frozenset({MessageType.PROPOSE, MessageType.READ_INDEX, MessageType.TRANSFER_LEADER})
"""A follower passes these on to its leader in the name of whoever asked."""


FORMING = "forming"
"""Stands for the id of a cluster while one is being formed: of two nodes that form one, at most one succeeds."""


class Refusal(StrEnum):
    """Why a stream was refused, or ended by the one who receives. Stable: for metrics."""

    WRONG_CLUSTER = "wrong_cluster"
    WRONG_NODE = "wrong_node"
    """The address belongs to another node than the sender believed."""
    WRONG_STORE = "wrong_store"
    """The node has another disk than the cluster knows of: it has forgotten what it promised."""
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
    """Empty: in no cluster yet."""
    node_id: int
    boot_epoch: int
    """Higher at each start of the node, from 1."""
    address: str
    """host:port where other nodes reach it."""
    store_id: str
    """Of its disk."""
    http_address: str
    """host:port where clients reach it; empty: not known."""


class Doorkeeper:
    """Remembers the newest start and stream of each peer, and lets nothing older in.

    Args:
        identity: Of the node at whose door this is.
        store_of: Returns the store id that the cluster knows of a node; empty if it knows none.
        known_up_to: Returns the log index as of which that is known.
    """

    def __init__(self, identity: Identity, store_of: Callable[[int], str], known_up_to: Callable[[int], int]) -> None:
        self.identity = identity
        self._store_of = store_of
        self._known_up_to = known_up_to
        self._starts: dict[int, _Start] = {}
        self._streams: dict[int, Hello] = {}

    def join(self, cluster_id: str) -> None:
        """Belong to cluster `cluster_id` from now on: FORMING, or empty again, until it is known which.

        Raises:
            ValueError: It belongs to another.
        """
        if self.identity.cluster_id not in {"", FORMING, cluster_id}:
            raise ValueError(f"in cluster {self.identity.cluster_id!r} already, not in {cluster_id!r}")
        self.identity = replace(self.identity, cluster_id=cluster_id)

    def forget(self, node_id: int) -> None:
        """Forget what is known of `node_id`, which is no peer any more."""
        self._starts.pop(node_id, None)
        self._streams.pop(node_id, None)

    def check(self, hello: Hello) -> None:
        """Check that `hello` is meant for this node, and comes from whom and from where it says; note nothing.

        Raises:
            RefusedError: It is not, or does not.
        """
        own = self.identity
        if hello.to != own.node_id:
            raise RefusedError(
                Refusal.WRONG_NODE, f"this is node {own.node_id}; node {hello.sender} wants node {hello.to}"
            )
        if hello.sender == own.node_id:
            raise RefusedError(Refusal.WRONG_NODE, f"node {hello.sender} is this node itself")
        if own.cluster_id or not hello.cluster_id:
            self._check_cluster(hello.cluster_id, hello.sender)
        elif not hello.to_store_id:
            raise RefusedError(
                Refusal.WRONG_STORE, f"this node is in no cluster, and node {hello.sender} does not name its store"
            )
        if hello.to_store_id not in {"", own.store_id}:
            raise RefusedError(
                Refusal.WRONG_STORE,
                f"node {hello.sender} wants store {hello.to_store_id!r} of node {own.node_id}, which has "
                f"{own.store_id!r}: a disk was lost or exchanged; remove the node and add it again",
            )
        # A node that is behind would else never hear of a leader that was added again with a new disk: what tells it of
        # that disk is committed, but comes from that leader. Whoever has applied more of the log knows better.
        if not (hello.store_id and hello.applied_index > self._known_up_to(hello.sender)):
            self._check_store(hello.sender, hello.store_id)
        self._check_start(hello.sender, _Start(hello.store_id, hello.boot_epoch))

    def admit(self, hello: Hello) -> None:
        """Make the stream that `hello` opens, which was checked, the only one of its sender.

        Raises:
            RefusedError: There is a newer one.
        """
        self.note(hello)
        known = self._streams.get(hello.sender)
        if known is not None and is_older(hello, known):
            raise RefusedError(
                Refusal.STALE, f"node {hello.sender}: stream {hello.stream} comes after stream {known.stream}"
            )
        self._streams[hello.sender] = hello

    def note(self, hello: Hello) -> None:
        """Remember the start that `hello`, which was checked, comes from.

        Raises:
            RefusedError: A newer one is known by now.
        """
        self._note_start(hello.sender, _Start(hello.store_id, hello.boot_epoch))

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
        """Check that `welcome` comes from `node_id`, from its disk, and from its newest start.

        Raises:
            RefusedError: It does not.
        """
        self._check_cluster(welcome.cluster_id, node_id)
        if welcome.node_id != node_id:
            raise RefusedError(Refusal.WRONG_NODE, f"node {welcome.node_id} answers at the address of node {node_id}")
        self._check_store(node_id, welcome.store_id)
        self._note_start(node_id, _Start(welcome.store_id, welcome.boot_epoch))

    def _check_cluster(self, cluster_id: str, node_id: int) -> None:
        if cluster_id != self.identity.cluster_id or not cluster_id:
            raise RefusedError(
                Refusal.WRONG_CLUSTER,
                f"node {node_id} belongs to cluster {cluster_id!r}, this node to {self.identity.cluster_id!r}",
            )

    def _check_store(self, node_id: int, store_id: str) -> None:
        known = self._store_of(node_id)
        if known not in {"", store_id}:
            raise RefusedError(
                Refusal.WRONG_STORE,
                f"node {node_id} has store {store_id!r}, and is known with {known!r}: "
                "a disk was lost or exchanged; remove the node and add it again",
            )

    def _note_start(self, node_id: int, start: "_Start") -> None:
        self._check_start(node_id, start)
        self._starts[node_id] = start

    def _check_start(self, node_id: int, start: "_Start") -> None:
        known = self._starts.get(node_id)
        if known is not None and known.store_id == start.store_id and start.boot_epoch < known.boot_epoch:
            raise RefusedError(
                Refusal.STALE, f"node {node_id}: start {start.boot_epoch} comes after start {known.boot_epoch}"
            )


class _Start(NamedTuple):
    """Starts are counted on the disk, so those of another disk do not compare."""

    store_id: str
    boot_epoch: int


def is_older(hello: Hello, known: Hello) -> bool:
    """Return whether `hello` is no newer than `known`, which is of the same sender."""
    if hello.store_id != known.store_id:
        return False
    return (hello.boot_epoch, hello.stream) <= (known.boot_epoch, known.stream)


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
