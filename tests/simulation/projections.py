"""The real events, the real ledger and the real erasing, on every node of a simulated cluster.

Each node folds its own rows into a store of its own, in batches of any size, from where it was or from the beginning,
and erases from its own log what its store says is forgotten. One more store, the reference, folds what is committed
and never erases. The nodes must agree with it: on the verdict on each entry, and on what readers see.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from engram import commands
from engram.commands import MessageDraft, Vectors
from engram.database import Connection
from engram.events import Chunk, Event, FactPinned, MessageAppended, SessionDeleted, decode, encode
from engram.log.consensus.types import Entry, EntryKind
from engram.projections import ledger, sqlite_reads, sqlite_writes
from engram.projections.digest import digest
from engram.projections.erasures import ERASED, Erasure, Kind, rewrite
from engram.projections.ledger import Decoded
from engram.projections.schema import TABLES
from engram.projections.sqlite_load import load
from engram.projections.verdicts import Outcome, Verdict
from tests.simulation.referee import Foul

if TYPE_CHECKING:
    from tests.simulation.dice import Dice
    from tests.simulation.node import Node

COMPARED_EVERY = 8
"""Entries between one comparison with the reference and the next: a digest reads the whole store."""

SESSIONS = ("a", "b")
MESSAGES = 12
"""Few names, so that commands are often about the same things."""

TRACES_MAX = 100_000


class Store:
    """The tables of a primary store in memory, driven without threads."""

    def __init__(self) -> None:
        self.connection: Connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.executescript(TABLES)
        self.index = 0
        """The last entry that was folded."""

    def fold(self, entries: Sequence[Entry]) -> list[list[Verdict]]:
        """Fold a batch, in one transaction."""
        decoded = [Decoded(entry.index, _events(entry)) for entry in entries]
        self.connection.execute("BEGIN")
        view = load(self.connection, ledger.needs(decoded))
        verdicts = ledger.fold(view, decoded)
        sqlite_writes.write(self.connection, view, applied_index=entries[-1].index, applied_term=entries[-1].term)
        self.connection.execute("COMMIT")
        self.index = entries[-1].index
        return verdicts


class Remembering:
    """The model: what the reference makes of all that is committed."""

    def __init__(self) -> None:
        self.digests: dict[int, Mapping[str, str]] = {}
        """What readers saw after the entry at an index."""
        self.verdicts: dict[int, Sequence[Verdict]] = {}
        self.left: dict[tuple[int, bytes], int] = {}
        """(index, payload) that an erasure left -> the deletion that it was for, the first one of them."""
        self._stores: list[Store] = []
        self.reference = self.new_store()
        self._counted_at: dict[int, int] = {}
        self._accepted: set[tuple[str, str]] = set()

    def command(self, number: int, dice: "Dice") -> bytes:
        return encode(_command(number, dice))

    def committed(self, entry: Entry) -> None:
        (verdicts,) = self.reference.fold([entry])
        self.verdicts[entry.index] = verdicts
        events = _events(entry)
        if events:
            self._counted_at.setdefault(events[0].at_ms, entry.index)
            self._count(entry.index, events, verdicts)
        if entry.index % COMPARED_EVERY == 0:
            self.digests[entry.index] = digest(self.reference.connection)

    def counted_at(self, number: int) -> int:
        return self._counted_at.get(number, 0)

    def may_become(self, entry: Entry, data: bytes) -> bool:
        return (entry.index, data) in self.left

    def newest(self) -> Mapping[str, str]:
        """Return what readers see after all that is committed."""
        return digest(self.reference.connection)

    def new_store(self) -> Store:
        """Return an empty store, which is closed with this."""
        self._stores.append(Store())
        return self._stores[-1]

    def close(self) -> None:
        for store in self._stores:
            store.connection.close()

    def erased(self, erasure: Erasure, payloads: Mapping[int, bytes]) -> None:
        """Note what a node leaves of entries."""
        for place in payloads.items():
            self.left[place] = min(self.left.get(place, erasure.log_index), erasure.log_index)

    def _count(self, index: int, events: Sequence[Event], verdicts: Sequence[Verdict]) -> None:
        """Check that a message is accepted once in a session's life, however often it is sent."""
        for event, verdict in zip(events, verdicts, strict=True):
            if verdict != (Outcome.ACCEPTED, index):  # of a refused entry the verdicts have no index
                continue
            if isinstance(event, SessionDeleted):
                self._accepted = {one for one in self._accepted if one[0] != event.session_id}
            if isinstance(event, MessageAppended):
                if (event.session_id, event.message_id) in self._accepted:
                    raise Foul(f"message {event.message_id} is accepted twice")
                self._accepted.add((event.session_id, event.message_id))


