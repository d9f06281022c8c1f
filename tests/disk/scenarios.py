"""What is done to a log while its disk fails: one change at a time, drawn from a generator."""

import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from engram.log.changes import Append, founded
from engram.log.consensus.types import ConfState, Entry, EntryKind, HardState, Snapshot, SnapshotMeta
from engram.log.members import Book, Member, encode_book
from engram.log.rows import State
from engram.log.sqlite import SqliteLog
from tests.disk.crash_vfs import PATH
from tests.disk.promises import Contents
from tests.log.logs import written_in_the_old_format

Act = Callable[[SqliteLog], Coroutine[Any, Any, Any]]

STARTS = ("standalone", "uninitialised", "old format")


@dataclass(frozen=True, slots=True)
class Change:
    """One call of the log."""

    name: str
    act: Act
    after: Sequence[Contents]
    """What the log holds after each of its transactions; the last of it is what the call promises."""
    forgotten: Sequence[bytes] = ()
    """What must be in no file when it has returned."""


def start_of(kind: str, rng: random.Random) -> tuple[ConfState | None, Contents]:
    """Return the members to open a new log with, and what it then holds; in the old format it is there already."""
    if kind == "uninitialised":
        return ConfState(), Contents(members=ConfState())
    if kind == "standalone":
        return None, Contents()
    first, last = rng.choice([(1, 9), (3, 9)])
    entries = [Entry(term=1, index=index, data=b"old-%d;" % index * 20) for index in range(first, last + 1)]
    voters = ConfState(voters=(1, 2))
    old = State(
        store_id="old",
        node_id=1,
        term=2,
        vote=1,
        commit=7,
        last_index=last,
        base_index=5,
        base_term=1,
        base_members=voters,
    )
    written_in_the_old_format(PATH, entries, old)
    held = {entry.index: entry for entry in entries}
    return None, Contents(entries=held, term=2, vote=1, commit=7, base_index=5, base_term=1, members=voters)


