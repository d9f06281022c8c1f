"""A cluster in one thread: nodes with disks that can be lost, a network that does as it is told, and a referee.

Nothing happens by itself. Every move is a method here, and after each the referee looks at all nodes: a broken promise
fails where it is broken, whatever the test was about.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from engram.log.consensus import invariants
from engram.log.consensus.quorum import VoteResult, joint_vote
from engram.log.consensus.raft import Config, Raft, Role
from engram.log.consensus.rawnode import RawNode
from engram.log.consensus.types import (
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageRefusedError,
    MessageType,
    ProposalDroppedError,
    ReadState,
    decode_conf_change,
)
from engram.log.storage import CompactedError, MemoryStorage, UnavailableError

ELECTION_TICKS = 10
MOVES_MAX = 10_000
"""More than any quiet cluster needs to come to rest."""


class Node:
    """One process and its disk. What it was asked to write and to apply waits until it is told to."""

    def __init__(self, config: Config, storage: MemoryStorage) -> None:
        self.id = config.id
        self.storage = storage
        self.raw = RawNode(config)
        self.appends: list[Message] = []
        self.applies: list[Message] = []
        self.read_states: list[ReadState] = []
        self.applied_index = config.applied
        self.conf_state = storage.initial_state()[1]
        self.covered_index = 0
        """The index of the last snapshot that came in: nothing up to there is applied any more."""

    @property
    def raft(self) -> Raft:
        return self.raw.raft

    @property
    def leads(self) -> bool:
        return self.raft.role is Role.LEADER

    def log(self) -> list[tuple[int, int]]:
        """Return (term, index) of each entry, durable or not."""
        log = self.raft.log
        return [(log.term(index), index) for index in range(log.first_index, log.last_index + 1)]


class Cluster:
    """Nodes 1 to n, all of them voters unless `conf_state` says otherwise. `messages` are on their way."""

    def __init__(
        self,
        size: int,
        *,
        conf_state: ConfState | None = None,
        configure: Callable[[Config], Config] = lambda config: config,
        rng: random.Random | None = None,
    ) -> None:
        members = conf_state or ConfState(voters=tuple(range(1, size + 1)))
        self.rng = rng or random.Random(7)
        self._configure = configure
        self.messages: list[Message] = []
        self.cut: set[tuple[int, int]] = set()
        """Pairs (from, to) whose messages are lost."""
        self.referee = Referee()
        self.nodes: dict[int, Node] = {}
        for node_id in range(1, size + 1):
            self.boot(node_id, MemoryStorage(conf_state=members))

    def __getitem__(self, node_id: int) -> Node:
        return self.nodes[node_id]

    @property
    def leaders(self) -> list[int]:
        return [node.id for node in self.nodes.values() if node.leads]

    @property
    def leader(self) -> Node:
        (node_id,) = self.leaders
        return self.nodes[node_id]

    # One move.

    def boot(self, node_id: int, storage: MemoryStorage) -> None:
        """Start a process, for the first time or again, on what its disk holds.

        It starts from its snapshot, and applies all that came after that anew.
        """
        config = Config(
            id=node_id,
            storage=storage,
            rng=self.rng,
            election_ticks=ELECTION_TICKS,
            heartbeat_ticks=1,
            applied=storage.snapshot().meta.index,
            async_storage_writes=True,
        )
        self.nodes[node_id] = Node(self._configure(config), storage)
        self._look(self.nodes[node_id])

    def crash(self, node_id: int) -> None:
        """Stop the process, and start it again: what was not written is gone."""
        self.boot(node_id, self.nodes[node_id].storage)

    def do(self, node_id: int, move: Callable[[RawNode], None]) -> bool:
        """Let the node make `move`; return False if it was a proposal that was dropped."""
        node = self.nodes[node_id]
        try:
            move(node.raw)
        except (ProposalDroppedError, MessageRefusedError):
            return False
        finally:
            self._look(node)
            self._take(node)
        return True

    def tick(self, node_id: int) -> None:
        self.do(node_id, RawNode.tick)

    def deliver(self, message: Message) -> None:
        """Let `message` arrive; it may have been taken from `messages` or not."""
        if (message.sender, message.to) not in self.cut and message.to in self.nodes:
            self.do(message.to, lambda raw: raw.step(message))

    def deliver_next(self, place: int = 0) -> None:
        self.deliver(self.messages.pop(place))

    def write(self, node_id: int) -> None:
        """Make the node's oldest write durable, and let go of what waited for it."""
        node = self.nodes[node_id]
        message = node.appends.pop(0)
        if message.term:
            node.storage.set_hard_state(HardState(message.term, message.vote, message.commit))
        if message.snapshot is not None:
            node.storage.apply_snapshot(message.snapshot)
            node.applied_index = message.snapshot.meta.index
            node.conf_state = message.snapshot.meta.conf_state
        node.storage.append(message.entries)
        self._release(node, message.responses)

    def apply(self, node_id: int) -> None:
        """Let the node apply what it was handed, in full."""
        node = self.nodes[node_id]
        message = node.applies.pop(0)
        for entry in message.entries:
            if entry.index <= node.covered_index:
                continue
            assert entry.index == node.applied_index + 1, "applied out of order"
            self.referee.applied(node, entry)
            node.applied_index = entry.index
            if entry.kind is not EntryKind.NORMAL:
                change = decode_conf_change(entry)
                node.conf_state = node.raw.apply_conf_change(change)
        self._release(node, message.responses)

    def compact(self, node_id: int, *, kept: int = 0) -> None:
        """Make a snapshot of what the node has applied, and forget the entries before it but for the last `kept`."""
        node = self.nodes[node_id]
        index, storage = node.applied_index, node.storage
        if storage.snapshot().meta.index < index <= storage.last_index():
            storage.create_snapshot(index, b"", node.conf_state)
        if storage.first_index() <= storage.snapshot().meta.index - kept:
            storage.compact(storage.snapshot().meta.index - kept)

    def step_once(self) -> None:
        """Make the one move that is due: the oldest write, else what is to be applied, else the oldest message."""
        for node in self.nodes.values():
            if node.appends:
                self.write(node.id)
                return
        for node in self.nodes.values():
            if node.applies:
                self.apply(node.id)
                return
        self.deliver_next()

    # Many moves.

    def settle(self, *, only: Iterable[int] | None = None) -> None:
        """Write, apply and deliver, in turn, until nothing is left to do; without time passing."""
        ids = sorted(self.nodes) if only is None else sorted(only)
        for _ in range(MOVES_MAX):
            if not self._settle_once(ids):
                return
        raise AssertionError("the cluster does not come to rest")

    def elect(self, node_id: int) -> None:
        """Let the node campaign, and win."""
        self.do(node_id, RawNode.campaign)
        self.settle()
        assert self.nodes[node_id].leads

    def propose(self, node_id: int, data: bytes) -> bool:
        return self.do(node_id, lambda raw: raw.propose(data))

    def pass_time(self, ticks: int) -> None:
        """Let all nodes tick, and settle after each."""
        for _ in range(ticks):
            for node_id in sorted(self.nodes):
                self.tick(node_id)
            self.settle()

    def isolate(self, *node_ids: int) -> None:
        """Lose all messages between these nodes and the others."""
        self.messages = [
            message for message in self.messages if (message.sender in node_ids) is (message.to in node_ids)
        ]
        others = set(self.nodes) - set(node_ids)
        self.cut |= {(one, other) for one in node_ids for other in others}
        self.cut |= {(other, one) for one in node_ids for other in others}

    def connect_only(self, links: Iterable[tuple[int, int]]) -> None:
        """Lose all messages but those on `links`, which work both ways."""
        good = {pair for one, other in links for pair in ((one, other), (other, one))}
        self.cut = {(one, other) for one in self.nodes for other in self.nodes if (one, other) not in good}

    def heal(self) -> None:
        self.cut = set()

    def _settle_once(self, ids: Sequence[int]) -> bool:
        moved = False
        for node_id in ids:
            while self.nodes[node_id].appends:
                self.write(node_id)
                moved = True
            while self.nodes[node_id].applies:
                self.apply(node_id)
                moved = True
        waiting, self.messages = self.messages, []
        for message in waiting:
            if message.to in ids or message.to not in self.nodes:
                self.deliver(message)
                moved = True
            else:
                self.messages.append(message)
        return moved

    def _release(self, node: Node, responses: Sequence[Message]) -> None:
        for response in responses:
            if response.to == node.id:
                self.do(node.id, lambda raw, response=response: raw.step(response))  # type: ignore[misc]
            else:
                self.referee.sent(node, response)
                self.messages.append(response)
        self._look(node)
        self._take(node)

    def _take(self, node: Node) -> None:
        while node.raw.has_ready():
            ready = node.raw.ready()
            node.read_states.extend(ready.read_states)
            for message in ready.messages:
                if message.to == LOCAL_APPEND_THREAD:
                    node.appends.append(message)
                    if message.snapshot is not None:
                        node.covered_index = message.snapshot.meta.index
                elif message.to == LOCAL_APPLY_THREAD:
                    node.applies.append(message)
                else:
                    self.referee.sent(node, message)
                    self.messages.append(message)

    def _look(self, node: Node) -> None:
        invariants.check(node.raft)
        self.referee.look(node, self.nodes)