class Folding:
    """The store and the eraser of one node."""

    def __init__(self, model: Remembering, dice: "Dice") -> None:
        self._model = model
        self._dice = dice
        self._store = self._model.new_store()
        self._blanked_by = 0
        """The newest deletion that any folded row had lost something for: before it the reference knew more."""
        self._is_erasing = False

    def applied(self, node: "Node") -> None:
        """Fold what was applied, as far as the store gets just now."""
        if self._dice.chance(0.3):
            return
        self.catch_up(node)
        self._erase(node)

    def catch_up(self, node: "Node") -> None:
        """Fold all that was applied."""
        store, rows = self._store, node.disk.rows
        while store.index < node.applied_index:
            to_compare = COMPARED_EVERY - store.index % COMPARED_EVERY
            size = min(1 + self._dice.below(COMPARED_EVERY), to_compare, node.applied_index - store.index)
            batch = rows[store.index : store.index + size]
            for entry, verdicts in zip(batch, store.fold(batch), strict=True):
                self._compare(node, entry, verdicts)
            if store.index % COMPARED_EVERY == 0 and store.index >= self._blanked_by:
                self.check(node, self._model.digests[store.index])

    def check(self, node: "Node", expected: Mapping[str, str]) -> None:
        """Compare what readers see here with what they should see."""
        found = digest(self._store.connection)
        if found != expected:
            tables = [table for table in found if found[table] != expected[table]]
            raise Foul(f"node {node.id}: after entry {self._store.index} readers see other {tables} than the reference")

    def restarted(self, node: "Node") -> None:
        """Go on, or begin anew: after a machine went down nobody trusts the file."""
        if self._dice.chance(0.4):
            self.wiped()
        self._is_erasing = False
        self.applied(node)

    def wiped(self) -> None:
        self._store = self._model.new_store()
        self._blanked_by = 0
        self._is_erasing = False

    def is_clean(self) -> bool:
        """Return whether nothing waits to be erased."""
        return not sqlite_reads.erasures(self._store.connection, after=0, limit=1, log_is_clean=False)

    def _compare(self, node: "Node", entry: Entry, verdicts: Sequence[Verdict]) -> None:
        by = self._model.left.get((entry.index, entry.data), 0)
        if by:
            self._blanked_by = max(self._blanked_by, by)
            return
        if entry.index > self._blanked_by and verdicts != self._model.verdicts[entry.index]:
            raise Foul(f"node {node.id} says of {entry} {verdicts}, the reference {self._model.verdicts[entry.index]}")

    def _erase(self, node: "Node") -> None:
        """Begin to erase from the log what is forgotten, as `Eraser` does."""
        if self._is_erasing or self._store.index > node.applied_index:
            return
        connection = self._store.connection
        erasures = sqlite_reads.erasures(connection, after=0, limit=1 + self._dice.below(4), log_is_clean=False)
        if not erasures:
            return
        payloads: dict[int, bytes] = {}
        for erasure in erasures:
            traces = sqlite_reads.traces(connection, erasure, TRACES_MAX)
            now = {one.log_index: payloads.get(one.log_index, node.disk.rows[one.log_index - 1].data) for one in traces}
            whole = erasure.kind in {Kind.SESSION, Kind.ENTRY}
            effective = {one.log_index for one in traces if one.is_effective}
            left = rewrite(dict.fromkeys(now, b"\0") if whole else now, erasure, effective)
            self._model.erased(erasure, left)
            payloads |= left
        self._is_erasing = True
        store = self._store
        if payloads:
            node.rewrite(payloads, lambda: self._end(node, store, erasures))
        else:
            self._end(node, store, erasures)

    def _end(self, node: "Node", store: Store, erasures: Sequence[Erasure]) -> None:
        if store is not self._store:
            return
        store.connection.execute("BEGIN")
        sqlite_writes.drop_texts(store.connection, erasures)
        sqlite_writes.end_erasures(store.connection, erasures, log_only=True)
        store.connection.execute("COMMIT")
        self._is_erasing = False
        self._erase(node)