class Script:
    """Draws changes that suit a log which holds what is told."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._numbers = count(1)
        self._weights: dict[str, int] = {
            name: rng.choice([0, 1, 1, 3]) for name in ("truncate", "vote", "stage", "install", "rewrite", "move_base")
        }

    def change(self, now: Contents) -> Change:
        """Return the next change of a log that holds `now`."""
        possible: list[Callable[[Contents], Change]] = [self._append, self._append]
        if not now.entries and not now.members.voters and not now.cluster_id:
            possible = [self._bootstrap, self._adopt_cluster, self._append]
        elif not now.cluster_id:
            possible.append(self._adopt_cluster)
        weigh = self._weights
        possible += [self._vote] * weigh["vote"] + [self._stage] * weigh["stage"]
        if now.last > now.commit:
            possible += [self._truncate] * weigh["truncate"]
        if now.reached > now.commit:
            possible += [self._install] * (weigh["install"] + 1)
        if now.entries and (min(now.entries) <= now.commit or not _awaits(now)):
            possible += [self._rewrite] * weigh["rewrite"]
        if now.commit in now.entries and now.commit > now.base_index:
            possible += [self._move_base] * weigh["move_base"]
        return self._rng.choice(possible)(now)

    def _append(self, now: Contents) -> Change:
        term = max(1, now.term + (self._rng.random() < 0.1))
        appends = [self._batch(now.last + 1, term, now)]
        while self._rng.random() < 0.4:  # a group: what one adds a later one may replace
            ahead = now.appended(appends)
            first = self._rng.randint(max(ahead.commit, now.last) + 1, ahead.last + 1)
            term = max(term + (first <= ahead.last), ahead.term)
            appends.append(self._batch(first, term, ahead))
        return self._appending("append", appends, now)

    def _truncate(self, now: Contents) -> Change:
        first = self._rng.randint(now.commit + 1, now.last)
        return self._appending("truncate", [self._batch(first, now.term + 1, now)], now)

    def _vote(self, now: Contents) -> Change:
        state = HardState(now.term + self._rng.randint(1, 2), self._rng.randint(1, 3), now.commit)
        return self._appending("vote", [Append(hard_state=state)], now)

    def _stage(self, now: Contents) -> Change:
        reached = now.reached
        first = self._rng.choice([1, 1, 4]) if reached == 0 else reached + 1
        before = now.staged.get(reached) or now.entries.get(reached)
        term = max(1, now.term, before.term if before else 0)
        entries = self._entries(first, self._rng.randint(1, 5), term + (self._rng.random() < 0.2))
        return Change("stage", lambda log: log.stage(entries), [now.with_staged(entries)])

    def _install(self, now: Contents) -> Change:
        above = [index for index in now.staged if index > now.commit]
        index = self._rng.choice([max(above), max(above), self._rng.choice(above)])
        taken = now.staged[index].term
        state = HardState(max(now.term, taken), self._rng.randint(0, 3), index)
        if state.term == now.term:
            state = HardState(now.term, now.vote, index)
        members, book = self._membership()
        snapshot = Snapshot(SnapshotMeta(index, taken, members), encode_book(book))
        after = now.installed(index, members, book, state)
        return Change("install", lambda log: log.install(snapshot, state), [after])

    def _rewrite(self, now: Contents) -> Change:
        """Erase: in steps, then, where a truncation was, the whole file anew."""
        beyond = not _awaits(now) and self._rng.random() < 0.2
        top = now.last if beyond else now.commit
        indexes = [index for index in now.entries if index <= top] or [max(now.entries)]
        chosen = sorted(self._rng.sample(indexes, min(len(indexes), self._rng.randint(1, 6))))
        payloads = {index: b"erased-%d" % index for index in chosen}
        return rewriting(now, payloads)

    def _move_base(self, now: Contents) -> Change:
        index = self._rng.randint(max(now.base_index, min(now.entries)), now.commit)
        members, book = self._membership()
        return Change(
            "move_base", lambda log: log.move_base(index, members, book), [now.with_base(index, members, book)]
        )

    def _bootstrap(self, now: Contents) -> Change:
        members, book = self._membership()
        entry = founded(State(store_id="", node_id=1, base_members=ConfState()), "c", members, book).entries[0]
        after = now.founded("c", members, book, entry)
        return Change("bootstrap", lambda log: log.bootstrap("c", members, book), [after])

    def _adopt_cluster(self, now: Contents) -> Change:
        return Change("adopt_cluster", lambda log: log.adopt_cluster("c"), [replace(now, cluster_id="c")])

    def _appending(self, name: str, appends: Sequence[Append], now: Contents) -> Change:
        return Change(name, lambda log: log.append(appends), [now.appended(appends)])

    def _batch(self, first: int, term: int, now: Contents) -> Append:
        amount = self._rng.choice([1, 1, 2, 3, 8])
        entries = self._entries(first, amount, term)
        commit = self._rng.choice([now.commit, self._rng.randint(now.commit, entries[-1].index)])
        if commit > now.commit and _awaits(now):  # what is staged is committed elsewhere: the log gets the same
            entries = [now.staged[index] for index in range(first, first + amount) if index in now.staged]
            if first != now.commit + 1 or len(entries) < amount:
                entries, commit = self._entries(first, amount, term), now.commit
            term = entries[-1].term
        vote = now.vote if term == now.term else self._rng.randint(0, 3)
        return Append(entries=entries, hard_state=HardState(max(term, now.term), vote, commit))

    def _entries(self, first: int, amount: int, term: int) -> list[Entry]:
        return [self._entry(index, term) for index in range(first, first + amount)]

    def _entry(self, index: int, term: int) -> Entry:
        kind = EntryKind.CONF_CHANGE_V2 if self._rng.random() < 0.05 else EntryKind.NORMAL
        repeats = self._rng.choice([0, 1, 1, 5, 5, 40, 400])  # of 16 bytes: some fill pages of their own
        return Entry(term=term, index=index, kind=kind, data=b"secret-%08d;" % next(self._numbers) * repeats)

    def _membership(self) -> tuple[ConfState, Book]:
        voters = tuple(sorted(self._rng.sample(range(1, 6), self._rng.randint(1, 3))))
        return ConfState(voters=voters), {one: Member(address=f"node-{one}:{next(self._numbers)}") for one in voters}


def _awaits(now: Contents) -> bool:
    """Return whether there is anything staged that the log has not got."""
    return max(now.staged, default=0) > now.commit


def rewriting(now: Contents, payloads: dict[int, bytes]) -> Change:
    """Return the erasure of the entries that `payloads` has."""
    pending = sorted(payloads)
    steps = range(1, len(pending) + 1)  # wherever the steps end
    after = [now.rewritten({index: payloads[index] for index in pending[:step]}) for step in steps]
    last = after[-1]
    if last.rebuild_due:
        after.append(replace(last, rebuild_due=False))
    old = [held[index].data for held in (now.entries, now.staged) for index in pending if index in held]
    forgotten = [data for data in old if data.startswith((b"secret", b"old"))]
    return Change("rewrite", lambda log: log.rewrite(payloads), after, forgotten)
