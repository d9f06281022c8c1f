"""The invariants: what must hold after every step, seen by someone who sees all memories and all disks.

Each check costs the same however long the log is. That two entries with the same index and term are the same, with the
same log before them (Log Matching), follows by induction from what is checked when an entry gets into a log: that it is
the one that was first seen there, after an entry of the same term as then. So a term stands for a whole log up to it,
and comparing two of them compares the logs.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engram.log.consensus.confchange import check_configuration
from engram.log.consensus.raft import Raft
from engram.log.consensus.rawnode import Ready
from engram.log.consensus.tracker import ProgressState
from engram.log.consensus.types import NO_NODE, ConfState, Entry, Message, MessageType, Role
from engram.log.rows import State

if TYPE_CHECKING:
    from tests.simulation.machine import Model
    from tests.simulation.node import Node
    from tests.simulation.world import World

_TERM_BITS = 24
_FROM_LEADER = frozenset({MessageType.APPEND, MessageType.HEARTBEAT, MessageType.SNAPSHOT, MessageType.TIMEOUT_NOW})


class Foul(Exception):  # noqa: N818 - what a referee calls
    """An invariant does not hold."""


class Referee:
    """Remembers what was promised, and calls a foul when it is not kept."""

    def __init__(self, world: "World", model: "Model") -> None:
        self.committed: list[Entry] = []
        """What is committed, whoever knows it: entry n is at place n - 1."""
        self._world = world
        self._model = model
        self._born: dict[int, tuple[Entry, int]] = {}
        """By index and term: an entry as it was first seen, and the term of the one before it."""
        self._leaders: dict[int, int] = {}
        self._votes: dict[tuple[int, int], tuple[int, str]] = {}
        """By term and node: for whom, and the disk that it is on."""
        self._committed_in: dict[int, int] = {}
        """The highest index that was committed by the leader of a term."""
        self._config_indexes: list[int] = []
        self._configs: list[ConfState] = []
        """What the membership is from the entry at the same place of `_config_indexes` on."""

    @property
    def members(self) -> ConfState:
        """The newest membership that any node goes by."""
        return self._configs[-1]

    @property
    def members_index(self) -> int:
        """The entry that made it."""
        return self._config_indexes[-1]

    def readied(self, node: "Node", ready: Ready) -> None:
        """Check what a node is about to do."""
        if ready.soft_state is not None and ready.soft_state.role is Role.LEADER:
            self._elected(node)
        if ready.entries:
            self._handed_out(node, ready.entries)
        if ready.hard_state is not None:
            self._commit_moved(node)

    # Logs.

    def founded(self, members: ConfState, entry: Entry | None) -> None:
        """Note how the cluster begins: with `entry`, the first, or with an empty log."""
        self._config_indexes.append(0 if entry is None else entry.index)
        self._configs.append(members)
        if entry is not None:
            self._born[entry.index << _TERM_BITS | entry.term] = (entry, 0)
            self._commit(entry, in_term=entry.term)

    def _handed_out(self, node: "Node", entries: Sequence[Entry]) -> None:
        """Check entries that got into the log of a node: numbered, in the order of terms, and Log Matching."""
        index = entries[0].index
        term = node.raw.raft.log.term(index - 1)
        for entry in entries:
            if entry.index != index or entry.term < term:
                raise Foul(f"node {node.id}: {entry} at index {index}, after an entry of term {term}")
            self._seen(node.id, entry, term)
            term = entry.term
            index += 1
        if term > node.raw.raft.term:
            raise Foul(f"node {node.id}, in term {node.raw.raft.term}, has an entry of term {term}")

    def _seen(self, node_id: int, entry: Entry, term_before: int) -> None:
        key = entry.index << _TERM_BITS | entry.term
        known = self._born.get(key)
        if known is None:
            self._born[key] = (entry, term_before)
        elif known[1] != term_before:
            raise Foul(f"node {node_id}: before {entry} there is an entry of term {term_before}, not {known[1]}")
        elif known[0] is not entry:
            self._compare(node_id, known[0], entry)

    def _compare(self, node_id: int, known: Entry, entry: Entry) -> None:
        same = entry.term == known.term and entry.kind is known.kind
        if not same or (entry.data != known.data and not self._model.may_become(known, entry.data)):
            raise Foul(f"node {node_id} has {entry}, another one {known}: {entry.data!r}, {known.data!r}")

    def staged(self, rows: Sequence[Entry]) -> None:
        """Check rows that came with a snapshot: all of them are committed."""
        for row in rows:
            self._compare(0, self._known(row.index, "a snapshot"), row)

    def _known(self, index: int, who: object) -> Entry:
        if not 0 < index <= len(self.committed):
            raise Foul(f"{who}: {index} is not committed, only {len(self.committed)} are")
        return self.committed[index - 1]

    # The life of a process.

    def booted(self, node: "Node") -> None:
        """Check what a process starts from: nothing that it applied, and so nothing that it promised, is lost."""
        disk, raft = node.disk, node.raw.raft
        term = 0
        for row in disk.rows:
            self._seen(node.id, row, term)
            term = row.term
        for index in (node.applied_ever, raft.log.committed):
            if index and not disk.holds(index, self._known(index, f"node {node.id}").term):
                raise Foul(f"node {node.id} starts without entry {index}, which was committed")
        node.led_term = 0
        node.term_seen, node.vote_seen, node.committed_seen = raft.term, raft.vote, raft.log.committed
        node.members_seen = None

    def recorded(self, node_id: int, before: State, after: State) -> None:
        """Check what a transaction makes of a node's state: term and vote are kept, and the base is what it says."""
        if after.term < before.term or (after.term == before.term and before.vote not in {NO_NODE, after.vote}):
            raise Foul(
                f"node {node_id}: term {before.term}, vote {before.vote} on disk replaced by {after.term}, {after.vote}"
            )
        if after.commit < before.commit or after.commit > after.last_index:
            raise Foul(f"node {node_id}: commit {before.commit} on disk replaced by {after.commit}/{after.last_index}")
        if after.base_index != before.base_index:
            self._look_at_base(node_id, after)

    def _look_at_base(self, node_id: int, state: State) -> None:
        index = state.base_index
        if self._known(index, f"the base of node {node_id}").term != state.base_term:
            raise Foul(f"node {node_id}: the base {index}/{state.base_term} is not what was committed")
        members = self._configs[bisect_right(self._config_indexes, index) - 1]
        if members != state.base_members:
            raise Foul(f"node {node_id}: base {index} says {state.base_members}; there it was {members}")

    # Promises.

    def sent(self, node: "Node", message: Message) -> None:
        """Check a message that leaves now: whatever it promises is on disk."""
        kind = message.type
        if kind is MessageType.APPEND_RESPONSE:
            if not message.reject:
                self._acknowledged(node, message)
        elif kind is MessageType.VOTE_RESPONSE:
            if not message.reject:
                self._voted(node, message)
        elif kind in _FROM_LEADER and self._leaders.get(message.term) != node.id:
            raise Foul(f"node {node.id} sends {kind.name} in term {message.term}, which it does not lead")

    def _acknowledged(self, node: "Node", message: Message) -> None:
        disk = node.disk
        if disk.state.term < message.term:
            raise Foul(f"node {node.id} answers in term {message.term}, and {disk.state.term} is on disk")
        if disk.state.term > message.term:  # what it acknowledges was on disk, and may be replaced by now
            return
        if message.index > len(disk.rows):
            raise Foul(f"node {node.id} acknowledges {message.index}, and {len(disk.rows)} entries are on disk")
        leader = self._world.nodes.get(message.to)
        if leader is None or not leader.leads or message.index == 0:
            return
        log = leader.raw.raft.log
        if leader.raw.term == message.term and log.first_index - 1 <= message.index <= log.last_index:
            term = log.term(message.index)
            if not disk.holds(message.index, term):
                raise Foul(f"node {node.id} acknowledges {message.index}/{term}, and has another entry on disk")

    def _voted(self, node: "Node", message: Message) -> None:
        state = node.disk.state
        if state.term < message.term or (state.term == message.term and state.vote != message.to):
            raise Foul(
                f"node {node.id} votes for {message.to} in term {message.term}, and on disk it is"
                f" {state.vote} in term {state.term}"
            )
        given, store_id = self._votes.get((message.term, node.id), (message.to, state.store_id))
        if given != message.to and (store_id == state.store_id or not self._has_joined(node, message.to)):
            raise Foul(f"node {node.id} votes for {given} and for {message.to} in term {message.term}")
        self._votes[message.term, node.id] = message.to, state.store_id

    def _has_joined(self, node: "Node", candidate_id: int) -> bool:
        """Return whether the candidate knows this disk of the node: it was removed and added again, and is another node.

        A disk that was lost without that must not vote.
        """
        member = self._world.nodes[candidate_id].roster.book.get(node.id)
        return member is not None and member.store_id == node.disk.state.store_id

    # What is committed.

    def _commit_moved(self, node: "Node") -> None:
        """Check a commit index that moved: by a leader, on a quorum of disks; by others, to what a leader committed."""
        raft = node.raw.raft
        log = raft.log
        before, committed = node.committed_seen, log.committed
        if committed < before:
            raise Foul(f"node {node.id}: the commit index fell from {before} to {committed}")
        if committed == before:
            return
        node.committed_seen = committed
        if raft.role is Role.LEADER:
            self._look_at_quorum(raft, committed)
        if committed > len(self.committed):
            if raft.role is not Role.LEADER:
                raise Foul(f"node {node.id} follows, and commits {committed}; leaders did {len(self.committed)}")
            for index in range(len(self.committed) + 1, committed + 1):
                self._commit(self._born[index << _TERM_BITS | log.term(index)][0], in_term=raft.term)
        if log.term(committed) != self.committed[committed - 1].term:
            raise Foul(f"node {node.id} commits {committed}/{log.term(committed)}: that is another entry")

    def _look_at_quorum(self, raft: Raft, index: int) -> None:
        term = raft.log.term(index)
        if term != raft.term:
            raise Foul(f"leader {raft.id} counts entry {index} of term {term} in term {raft.term}")
        nodes = self._world.nodes
        members = raft.tracker.members
        for half in (members.incoming, members.outgoing):
            holding = sum(nodes[voter].disk.holds(index, term) for voter in half)
            if half and holding <= len(half) // 2:
                raise Foul(f"leader {raft.id} commits {index}/{term}: {holding} of {sorted(half)} have it on disk")

    def _commit(self, entry: Entry, *, in_term: int) -> None:
        self.committed.append(entry)
        self._committed_in[in_term] = entry.index
        self._model.committed(entry)

    def applied(self, node: "Node", entry: Entry) -> None:
        """Check an entry that a node applies: the next one, durable, and the same as everywhere."""
        index = entry.index
        if index != node.applied_index + 1:
            raise Foul(f"node {node.id} applies {index} after {node.applied_index}")
        if index > len(node.disk.rows):
            raise Foul(f"node {node.id} applies {index}, and only {len(node.disk.rows)} are on disk")
        known = self._known(index, f"node {node.id} applies")
        if known is not entry:
            self._compare(node.id, known, entry)
        node.applied_ever = max(node.applied_ever, index)

    def covered(self, node: "Node", entry: Entry) -> None:
        """Check an entry that is not applied any more: a snapshot took its place."""
        self._compare(node.id, self._known(entry.index, f"node {node.id} skips"), entry)

    def installed(self, node: "Node") -> None:
        """Note that a node has what a snapshot brought."""
        node.applied_ever = max(node.applied_ever, node.applied_index)

    def members_changed(self, node: "Node", index: int, members: ConfState) -> None:
        """Check the membership that an entry makes: the same on every node."""
        if index > self._config_indexes[-1]:
            self._config_indexes.append(index)
            self._configs.append(members)
        place = bisect_right(self._config_indexes, index) - 1
        if self._config_indexes[place] != index or self._configs[place] != members:
            raise Foul(f"node {node.id} makes {members} of entry {index}; there it is {self._configs[place]}")

    # One node, after each of its steps.

    def look(self, node: "Node") -> None:  # noqa: C901 - a call a claim would take too long
        """Check what can be seen of a node between two steps."""
        raft = node.raw.raft
        log = raft.log
        unstable = log.unstable
        entries = unstable.entries
        offset, last = unstable.offset, unstable.offset + len(entries) - 1
        if not (0 <= log.applied <= log.applying <= log.committed <= last == log.last_index):
            raise Foul(f"node {node.id}: {log.applied} <= {log.applying} <= {log.committed} <= {last} does not hold")
        if not offset <= unstable.offset_in_progress <= last + 1:
            raise Foul(
                f"node {node.id}: unstable {offset} <= {unstable.offset_in_progress} <= {last + 1} does not hold"
            )
        if entries and (entries[0].index != offset or entries[-1].index != last):
            raise Foul(f"node {node.id}: unstable entries from {offset} to {last} are numbered otherwise")
        if log.committed != node.committed_seen:
            raise Foul(f"node {node.id}: the commit index moved unseen")
        if unstable.snapshot is None and log.first_index > log.applied + 1:
            raise Foul(f"node {node.id}: the log begins at {log.first_index}, and {log.applied} is applied")
        if raft.term != node.term_seen or raft.vote != node.vote_seen:
            self._look_at_term(node, raft)
        if raft.tracker.members is not node.members_seen:
            node.members_seen = raft.tracker.members
            check_configuration(raft.tracker.members, raft.tracker.progress)
        if raft.role is Role.LEADER:
            self._look_at_leader(node, raft, last)
        elif raft.leader_id == raft.id or raft.transferee != NO_NODE:
            raise Foul(f"node {node.id}: follows itself, or hands over without leading")

    def _look_at_term(self, node: "Node", raft: Raft) -> None:
        if raft.term < node.term_seen:
            raise Foul(f"node {node.id}: the term fell from {node.term_seen} to {raft.term}")
        if raft.term == node.term_seen and node.vote_seen != NO_NODE:
            raise Foul(f"node {node.id}: the vote of term {raft.term} changed from {node.vote_seen} to {raft.vote}")
        node.term_seen, node.vote_seen = raft.term, raft.vote

    def _look_at_leader(self, node: "Node", raft: Raft, last: int) -> None:  # noqa: C901 - as above
        log = raft.log
        if node.led_term != raft.term:
            raise Foul(f"node {raft.id} leads in term {raft.term} unseen")
        if last != node.last_seen:
            if last < node.last_seen or log.term(node.last_seen) != node.last_term_seen:
                raise Foul(f"leader {raft.id} changes its own log at {node.last_seen}, within a term")
            node.last_seen, node.last_term_seen = last, log.last_term
        if raft.leader_id != raft.id or raft.id not in raft.tracker.members.voters:
            raise Foul(f"leader {raft.id} follows {raft.leader_id}, or is no voter of {raft.tracker.members}")
        progress_of = raft.tracker.progress
        for node_id, progress in progress_of.items():
            if not (0 <= progress.match < progress.next_index <= last + 1):
                raise Foul(f"leader {raft.id}, of {node_id}: {progress.match} < {progress.next_index} <= {last + 1}")
            inflights = progress.inflights
            if progress.state is not ProgressState.REPLICATE and len(inflights):
                raise Foul(f"leader {raft.id}, of {node_id}: {progress.state} with appends in flight")
            if inflights.bytes and sum(inflights.sizes()) != inflights.bytes:
                raise Foul(f"leader {raft.id}, of {node_id}: the window of appends does not add up")
        own = progress_of[raft.id].match
        if own > node.elected_at and own > len(node.disk.rows):
            raise Foul(f"leader {raft.id} counts itself for {own}, and has {len(node.disk.rows)} on disk")

    def _elected(self, node: "Node") -> None:
        """Check a node that leads from now on: alone in its term, and with all that was committed before (Completeness)."""
        raft = node.raw.raft
        term = raft.term
        if node.led_term == term:  # only what it knows of itself has changed
            return
        node.led_term, node.last_seen, node.last_term_seen = term, raft.log.last_index, raft.log.last_term
        if self._leaders.setdefault(term, raft.id) != raft.id:
            raise Foul(f"nodes {self._leaders[term]} and {raft.id} lead in term {term}")
        node.elected_at = raft.log.last_index
        index = max((last for in_term, last in self._committed_in.items() if in_term < term), default=0)
        if index and not raft.log.has(index, self.committed[index - 1].term) and index >= raft.log.first_index - 1:
            raise Foul(f"leader {raft.id} of term {term} lacks entry {index}, which was committed before")
