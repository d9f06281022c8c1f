"""What a drill has at hand: the cluster, its clients, and the watch that times what happens to them."""

import random
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter

import msgspec

from tests.cluster.cluster_process import Cluster
from tests.cluster.waiting import NeverError, pause
from tests.cluster.workload import Workload

WRITTEN_S_MAX = 60.0
LEADS_S_MAX = 2.0
"""A leader that accepts nothing for so long is none any more."""
CALM_S = (0.3, 0.8)
"""Writes before a fault, so that it comes at any moment of whatever the nodes do again and again."""

AFTER_S = 0.3
"""Writes after a fault, so that all clients have noticed."""


class Round(msgspec.Struct, kw_only=True):
    """What one fault meant for the clients, in milliseconds."""

    first_write_ms: float
    """From the fault to the first write that a node accepted which did not fail."""
    gap_ms: float
    """The longest time without any accepted write, from the fault to the end of the round."""
    slowest_write_ms: float
    """The longest that a client had to wait for one write, all its attempts together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that was done to nodes."""

    at_s: float
    victims: Collection[int]


@dataclass
class Scene:
    """One drill under way."""

    cluster: Cluster
    workload: Workload
    rng: random.Random
    scale: float = 1.0
    """Of what takes long in full."""
    rounds: list[Round] = field(default_factory=list)
    notes: dict[str, list[float]] = field(default_factory=dict)
    """Further measurements, by what they say."""

    async def write_on(self, low_s: float = AFTER_S, high_s: float | None = None) -> None:
        """Let the clients write for some time between these."""
        await pause(self.rng.uniform(low_s, high_s or low_s))

    async def leader_amid_writes(self) -> int:
        """Return the leader, after some writes, the last of which it accepted just now."""
        await self.write_on(*CALM_S)
        while True:  # between the nodes' answers and ours there may have been an election
            leader = await self.cluster.find_leader()
            others = set(self.cluster.ports) - {leader}
            with suppress(NeverError):
                await self.workload.wait_written(perf_counter(), but_by=others, within_s=LEADS_S_MAX)
                return leader

    async def follower_amid_writes(self) -> int:
        """Return one of the nodes that do not lead, after some writes."""
        leader = await self.leader_amid_writes()
        return self.rng.choice([node_id for node_id in self.cluster.ports if node_id != leader])

    def begin(self, *victims: int) -> Fault:
        """Note that these nodes fail now: to be called right before it is done to them."""
        self.workload.shun(victims)
        return Fault(at_s=perf_counter(), victims=victims)

    async def first_write(self, fault: Fault) -> float:
        """Wait until a write is accepted by a node that did not fail; return the milliseconds from the fault."""
        try:
            first_s = await self.workload.wait_written(fault.at_s, but_by=fault.victims, within_s=WRITTEN_S_MAX)
        except NeverError as error:
            raise NeverError(f"{error} after nodes {fault.victims} failed ({await self.cluster.describe()})") from None
        return 1000 * (first_s - fault.at_s)

    def end(self, fault: Fault, first_write_ms: float) -> None:
        """Keep what the clients saw of a fault."""
        now_s = perf_counter()
        self.workload.shun(())
        self.rounds.append(
            Round(
                first_write_ms=round(first_write_ms, 1),
                gap_ms=round(1000 * self.workload.longest_gap_s(fault.at_s, now_s), 1),
                slowest_write_ms=round(1000 * self.workload.slowest_s(fault.at_s, now_s), 1),
            )
        )

    def note(self, what: str, value: float) -> None:
        """Keep a further measurement."""
        self.notes.setdefault(what, []).append(round(value, 1))

    async def bring_back(self, *node_ids: int) -> None:
        """Start nodes that do not run, and wait until they have caught up; note how long that took."""
        started_s = perf_counter()
        for node_id in node_ids:
            await self.cluster.launch(node_id)
        leader = await self.cluster.find_leader()
        for node_id in node_ids:
            await self.cluster.wait_caught_up(node_id, leader)
        self.note("back and caught up after s", perf_counter() - started_s)
