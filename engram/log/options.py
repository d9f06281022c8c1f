"""How patient a node of the log is, how much it takes on at once, and whom it tells."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engram.log.consensus.config import Config
from engram.log.consensus.types import Message
from engram.log.sqlite import SqliteLog

PROPOSAL_BYTES_MAX = 4 * 1024 * 1024 + 64 * 1024
"""The largest entry of the application, 4 MiB, and the framing around it; a message between nodes holds one."""

UNCOMMITTED_BYTES_MAX = 64 * 1024 * 1024
"""Beyond this the disk is hopelessly behind, and memory is what is left to lose."""

MESSAGE_BYTES_MAX = 512 * 1024
"""Of entries in one append to a follower: a heartbeat behind it waits no longer than that takes."""

INFLIGHT_BYTES_MAX = 4 * 1024 * 1024
"""Of entries that a follower was sent and has not answered; well below what its outbox holds."""


class Observer(Protocol):
    """Who wants to know how long things take, and that they happened."""

    def synced(self, seconds: float, entries: int) -> None:
        """One transaction made `entries` entries durable."""

    def committed(self, seconds: float) -> None:
        """An entry that was proposed here is committed, this long after."""

    def led_by(self, leader_id: int) -> None:
        """Another node leads than before, as far as is known here; 0: none."""

    def snapshot_built(self) -> None:
        """The base moved."""

    def snapshot_installed(self) -> None:
        """A snapshot of another node took the place of the log."""


class Outlet(Protocol):
    """The way to the other nodes."""

    def send(self, messages: Sequence[Message]) -> None:
        """Send each to the node it is addressed to, if that can be done without waiting."""

    def members_changed(self) -> None:
        """Note that the roster is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How patient the node is, and how often its base moves."""

    tick_s: float = 0.05
    heartbeat_ticks: int = 2
    election_ticks: int = 6
    """A follower that hears of no leader for this to twice this stands for election."""
    snapshot_threshold: int = 1000
    """Committed entries between one base and the next."""
    hung_s: float = 1.0
    """A transaction that takes longer means that the disk hangs: the node must not lead."""

    @property
    def election_s(self) -> float:
        """The shortest election timeout."""
        return self.election_ticks * self.tick_s


def core_config(log: SqliteLog, rng: random.Random, options: Options, *, applied: int) -> Config:
    """Return the options of the core of the node that `log` belongs to."""
    return Config(
        id=log.state.node_id,
        storage=log,
        rng=rng,
        election_ticks=options.election_ticks,
        heartbeat_ticks=options.heartbeat_ticks,
        applied=applied,
        async_storage_writes=True,
        max_bytes_per_message=MESSAGE_BYTES_MAX,
        max_uncommitted_bytes=UNCOMMITTED_BYTES_MAX,
        max_inflight_bytes=INFLIGHT_BYTES_MAX,
        proposal_forwarding=False,
    )
