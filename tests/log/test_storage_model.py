import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engram.log.changes import Append
from engram.log.consensus.types import ConfState, Entry, HardState, Snapshot, SnapshotMeta
from engram.log.members import Member, encode_book
from engram.log.sqlite import SqliteLog
from engram.log.storage import CompactedError, MemoryStorage

ALONE = ConfState(voters=(1,))
MEMORY = Path("/dev/shm")
"""Nobody pulls the plug here, so there is no need to wait for a disk."""

sizes = st.sampled_from((0, 1, 40, 500, 5000))


class SqliteLogIsMemoryStorage(RuleBasedStateMachine):
    """Whatever Raft may ask for, in any order, with the file closed and opened in between: both logs read the same.

    But the log on disk begins in memory where its window does, at the base or before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="engram-log-", dir=MEMORY if MEMORY.is_dir() else None))
        self.runner = asyncio.Runner()
        self.model = MemoryStorage(conf_state=ALONE)
        self.history: dict[int, Entry] = {}
        self.hard_state = HardState()
        self.log: SqliteLog

    @initialize(window_bytes_max=st.sampled_from((0, 2000, 1_000_000)))
    def open(self, window_bytes_max: int) -> None:
        self.window_bytes_max = window_bytes_max
        self.reopen(close=False)

    def teardown(self) -> None:
        self.runner.run(self.log.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    @rule(data=st.data(), writes=st.integers(1, 3))
    def append(self, data: st.DataObject, writes: int) -> None:
        appends: list[Append] = []
        for _ in range(writes):
            last = self.model.last_index()
            first = data.draw(st.integers(self.hard_state.commit + 1, last + 1), "first")
            term = max(self.hard_state.term, 1) + (1 if first <= last else data.draw(st.integers(0, 1), "newer term"))
            entries = [
                Entry(term=term, index=first + offset, data=b"%d" % term * size)
                for offset, size in enumerate(data.draw(st.lists(sizes, min_size=1, max_size=4), "sizes"))
            ]
            commit = data.draw(st.integers(self.hard_state.commit, first - 1), "commit")
            self.hard_state = HardState(term=term, vote=data.draw(st.integers(0, 3), "vote"), commit=commit)
            self.model.append(entries)
            self.model.set_hard_state(self.hard_state)
            self.history = {index: entry for index, entry in self.history.items() if index < first}
            self.history |= {entry.index: entry for entry in entries}
            appends.append(Append(entries=entries, hard_state=self.hard_state))
        self.runner.run(self.log.append(appends))

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        commit = data.draw(st.integers(self.hard_state.commit, self.model.last_index()), "commit")
        self.hard_state = HardState(self.hard_state.term, self.hard_state.vote, commit)
        self.model.set_hard_state(self.hard_state)
        self.runner.run(self.log.append([Append(hard_state=self.hard_state)]))

    @rule(share=st.floats(0, 1))
    def trim(self, share: float) -> None:
        self.log.trim(int(self.hard_state.commit * share))

    @precondition(lambda self: self.hard_state.commit >= self.model.first_index())
    @rule(data=st.data())
    def move_base(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(self.model.first_index(), self.hard_state.commit), "base")
        members = ConfState(voters=(1, index + 1))
        book = {1: Member(address=f"place:{index}")}
        self.model.create_snapshot(index, encode_book(book), members)
        self.model.compact(index)
        self.runner.run(self.log.move_base(index, members, book))

    @rule(data=st.data(), restarts=st.booleans())
    def install(self, data: st.DataObject, *, restarts: bool) -> None:
        commit = self.hard_state.commit
        term = max(self.hard_state.term, 1) + data.draw(st.integers(0, 1), "newer term")
        sent = [
            Entry(term=term, index=commit + 1 + offset, data=b"s%d" % term * size)
            for offset, size in enumerate(data.draw(st.lists(sizes, min_size=1, max_size=6), "sizes"))
        ]
        index = data.draw(st.integers(commit + 1, commit + len(sent)), "snapshot")
        part = data.draw(st.integers(0, len(sent)), "part")
        self.runner.run(self.log.stage(sent[:part]))
        if restarts:
            self.reopen()
        assert self.log.staged_index == commit + part
        self.runner.run(self.log.stage(sent[part:]))
        self.history = {one: entry for one, entry in self.history.items() if one <= commit}
        for newest in sorted({index, sent[-1].index}):
            self.hard_state = HardState(term=term, vote=data.draw(st.integers(0, 3), "vote"), commit=newest)
            book = encode_book({2: Member(address=f"place:{newest}")})
            snapshot = Snapshot(SnapshotMeta(newest, term, ConfState(voters=(1, 2))), book)
            self.model.apply_snapshot(snapshot)
            self.model.set_hard_state(self.hard_state)
            self.history |= {entry.index: entry for entry in sent if entry.index <= newest}
            self.runner.run(self.log.install(snapshot, self.hard_state))
            assert self.log.staged_index == sent[-1].index
            assert self.runner.run(self.read_all()) == [self.history[one] for one in sorted(self.history)]

    @precondition(lambda self: self.hard_state.commit > 0)
    @rule(data=st.data(), size=sizes)
    def rewrite(self, data: st.DataObject, size: int) -> None:
        indexes = data.draw(st.sets(st.integers(1, self.hard_state.commit), min_size=1, max_size=5), "indexes")
        for index in sorted(indexes):
            self.history[index] = Entry(term=self.history[index].term, index=index, data=b"r" * size)
        first = max(self.model.first_index(), min(indexes))
        self.model.append([self.history[index] for index in range(first, self.model.last_index() + 1)])
        self.runner.run(self.log.rewrite(dict.fromkeys(indexes, b"r" * size)))

    @rule()
    def reopen(self, *, close: bool = True) -> None:
        if close:
            self.runner.run(self.log.close())
        self.log = self.runner.run(
            SqliteLog.open(self.folder / "raft.db", members=ALONE, window_bytes_max=self.window_bytes_max)
        )

    @invariant()
    def both_read_the_same(self) -> None:
        log, model = self.log, self.model
        low, high = model.first_index(), model.last_index() + 1
        assert (log.state.base_index, log.last_index()) == (low - 1, high - 1)
        assert log.initial_state() == model.initial_state()
        assert log.snapshot() == model.snapshot()
        assert [log.term(index) for index in range(low - 1, high)] == [model.term(i) for i in range(low - 1, high)]
        assert list(log.entries(low, high)) == list(model.entries(low, high))

    @invariant()
    def the_window_is_a_run_of_the_history_that_reaches_the_base(self) -> None:
        log, first = self.log, self.log.first_index()
        assert first <= log.state.base_index + 1
        assert log.term(first - 1) == (self.history[first - 1].term if first > 1 else 0)
        assert list(log.entries(first, log.last_index() + 1)) == [
            self.history[index] for index in range(first, log.last_index() + 1)
        ]
        with pytest.raises(CompactedError):
            log.entries(first - 1, first)
        with pytest.raises(CompactedError):
            log.term(first - 2)

    @invariant()
    def all_of_the_history_is_readable(self) -> None:
        assert self.runner.run(self.read_all()) == [self.history[index] for index in sorted(self.history)]

    async def read_all(self) -> list[Entry]:
        return [entry async for batch in self.log.history() for entry in batch]


TestSqliteLogIsMemoryStorage = SqliteLogIsMemoryStorage.TestCase
TestSqliteLogIsMemoryStorage.settings = settings(stateful_step_count=25)