class Referee:
    """Remembers what was promised by whom, and fails the test when two promises do not go together."""

    def __init__(self) -> None:
        self.committed: dict[int, Entry] = {}
        """What some node has applied, by index: from then on it is the truth."""
        self._leaders: dict[int, int] = {}
        self._votes: dict[tuple[int, int], int] = {}
        self._commits: dict[Raft, int] = {}

    def applied(self, node: Node, entry: Entry) -> None:
        """State machine safety: what is applied at an index is the same everywhere, for ever."""
        known = self.committed.setdefault(entry.index, entry)
        assert known == entry, f"node {node.id} applied {entry}, another one {known}"
        assert node.storage.last_index() >= entry.index, "applied before it was durable here"

    def sent(self, node: Node, message: Message) -> None:
        """A promise leaves only when it can be kept after a crash; a vote is given once."""
        state = node.storage.initial_state()[0]
        if message.type is MessageType.VOTE_RESPONSE and not message.reject:
            assert (state.term, state.vote) == (message.term, message.to), "a vote left before it was durable"
            given = self._votes.setdefault((message.term, node.id), message.to)
            assert given == message.to, f"node {node.id} voted for {given} and for {message.to} in term {message.term}"
        if message.type is MessageType.APPEND_RESPONSE and not message.reject:
            assert state.term >= message.term, "an acknowledgement left before its term was durable"
            assert node.storage.last_index() >= message.index, "an acknowledgement left before the entries were durable"

    def look(self, node: Node, nodes: dict[int, Node]) -> None:
        """Check what only someone who sees all disks can check."""
        raft = node.raft
        before = self._commits.get(raft, raft.log.committed)
        self._commits[raft] = raft.log.committed
        assert raft.log.committed >= before, "the commit index fell"
        if node.leads:
            self._look_at_leader(raft)
            if raft.log.committed > before:
                self._look_at_commit(raft, nodes)

    def _look_at_leader(self, raft: Raft) -> None:
        if self._leaders.get(raft.term) == raft.id:
            return
        assert raft.term not in self._leaders, f"two leaders in term {raft.term}"
        self._leaders[raft.term] = raft.id
        for index, entry in self.committed.items():  # leader completeness
            if index >= raft.log.first_index:
                assert raft.log.term(index) == entry.term, f"leader {raft.id} lacks committed entry {index}"

    def _look_at_commit(self, raft: Raft, nodes: dict[int, Node]) -> None:
        index = raft.log.committed
        term = raft.log.term(index)
        assert term == raft.term, "an entry of an older term was committed by counting"
        held = {node.id: _holds(node.storage, index, term) for node in nodes.values()}
        members = raft.tracker.members
        assert joint_vote(members.incoming, members.outgoing, held) is VoteResult.WON, (
            f"entry {index} was committed though only {[node_id for node_id in held if held[node_id]]} hold it"
        )


def _holds(storage: MemoryStorage, index: int, term: int) -> bool:
    try:
        return storage.term(index) == term
    except CompactedError:
        return True
    except UnavailableError:
        return False


def options(**changes: object) -> Callable[[Config], Config]:
    """Return a `configure` that overrides these options of every node."""
    return lambda config: replace(config, **changes)  # type: ignore[arg-type]
