"""The nemesis: makes trouble of the kinds that the weather allows, one after the other."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from engram.log.consensus.types import Change, ChangeKind, ConfChange, ConfState, Entry, EntryKind, Transition
from engram.log.members import Member, encode_book
from tests.simulation.disk import Disk
from tests.simulation.weather import ELECTION_TICKS, TICK_US

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

ELECTION_US = ELECTION_TICKS * TICK_US
VOTERS_MIN = 2
"""Whoever removes more than that means to lose the cluster."""


class Nemesis:
    """Each method without arguments that `weather.TROUBLES` names is one kind of trouble."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._dice = world.dice
        self._is_over = False
        self._bursts = 0

    def begin(self) -> None:
        """Make trouble from now on."""
        self._world.after(self._dice.below(2 * self._world.weather.trouble_us), self._trouble)

    def _trouble(self, _: object) -> None:
        if not self._is_over:
            getattr(self, self._dice.pick(self._world.weather.troubles))()
            self.begin()

    def end(self) -> None:
        """Let the weather clear: links work, disks are good, clocks are about right, and all processes run."""
        self._is_over = True
        world = self._world
        world.network.cut.clear()
        world.network.is_calm = True
        for node in world.nodes.values():
            disk = node.disk
            disk.write_us = 500
            disk.hung_until_us = disk.full_until_us = 0
            disk.is_failing = False
            node.clock_rate = 0.9 + 0.2 * self._dice.random()
            node.paused_until_us = min(node.paused_until_us, world.now_us)
            node.restart()

    # Processes.

    def crash(self) -> None:
        self._kill([self._someone()])

    def crash_many(self) -> None:
        ids = self._world.ids
        self._kill([self._world.nodes[node_id] for node_id in self._dice.some(ids, 1 + self._dice.below(len(ids)))])

    def _kill(self, nodes: Sequence["Node"]) -> None:
        for node in nodes:
            node.crash()
            self._world.after(self._dice.below(6 * ELECTION_US), node.restart)
            if self._dice.chance(0.7):
                self._break_connections(node)

    def pause(self) -> None:
        node = self._someone()
        node.paused_until_us = self._world.now_us + self._dice.below(4 * ELECTION_US)

    def clock(self) -> None:
        node = self._someone()
        node.clock_rate = 0.5 + 1.5 * self._dice.random()

    # Links.

    def split(self) -> None:
        """Cut the cluster in two."""
        ids = self._world.ids
        part = set(self._dice.some(ids, 1 + self._dice.below(len(ids) - 1)))
        self._cut({(one, other) for one in ids for other in ids if (one in part) is not (other in part)})

    def isolate(self) -> None:
        node = self._world.leader() if self._dice.chance(0.6) else None
        alone = self._someone().id if node is None else node.id
        self._cut({(one, other) for one in self._world.ids for other in self._world.ids if alone in {one, other}})

    def one_way(self) -> None:
        """Let some node hear nobody, or be heard by nobody, or let any links be deaf in one direction."""
        ids = self._world.ids
        alone = self._someone().id
        kinds = (
            {(alone, other) for other in ids},
            {(other, alone) for other in ids},
            {(one, other) for one in ids for other in ids if self._dice.chance(0.3)},
        )
        self._cut(self._dice.pick(kinds))

    def bridge(self) -> None:
        """Cut the cluster in two, but for one node that both halves reach."""
        ids = self._dice.some(self._world.ids, len(self._world.ids))
        middle, half = ids[0], set(ids[1 : 1 + len(ids) // 2])
        self._cut(
            {
                (one, other)
                for one in ids
                for other in ids
                if middle not in {one, other} and (one in half) is not (other in half)
            }
        )

    def _cut(self, links: set[tuple[int, int]]) -> None:
        if self._dice.chance(0.7):
            self._world.network.cut.clear()
        self._world.network.cut |= {link for link in links if link[0] != link[1]}
        if self._dice.chance(0.3):
            for node_id in self._world.ids:
                self._break_connections(self._world.nodes[node_id], only_cut=True)

    def strand(self) -> None:
        """Cut a leader off with too few others, let it append what will be replaced, and come back."""
        world, leader = self._world, self._world.leader()
        if leader is None:
            return
        others = [node_id for node_id in world.ids if node_id != leader.id]
        stranded = {leader.id, *self._dice.some(others, self._dice.below(2 + len(others) // 2))}
        world.network.cut = {
            (one, other) for one in world.ids for other in world.ids if (one in stranded) is not (other in stranded)
        }
        if self._dice.chance(0.5):
            for node_id in sorted(stranded):
                world.nodes[node_id].disk.write_us = self._dice.pick((10_000, 100_000))
        self.burst()
        if self._dice.chance(0.5):
            for node_id in world.ids:
                self._break_connections(world.nodes[node_id], only_cut=True)
        world.after(self._dice.below(6 * ELECTION_US), lambda _: self.heal())

    def heal(self) -> None:
        self._world.network.cut.clear()

    def lose_connection(self) -> None:
        self._break_connections(self._world.leader() or self._someone())

    def _break_connections(self, node: "Node", *, only_cut: bool = False) -> None:
        """Let the others notice, about now, that they are not connected to `node`."""
        for other_id in self._world.ids:
            if other_id != node.id and (not only_cut or (node.id, other_id) in self._world.network.cut):
                self._world.after(self._dice.below(50_000), self._lose, (other_id, node.id))

    def _lose(self, pair: tuple[int, int]) -> None:
        node = self._world.nodes[pair[0]]
        if node.is_up and node.paused_until_us <= self._world.now_us:
            node.lose(pair[1])

    # Disks.

    def slow_disk(self) -> None:
        self._someone().disk.write_us = self._dice.pick((500, 10_000, 100_000, 400_000))

    def hung_disk(self) -> None:
        self._someone().disk.hung_until_us = self._world.now_us + self._dice.below(3_000_000)

    def failing_sync(self) -> None:
        self._someone().disk.is_failing = True

    def full_disk(self) -> None:
        self._someone().disk.full_until_us = self._world.now_us + self._dice.below(4 * ELECTION_US)

    def replace_disk(self) -> None:
        """Give a node that is no member any more a new disk; else make it one that is none."""
        world = self._world
        strangers = [node_id for node_id in world.ids if node_id not in _ids(world.referee.members)]
        if not strangers:
            self._propose([Change(ChangeKind.REMOVE, self._someone().id)])
            return
        self._replace_disk(self._dice.pick(strangers))

    def come_back(self, node_id: int = 0) -> None:
        """Take a node out, give it a new disk, and add it again, all of it within a term if that goes well."""
        node_id = node_id or self._someone().id
        members = self._world.referee.members
        if node_id in _ids(members):
            self._propose([Change(ChangeKind.REMOVE, node_id)])
        elif self._replace_disk(node_id):
            self._propose([Change(self._dice.pick((ChangeKind.ADD_LEARNER, ChangeKind.ADD_VOTER)), node_id)])
            return
        if self._dice.chance(0.9) and not self._is_over:
            self._world.after(self._dice.below(ELECTION_US), lambda _: self.come_back(node_id))

    def _replace_disk(self, node_id: int) -> bool:
        world = self._world
        if not self._is_removed_for_good(node_id):
            return False
        node = world.nodes[node_id]
        node.crash()
        node.disk = Disk(node.id, world.new_store(node.id), world)
        node.applied_ever = 0
        if node.machine is not None:
            node.machine.wiped()
        world.after(self._dice.below(ELECTION_US), node.restart)
        return True

    def _is_removed_for_good(self, node_id: int) -> bool:
        """Return whether all members know that it is none, even after a crash, and nothing is under way that makes it one.

        Else what only its disk knows, that its removal is committed, would be lost with it.
        """
        world = self._world
        logs: list[Sequence[Entry]] = [world.referee.committed, *(node.disk.rows for node in world.nodes.values())]
        logs += [node.raw.raft.log.unstable.entries for node in world.nodes.values() if node.is_up]
        logs += [message.entries for message in world.network.under_way()]
        known = world.referee.members_index
        members = _ids(world.referee.members)
        if node_id in members or any(world.nodes[member].disk.state.commit < known for member in members):
            return False
        return not any(
            entry.kind is not EntryKind.NORMAL and entry.index > known for entries in logs for entry in entries
        )

    # What an administrator does, and what may go wrong with it.

    def transfer(self) -> None:
        to = self._someone().id
        node = self._world.leader() or self._someone()
        self._do(node, lambda node: node.do(lambda raw: raw.transfer_leadership(to)))

    def change_members(self) -> None:
        """Add a learner, promote it, take a member out, or make a voter a learner."""
        node_id = self._someone().id
        members = self._world.referee.members
        if node_id in members.learners:
            kinds = (ChangeKind.ADD_VOTER, ChangeKind.ADD_VOTER, ChangeKind.REMOVE)
        elif node_id in members.voters:
            kinds = (ChangeKind.REMOVE, ChangeKind.REMOVE, ChangeKind.ADD_LEARNER)
        else:
            kinds = (ChangeKind.ADD_LEARNER, ChangeKind.ADD_LEARNER, ChangeKind.ADD_VOTER)
        changes = [Change(self._dice.pick(kinds), node_id)]
        self._propose(changes)
        if self._dice.chance(0.2):  # and back again, at once, in the same term
            self._world.after(self._dice.below(100_000), lambda _: self._propose([Change(kinds[0], node_id)]))

    def joint_change(self) -> None:
        kinds = (ChangeKind.ADD_VOTER, ChangeKind.ADD_VOTER, ChangeKind.ADD_LEARNER, ChangeKind.REMOVE)
        ids = self._dice.some(self._world.ids, 1 + self._dice.below(3))
        transition = self._dice.pick((Transition.AUTO, Transition.JOINT_IMPLICIT, Transition.JOINT_EXPLICIT))
        self._propose([Change(self._dice.pick(kinds), node_id) for node_id in ids], transition)
        if transition is Transition.JOINT_EXPLICIT:
            self._world.after(self._dice.below(500_000), self.leave_joint)
        if self._dice.chance(0.5):  # no time is worse for another leader, or for a handover that comes to nothing
            trouble = self._dice.pick((self.strand, self.isolate, self.transfer, self.rivals))
            self._world.after(self._dice.below(50_000), lambda _: None if self._is_over else trouble())

    def leave_joint(self, _: object = None) -> None:
        """Leave a joint configuration that is not left by itself."""
        leader = self._world.leader()
        if leader is not None and leader.raw.raft.tracker.members.is_joint:
            self._do(leader, lambda node: node.do(lambda raw: raw.propose_conf_change(ConfChange())))

    def _propose(self, changes: list[Change], transition: Transition = Transition.AUTO) -> None:
        leader = self._world.leader()
        if leader is None or not _keeps_voters(leader.raw.raft.tracker.members.incoming, changes):
            return
        book = {
            change.node_id: Member(
                address=f"node-{change.node_id}",
                store_id=self._world.nodes[change.node_id].disk.state.store_id,
            )
            for change in changes
            if change.kind in {ChangeKind.ADD_LEARNER, ChangeKind.ADD_VOTER}
        }
        change = ConfChange(tuple(changes), transition, encode_book(book))
        self._do(leader, lambda node: node.do(lambda raw: raw.propose_conf_change(change)))

    def step_down(self) -> None:
        self._do(self._world.leader() or self._someone(), lambda node: node.do(lambda raw: raw.step_down()))

    def rivals(self) -> None:
        """Let some nodes stand for election at the same time, though they heard of a leader."""
        for node_id in self._dice.some(self._world.ids, 1 + self._dice.below(3)):
            node = self._world.nodes[node_id]
            if self._dice.chance(0.7):
                self._do(node, lambda node: node.do(lambda raw: raw.forget_leader()))
            self._do(node, lambda node: node.do(lambda raw: raw.campaign()))

    def report(self) -> None:
        about = self._someone().id
        leader = self._world.leader() or self._someone()
        if about == leader.id:
            return
        if self._dice.chance(0.5):
            self._do(leader, lambda node: node.do(lambda raw: raw.report_unreachable(about)))
        else:
            self._do(leader, lambda node: node.do(lambda raw: raw.report_snapshot(about, ok=False)))

    def snapshot(self) -> None:
        self._do(self._someone(), lambda node: node.take_snapshot())

    def burst(self) -> None:
        """Append a lot at once, for nobody."""
        leader = self._world.leader()
        if leader is None:
            return
        numbers = [self._world.next_number() for _ in range(1 + self._dice.below(20))]
        payloads = [self._world.model.command(number, self._dice) for number in numbers]
        if self._dice.chance(0.3):
            self._do(leader, lambda node: node.do(lambda raw: raw.propose(*payloads)))
            return
        for data in payloads:
            self._do(leader, lambda node, data=data: node.do(lambda raw: raw.propose(data)))  # type: ignore[misc]

    def _someone(self) -> "Node":
        return self._world.nodes[self._dice.pick(self._world.ids)]

    def _do(self, node: "Node", move: "Callable[[Node], object]") -> None:
        if node.is_up and node.paused_until_us <= self._world.now_us:
            move(node)


def _ids(members: ConfState) -> set[int]:
    return {*members.voters, *members.voters_outgoing, *members.learners, *members.learners_next}


def _keeps_voters(voters: frozenset[int], changes: Sequence[Change]) -> bool:
    after = set(voters)
    for change in changes:
        (after.add if change.kind is ChangeKind.ADD_VOTER else after.discard)(change.node_id)
    return len(after) >= min(VOTERS_MIN, len(voters))
