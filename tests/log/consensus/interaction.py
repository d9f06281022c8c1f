"""Runs the directives of an interaction script: a handful of nodes, and the messages between them, one move at a time."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import msgspec

from engram.log.consensus import invariants
from engram.log.consensus.raft import Config
from engram.log.consensus.rawnode import RawNode
from engram.log.consensus.readonly import ReadOnlyOption
from engram.log.consensus.types import (
    LOCAL_APPEND_THREAD,
    UNLIMITED,
    ConfChange,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageRefusedError,
    MessageType,
    ProposalDroppedError,
    Snapshot,
    SnapshotMeta,
    Transition,
    decode_conf_change,
    is_local_thread,
)
from engram.log.storage import MemoryStorage
from tests.log.consensus.datadriven import Directive
from tests.log.consensus.describe import (
    MESSAGE_NAMES,
    ROLE_NAMES,
    describe_entries,
    describe_message,
    describe_progress,
    describe_ready,
    parse_changes,
)

ELECTION_TICKS = 3
SILENT = "NONE"
_TYPES_OF_NAMES = {name: kind for kind, name in MESSAGE_NAMES.items()}


class ScriptStorage(MemoryStorage):
    """Its newest snapshot is the state of an application that strings together all that it applies."""

    def __init__(self, first: Snapshot) -> None:
        super().__init__()
        self.history = [first]

    def snapshot(self) -> Snapshot:
        return self.history[-1]


class Node:
    def __init__(self, node_id: int, snapshot: Snapshot, config: Callable[[int, ScriptStorage], Config]) -> None:
        self.storage = ScriptStorage(snapshot)
        if snapshot.meta.index:
            self.storage.apply_snapshot(snapshot)
        self.config = config(node_id, self.storage)
        self.raw = RawNode(self.config)
        self.append_work: list[Message] = []
        self.apply_work: list[Message] = []

    def append(self, hard_state: HardState | None, entries: Sequence[Entry], snapshot: Snapshot | None) -> None:
        if hard_state is not None:
            self.storage.set_hard_state(hard_state)
        if snapshot is not None:
            assert not entries
            self.storage.apply_snapshot(snapshot)
        self.storage.append(entries)

    def apply(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            last = self.storage.history[-1]
            state, data = last.meta.conf_state, entry.data
            if entry.kind is not EntryKind.NORMAL:
                change = decode_conf_change(entry)
                state, data = self.raw.apply_conf_change(change), change.context
            meta = SnapshotMeta(entry.index, entry.term, state)
            self.storage.history.append(Snapshot(meta, last.data + data))


class Words(Protocol):
    def __call__(self, key: str) -> str: ...


class Interaction:
    """One script's world. Every node is checked for its invariants after every move."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.messages: list[Message] = []
        self.level = "DEBUG"
        self._lines: list[str] = []
        self._indent = ""

    def handle(self, directive: Directive) -> str:
        self._lines = []
        handler = getattr(self, f"do_{directive.command.replace('-', '_')}", None)
        assert handler is not None, f"unknown command {directive.command}"
        try:
            handler(directive)
        except ProposalDroppedError:
            self._lines.append("raft proposal dropped")
        for node in self.nodes.values():
            invariants.check(node.raw.raft)
        if not self._lines or self.level == SILENT:
            return "ok"
        return "\n".join(self._lines) + "\n"

    # The commands.

    def do_log_level(self, directive: Directive) -> None:
        self.level = directive.arguments[0].key.upper()
        self._lines = []

    def do_add_nodes(self, directive: Directive) -> None:
        def values(key: str) -> tuple[str, ...]:
            argument = directive.argument(key)
            return () if argument is None else argument.values

        state = ConfState(tuple(map(int, values("voters"))), tuple(map(int, values("learners"))))
        index, content = int("".join(values("index")) or 0), "".join(values("content"))
        snapshot = Snapshot(SnapshotMeta(index, 1 if index else 0, state), content.encode())
        config = _config_maker(lambda key: "".join(values(key)))
        for _ in range(directive.ids()[0]):
            node_id = len(self.nodes) + 1
            self.nodes[node_id] = Node(node_id, snapshot, config)

    def do_campaign(self, directive: Directive) -> None:
        self._node(directive).raw.campaign()

    def do_propose(self, directive: Directive) -> None:
        self._node(directive).raw.propose(directive.arguments[1].key.encode())

    def do_propose_conf_change(self, directive: Directive) -> None:
        transition, simple = directive.argument("transition"), directive.argument("v1")
        names = {
            "auto": Transition.AUTO,
            "implicit": Transition.JOINT_IMPLICIT,
            "explicit": Transition.JOINT_EXPLICIT,
        }
        change = ConfChange(parse_changes(directive.text), names[transition.value if transition else "auto"])
        node = self.nodes[directive.ids()[0]]
        node.raw.propose_conf_change(change, simple=simple is not None and simple.value == "true")

    def do_process_ready(self, directive: Directive) -> None:
        self._for_each(directive, "handling Ready", self.process_ready)

    def do_process_append_thread(self, directive: Directive) -> None:
        self._for_each(directive, "processing append thread", self.process_append)

    def do_process_apply_thread(self, directive: Directive) -> None:
        self._for_each(directive, "processing apply thread", self.process_apply)

    def do_deliver_msgs(self, directive: Directive) -> None:
        kind = directive.argument("type")
        wanted = None if kind is None else _TYPES_OF_NAMES[kind.value]
        delivered = 0
        for argument in directive.arguments:
            if argument.key == "drop":
                for node_id in map(int, argument.values):
                    delivered += self.deliver(node_id, kind=wanted, drop=True)
            elif not argument.values:
                delivered += self.deliver(int(argument.key), kind=wanted)
        if not delivered:
            self._say("no messages")

    def do_stabilize(self, directive: Directive) -> None:
        level, self.level = self.level, self.level
        override = directive.argument("log-level")
        ids = directive.ids() or list(self.nodes)
        while any([self._stabilize_ready(ids), self._stabilize_messages(ids), self._stabilize_threads(ids)]):
            pass
        if override is not None and override.value.upper() == SILENT:
            self._lines = []
        self.level = level

    def do_tick_election(self, directive: Directive) -> None:
        node = self._node(directive)
        for _ in range(node.config.election_ticks):
            node.raw.tick()

    def do_tick_heartbeat(self, directive: Directive) -> None:
        node = self._node(directive)
        for _ in range(node.config.heartbeat_ticks):
            node.raw.tick()

    def do_set_randomized_election_timeout(self, directive: Directive) -> None:
        timeout = directive.argument("timeout")
        assert timeout is not None
        self._node(directive).raw.raft.randomized_election_ticks = int(timeout.value)

    def do_raft_log(self, directive: Directive) -> None:
        storage = self._node(directive).storage
        first, last = storage.first_index(), storage.last_index()
        if last < first:
            self._say(f"log is empty: first index={first}, last index={last}")
        else:
            self._say(describe_entries(storage.entries(first, last + 1)))

    def do_raft_state(self, directive: Directive) -> None:
        for node_id, node in self.nodes.items():
            status = node.raw.status()
            kind = "Voter" if node_id in status.members.voters else "Non-Voter"
            role, leader_id = ROLE_NAMES[status.soft_state.role], status.soft_state.leader_id
            self._say(f"{node_id}: {role} ({kind}) Term:{status.hard_state.term} Lead:{leader_id}")

    def do_status(self, directive: Directive) -> None:
        self._say(describe_progress(self._node(directive).raw.status().progress))

    def do_compact(self, directive: Directive) -> None:
        self._node(directive).storage.compact(directive.ids()[1])
        self.do_raft_log(directive)

    def do_send_snapshot(self, directive: Directive) -> None:
        sender, to = directive.ids()
        node = self.nodes[sender]
        message = Message(
            type=MessageType.SNAPSHOT, sender=sender, to=to, term=node.raw.term, snapshot=node.storage.history[-1]
        )
        self.messages.append(message)
        self._say(describe_message(message))

    def do_report_unreachable(self, directive: Directive) -> None:
        reporter, lost = directive.ids()
        self.nodes[reporter].raw.report_unreachable(lost)

    def do_transfer_leadership(self, directive: Directive) -> None:
        sender, to = directive.argument("from"), directive.argument("to")
        assert sender is not None
        assert to is not None
        self.nodes[int(sender.value)].raw.transfer_leadership(int(to.value))

    def do_forget_leader(self, directive: Directive) -> None:
        self._node(directive).raw.forget_leader()

    # The moves.

    def process_ready(self, node_id: int) -> None:
        node = self.nodes[node_id]
        ready = node.raw.ready()
        self._say(describe_ready(ready))
        if not node.config.async_storage_writes:
            node.append(ready.hard_state, ready.entries, ready.snapshot)
            node.apply(ready.committed_entries)
        for message in ready.messages:
            if not is_local_thread(message.to):
                self.messages.append(message)
            elif message.to == LOCAL_APPEND_THREAD:
                node.append_work.append(message)
            else:
                node.apply_work.append(message)
        if not node.config.async_storage_writes:
            node.raw.advance()

    def process_append(self, node_id: int) -> None:
        node = self.nodes[node_id]
        if not node.append_work:
            self._say("no append work to perform")
            return
        message = node.append_work.pop(0)
        hard_state = HardState(message.term, message.vote, message.commit) if message.term else None
        node.append(hard_state, message.entries, message.snapshot)
        self._respond(message)

    def process_apply(self, node_id: int) -> None:
        node = self.nodes[node_id]
        if not node.apply_work:
            self._say("no apply work to perform")
            return
        message = node.apply_work.pop(0)
        node.apply(message.entries)
        self._respond(message)

    def deliver(self, node_id: int, *, kind: MessageType | None = None, drop: bool = False) -> int:
        taken = [message for message in self.messages if self._is_for(message, node_id, kind, drop=drop)]
        self.messages = [message for message in self.messages if message not in taken]
        for message in taken:
            self._say(f"{'dropped: ' if drop else ''}{describe_message(message)}")
            if drop:
                continue
            try:
                self.nodes[node_id].raw.step(message)
            except MessageRefusedError:
                self._say("raft: cannot step as peer not found")
            except ProposalDroppedError:
                self._say("raft proposal dropped")
        return len(taken)

    # What the above needs.

    def _node(self, directive: Directive) -> Node:
        return self.nodes[directive.ids()[0]]

    def _is_for(self, message: Message, node_id: int, kind: MessageType | None, *, drop: bool) -> bool:
        is_local = message.sender == message.to or is_local_thread(message.sender) or is_local_thread(message.to)
        return message.to == node_id and not (drop and is_local) and kind in {None, message.type}

    def _respond(self, message: Message) -> None:
        self._say("Processing:")
        self._say(describe_message(msgspec.structs.replace(message, responses=())))
        self._say("Responses:")
        for response in message.responses:
            self._say(describe_message(response))
        self.messages.extend(message.responses)

    def _for_each(self, directive: Directive, what: str, move: Callable[[int], None]) -> None:
        ids = directive.ids()
        if len(ids) == 1:
            move(ids[0])
            return
        for node_id in ids:
            with self._under(f"> {node_id} {what}"):
                move(node_id)

    def _stabilize_ready(self, ids: Sequence[int]) -> bool:
        moved = False
        for node_id in ids:
            if self.nodes[node_id].raw.has_ready():
                moved = True
                with self._under(f"> {node_id} handling Ready"):
                    self.process_ready(node_id)
        return moved

    def _stabilize_messages(self, ids: Sequence[int]) -> bool:
        moved = False
        for node_id in ids:
            if any(message.to == node_id for message in self.messages):
                moved = True
                with self._under(f"> {node_id} receiving messages"):
                    self.deliver(node_id)
        return moved

    def _stabilize_threads(self, ids: Sequence[int]) -> bool:
        moved = False
        for node_id in ids:
            if self.nodes[node_id].append_work:
                moved = True
                with self._under(f"> {node_id} processing append thread"):
                    while self.nodes[node_id].append_work:
                        self.process_append(node_id)
        for node_id in ids:
            if self.nodes[node_id].apply_work:
                moved = True
                with self._under(f"> {node_id} processing apply thread"):
                    while self.nodes[node_id].apply_work:
                        self.process_apply(node_id)
        return moved

    @contextmanager
    def _under(self, heading: str) -> Iterator[None]:
        self._say(heading)
        before, self._indent = self._indent, self._indent + "  "
        yield
        self._indent = before

    def _say(self, text: str) -> None:
        self._lines.extend(self._indent + line for line in text.rstrip("\n").split("\n"))


def _config_maker(word: Words) -> Callable[[int, ScriptStorage], Config]:
    def make(node_id: int, storage: ScriptStorage) -> Config:
        return Config(
            id=node_id,
            storage=storage,
            rng=random.Random(node_id),
            election_ticks=ELECTION_TICKS,
            heartbeat_ticks=1,
            applied=int(word("index") or 0),
            async_storage_writes=word("async-storage-writes") == "true",
            max_committed_bytes_per_ready=int(word("max-committed-size-per-ready") or UNLIMITED),
            max_inflight_messages=int(word("inflight") or UNLIMITED),
            check_quorum=word("checkquorum") == "true",
            pre_vote=word("prevote") == "true",
            step_down_on_removal=word("step-down-on-removal") == "true",
            read_only_option=ReadOnlyOption(word("read-only") or "safe"),
            refusals_tell_commit=False,
            conf_change_validation=word("disable-conf-change-validation") != "true",
        )

    return make