def check_all(nodes: Iterable["Node"], model: Remembering) -> None:
    """Check nodes that have applied everything: the same for readers, and the same left in their logs."""
    logs: list[list[bytes]] = []
    for node in nodes:
        machine = node.machine
        assert isinstance(machine, Folding)
        machine.check(node, model.newest())
        if not machine.is_clean():
            raise Foul(f"node {node.id}: there is still something to erase")
        logs.append([entry.data for entry in node.disk.rows])
        _check_forgotten(node, model)
    for log in logs[1:]:
        differing = [place + 1 for place, (one, other) in enumerate(zip(logs[0], log, strict=True)) if one != other]
        if differing:
            raise Foul(f"after all erasing the logs differ at {differing}")


def _check_forgotten(node: "Node", model: Remembering) -> None:
    """Check that the log of a node holds no text of a message that was deleted, nor of a session's earlier life."""
    connection = model.reference.connection
    begun = dict(connection.execute("SELECT session_id, session_key FROM sessions"))
    gone = set(connection.execute("SELECT session_id, message_id FROM tombstones JOIN sessions USING (session_key)"))
    for entry in node.disk.rows:
        for event in _events(entry):
            if not isinstance(event, MessageAppended | FactPinned):
                continue
            is_of_earlier_life = entry.index < begun.get(event.session_id, entry.index + 1)
            is_deleted = isinstance(event, MessageAppended) and (event.session_id, event.message_id) in gone
            if is_of_earlier_life or is_deleted:
                raise Foul(f"node {node.id}: entry {entry.index} still has {event}")


def _events(entry: Entry) -> Sequence[Event]:
    return decode(entry.data) if entry.kind is EntryKind.NORMAL and entry.data != ERASED else ()


def _command(number: int, dice: "Dice") -> list[Event]:  # noqa: PLR0911 - a case a command
    """Return what some client asks for; `number` is its time, by which it is known again."""
    session_id, message_id = dice.pick(SESSIONS), f"m{dice.below(MESSAGES)}"
    fact_id, text = f"f{dice.below(3)}", f"text {dice.below(3)}"
    match dice.below(12):
        case 0:
            return commands.delete_message(session_id=session_id, message_id=message_id, at_ms=number)
        case 1:
            return commands.pin_fact(session_id=session_id, fact_id=fact_id, text=text, tokens=2, at_ms=number)
        case 2:
            return commands.unpin_fact(session_id=session_id, fact_id=fact_id, at_ms=number)
        case 3 if dice.chance(0.4):
            return commands.delete_session(session_id=session_id, at_ms=number)
        case 4:
            return commands.embed_message(
                tenant="default",
                session_id=session_id,
                message_id=message_id,
                source_index=dice.below(20),
                vectors=_vectors(dice),
                at_ms=number,
            )
        case 5:
            return commands.change_visibility(
                session_id=session_id, visibility=dice.pick(("Shared", "Private")), at_ms=number
            )
        case _:
            return _messages(session_id, number, dice)


def _messages(session_id: str, number: int, dice: "Dice") -> list[Event]:
    drafts = [
        MessageDraft(f"m{place}", "user", f"text {dice.below(2)}", None, None, {}, 2)
        for place in dice.some(range(MESSAGES), 1 + dice.below(3))
    ]
    vectors = [_vectors(dice) if dice.chance(0.3) else None for _ in drafts]
    return commands.append_messages(session_id=session_id, drafts=drafts, vectors=vectors, at_ms=number)


def _vectors(dice: "Dice") -> Vectors:
    return Vectors(model="model", dimension=2, chunks=[Chunk(start=0, end=4, vector=bytes([dice.below(250), 0, 0, 0]))])
