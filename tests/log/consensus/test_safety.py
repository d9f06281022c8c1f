"""Clusters on a bad day: lost, late and doubled messages, crashes, cut networks, slow disks, changing members.

The referee of `cluster` watches every move; the tests here only see to it that a lot happens, and that the cluster
recovers when the day is over. A failure names its seed, and a seed repeats it.
"""

import random
from collections.abc import Callable

import pytest

from engram.log.consensus.rawnode import RawNode
from engram.log.consensus.types import Change, ChangeKind, ConfChange, Transition
from tests.log.consensus.cluster import ELECTION_TICKS, Cluster, options

SEEDS = range(24)
MOVES = 2000
SIZE = 5


class BadDay:
    """Makes random moves, more of the common ones.

    Safety must hold with every option; a cluster `as_in_production` must also come back by itself.
    """

    def __init__(self, seed: int, *, as_in_production: bool = False) -> None:
        self.rng = random.Random(seed)
        self.cluster = Cluster(
            SIZE,
            rng=self.rng,
            configure=options(
                max_inflight_messages=self.rng.choice([1, 4, 256]),
                max_bytes_per_message=self.rng.choice([0, 100, 100_000]),
                pre_vote=as_in_production or self.rng.random() < 0.7,
                check_quorum=as_in_production or self.rng.random() < 0.7,
                step_down_on_removal=as_in_production or self.rng.random() < 0.7,
                max_committed_bytes_per_ready=self.rng.choice([1, 100, 100_000]),
            ),
        )
        self.proposals = 0
        self.reads: dict[bytes, int] = {}
        self._moves: list[tuple[int, Callable[[], None]]] = [
            (300, self.deliver),
            (120, self.write),
            (60, self.apply),
            (60, self.tick),
            (30, self.propose),
            (8, self.lose),
            (8, self.repeat),
            (4, self.read),
            (4, self.lose_patience),
            (3, self.crash),
            (3, self.cut),
            (3, self.heal),
            (3, self.compact),
            (3, self.transfer),
            (3, self.change_members),
            (3, self.report),
            (3, self.forget),
            (1, self.step_down),
        ]

    def run(self, moves: int) -> None:
        weights = [weight for weight, _ in self._moves]
        for _ in range(moves):
            (move,) = self.rng.choices([move for _, move in self._moves], weights)
            move()
            self.check_reads()

    def deliver(self) -> None:
        if self.cluster.messages:
            self.cluster.deliver_next(self.place())

    def lose(self) -> None:
        if self.cluster.messages:
            del self.cluster.messages[self.place()]

    def repeat(self) -> None:
        if self.cluster.messages:
            self.cluster.deliver(self.cluster.messages[self.place()])

    def write(self) -> None:
        if waiting := [node.id for node in self.cluster.nodes.values() if node.appends]:
            self.cluster.write(self.rng.choice(waiting))

    def apply(self) -> None:
        if waiting := [node.id for node in self.cluster.nodes.values() if node.applies]:
            self.cluster.apply(self.rng.choice(waiting))

    def tick(self) -> None:
        self.cluster.tick(self.someone())

    def propose(self) -> None:
        self.proposals += 1
        self.cluster.propose(self.someone(), b"%d" % self.proposals)

    def read(self) -> None:
        context = b"read %d" % len(self.reads)
        # Whatever anyone could know by now must be in what is read.
        self.reads[context] = max(self.cluster.referee.committed, default=0)
        self.cluster.do(self.someone(), lambda raw: raw.read_index(context))

    def lose_patience(self) -> None:
        """Let one clock run far ahead of the others."""
        node_id = self.someone()
        for _ in range(2 * ELECTION_TICKS):
            self.cluster.tick(node_id)

    def crash(self) -> None:
        self.cluster.crash(self.someone())

    def cut(self) -> None:
        self.cluster.heal()
        self.cluster.isolate(*self.rng.sample(sorted(self.cluster.nodes), self.rng.choice([1, 2])))

    def heal(self) -> None:
        self.cluster.heal()

    def compact(self) -> None:
        self.cluster.compact(self.someone(), kept=self.rng.choice([0, 0, 2, 10]))

    def transfer(self) -> None:
        to = self.someone()
        self.cluster.do(self.someone(), lambda raw: raw.transfer_leadership(to))

    def change_members(self) -> None:
        kinds = [ChangeKind.ADD_VOTER, ChangeKind.ADD_VOTER, ChangeKind.ADD_LEARNER, ChangeKind.REMOVE]
        changes = tuple(Change(self.rng.choice(kinds), self.someone()) for _ in range(self.rng.choice([1, 1, 2, 3])))
        node = self.cluster[self.someone()]
        if not keeps_voters(node.raft.tracker.members.incoming, changes):
            return
        change = ConfChange(changes, self.rng.choice([Transition.AUTO, Transition.JOINT_IMPLICIT]))
        self.cluster.do(node.id, lambda raw: raw.propose_conf_change(change))

    def report(self) -> None:
        about = self.someone()
        if self.rng.random() < 0.5:
            self.cluster.do(self.someone(), lambda raw: raw.report_unreachable(about))
        else:
            self.cluster.do(self.someone(), lambda raw: raw.report_snapshot(about, ok=False))

    def resend_snapshots(self, node_id: int) -> None:
        for other in sorted(self.cluster.nodes):
            self.cluster.do(node_id, lambda raw, other=other: raw.report_snapshot(other, ok=False))  # type: ignore[misc]

    def forget(self) -> None:
        self.cluster.do(self.someone(), RawNode.forget_leader)

    def step_down(self) -> None:
        self.cluster.do(self.someone(), RawNode.step_down)

    def check_reads(self) -> None:
        for node in self.cluster.nodes.values():
            for state in node.read_states:
                assert state.index >= self.reads[state.context], "a read would not see what others have seen"
            node.read_states.clear()

    def someone(self) -> int:
        return self.rng.randrange(SIZE) + 1

    def place(self) -> int:
        """Return the place of a message that is, most often, one of the oldest."""
        return min(int(self.rng.expovariate(0.5)), len(self.cluster.messages) - 1)


def keeps_voters(voters: frozenset[int], changes: tuple[Change, ...]) -> bool:
    """Return whether two voters stay: fewer could be lost to a change that is not applied everywhere."""
    after = set(voters)
    for change in changes:
        (after.add if change.kind is ChangeKind.ADD_VOTER else after.discard)(change.node_id)
    return len(after) >= 2


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_that_was_promised_is_broken_on_a_bad_day(seed: int) -> None:
    BadDay(seed).run(MOVES)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cluster_recovers_from_a_bad_day(seed: int) -> None:
    day = BadDay(seed, as_in_production=True)
    day.run(MOVES // 2)
    cluster = day.cluster

    cluster.heal()
    for node_id in sorted(cluster.nodes):
        day.resend_snapshots(node_id)
    for _ in range(20):
        cluster.pass_time(ELECTION_TICKS)
        for node_id in cluster.leaders:  # a snapshot may be so old that its receiver was no member
            cluster.compact(node_id)
            day.resend_snapshots(node_id)

    assert len(cluster.leaders) == 1
    leader = cluster.leader
    assert cluster.propose(leader.id, b"still here")
    index = leader.raft.log.last_index
    cluster.pass_time(3)
    assert cluster.referee.committed[index].data == b"still here"
    assert not leader.raft.tracker.members.is_joint
    for node_id in leader.raft.tracker.progress:
        assert cluster[node_id].raft.log.committed == leader.raft.log.committed
        assert cluster[node_id].log()[-1:] == leader.log()[-1:]
