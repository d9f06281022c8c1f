"""What kind of day it is: how bad the network, the disks and the clocks are, and which misfortunes happen at all.

All of it is drawn from the seed. A day on which everything happens finds other bugs than one with a single kind of
trouble, so most kinds are left out of any one day.
"""

from dataclasses import dataclass

from engram.log.consensus.config import Config
from engram.log.consensus.types import UNLIMITED
from engram.log.storage import Storage
from tests.simulation.dice import Dice

TICK_US = 25_000
ELECTION_TICKS = 12
HEARTBEAT_TICKS = 2

TROUBLES = (
    "crash",
    "crash_many",
    "pause",
    "split",
    "isolate",
    "one_way",
    "bridge",
    "strand",
    "strand",
    "heal",
    "lose_connection",
    "slow_disk",
    "hung_disk",
    "failing_sync",
    "full_disk",
    "clock",
    "transfer",
    "change_members",
    "change_members",
    "joint_change",
    "joint_change",
    "replace_disk",
    "come_back",
    "step_down",
    "rivals",
    "report",
    "snapshot",
    "burst",
)
"""The methods of `faults.Nemesis`; what stands here twice happens twice as often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """One day. Times are in microseconds of simulated time, probabilities in [0, 1]."""

    moves: int
    """Events before the weather clears."""
    size: int
    """Nodes that are members at first."""
    spares: int
    """Nodes that may become members; 3 to 7 nodes in all."""
    is_founded: bool
    """The cluster begins on one node, and the others are fed; else all of them are members already."""
    loss: float
    doubling: float
    latency_us: int
    jitter_us: int
    straggling: float
    """How many messages come seconds late."""
    is_ordered: bool
    """Messages from one node to another overtake each other never, or freely."""
    write_us: int
    clock_rate_min: float
    clock_rate_max: float
    trouble_us: int
    """Between one trouble and the next, on average."""
    troubles: tuple[str, ...]
    is_apply_slow: bool
    """Entries are applied a while after they were handed out; else at once, as the driver does."""
    snapshot_threshold: int
    window_bytes: int
    inflight_messages_max: int
    message_bytes_max: int
    applying_bytes_max: int
    uncommitted_bytes_max: int
    clients: int
    reading: float
    """How many requests are reads."""
    patience_us: int
    """How long a client waits for an answer before it asks another node."""

    def core_config(self, node_id: int, storage: Storage, dice: Dice, *, applied: int) -> Config:
        """Return the options of a core on such a day."""
        return Config(
            id=node_id,
            storage=storage,
            rng=dice,
            election_ticks=ELECTION_TICKS,
            heartbeat_ticks=HEARTBEAT_TICKS,
            applied=applied,
            async_storage_writes=True,
            max_bytes_per_message=self.message_bytes_max,
            max_committed_bytes_per_ready=self.applying_bytes_max,
            max_uncommitted_bytes=self.uncommitted_bytes_max,
            max_inflight_messages=self.inflight_messages_max,
            proposal_forwarding=False,
        )


def drawn(dice: Dice, *, moves: int | None = None) -> Weather:
    """Return the weather of a seed."""
    size = dice.pick((1, 2, 3, 3, 3, 4, 4, 5, 5, 6, 7))
    spares = dice.below(8 - size) if size > 1 else 2 + dice.below(3)
    is_fair = dice.chance(0.15)
    return Weather(
        moves=moves or dice.pick((500, 700, 1000, 1400, 2000, 3000)),
        size=size,
        spares=spares if size + spares >= 3 else 3 - size,
        is_founded=dice.chance(0.3),
        loss=dice.pick((0.0, 0.0, 0.01, 0.05, 0.2)),
        doubling=dice.pick((0.0, 0.0, 0.02, 0.1)),
        latency_us=dice.pick((300, 1000, 3000, 10_000)),
        jitter_us=dice.pick((200, 2000, 10_000, 40_000)),
        straggling=dice.pick((0.0, 0.0, 0.01, 0.03)),
        is_ordered=dice.chance(0.4),
        write_us=dice.pick((500, 2000, 10_000, 40_000)),
        clock_rate_min=1.0 if is_fair else dice.pick((0.5, 0.8, 1.0)),
        clock_rate_max=1.0 if is_fair else dice.pick((1.0, 1.25, 2.0)),
        trouble_us=dice.pick((50_000, 100_000, 200_000, 400_000)),
        troubles=_troubles(dice),
        is_apply_slow=dice.chance(0.4),
        snapshot_threshold=dice.pick((3, 10, 30, 1000)),
        window_bytes=dice.pick((1, 2000, 10_000, 1_000_000)),
        inflight_messages_max=dice.pick((1, 2, 4, 64)),
        message_bytes_max=dice.pick((0, 100, 100, 100_000)),
        applying_bytes_max=dice.pick((1, 100, UNLIMITED)),
        uncommitted_bytes_max=dice.pick((200, UNLIMITED, UNLIMITED)),
        clients=dice.between(1, 4),
        reading=dice.pick((0.1, 0.3, 0.8)),
        patience_us=dice.pick((100_000, 400_000, 1_500_000)),
    )


def _troubles(dice: Dice) -> tuple[str, ...]:
    share = dice.pick((0.2, 0.4, 0.7, 1.0))
    return tuple(trouble for trouble in TROUBLES if dice.chance(share)) or ("crash",)
