"""Rows of a snapshot come in while the log goes on: whatever happens in between, what is installed is right."""

import asyncio
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engram.log.changes import Append
from engram.log.consensus.types import ConfState, Entry, HardState
from engram.log.sqlite import SqliteLog
from tests.log.logs import retained, snapshot_at
from tests.projections.histories import scratch_folder

PAYLOADS = st.sampled_from((b"", b"a", b"b" * 300))


class Staging(RuleBasedStateMachine):
    """A follower of a cluster whose committed log only grows; its own log may end in what nobody committed."""

    def __init__(self) -> None:
        super().__init__()
        self.committed: list[Entry] = []
        """The cluster's log, as any sender has it: nothing is erased there."""
        self.term = 1
        self.own: dict[int, Entry] = {}
        self.state = HardState()
        self.staged: dict[int, Entry] = {}
        self.folder = scratch_folder()
        self.runner = asyncio.Runner()
        self.open()

    def open(self) -> None:
        path = Path(self.folder.name) / "raft.db"
        self.log = self.runner.run(SqliteLog.open(path, members=ConfState(voters=(1, 2))))

    def teardown(self) -> None:
        self.runner.run(self.log.close())
        self.runner.close()
        self.folder.cleanup()

    @property
    def commit(self) -> int:
        return self.state.commit

    @property
    def reached(self) -> int:
        """Up to where the follower has committed rows, staged ones included."""
        continues = self.staged and (min(self.staged) <= self.commit + 1 or self.commit == 0)
        return max(*self.staged, self.commit) if continues else self.commit

    @rule(payloads=st.lists(PAYLOADS, min_size=1, max_size=4), newer=st.booleans())
    def cluster_commits(self, payloads: list[bytes], *, newer: bool) -> None:
        self.term += newer
        first = len(self.committed) + 1
        self.committed += [Entry(self.term, first + place, data=data) for place, data in enumerate(payloads)]

    @rule(data=st.data())
    def stage(self, data: st.DataObject) -> None:
        reached = self.reached
        start = data.draw(st.integers(max(reached - 2, 0), min(reached, len(self.committed))), "start")
        rows = self.committed[start : data.draw(st.integers(start, len(self.committed)), "end")]
        self.runner.run(self.log.stage(rows))
        news = {row.index: row for row in rows if row.index > reached}
        if news:
            self.staged = news if reached == self.commit else self.staged | news

    @precondition(lambda self: len(self.committed) > self.commit)
    @rule(data=st.data())
    def follow(self, data: st.DataObject) -> None:
        """Take entries of the leader, and commit some of them."""
        last = data.draw(st.integers(self.commit + 1, len(self.committed)), "last")
        self.write(self.committed[self.commit : last], data.draw(st.integers(self.commit, last), "commit"))

    @rule(payloads=st.lists(PAYLOADS, min_size=1, max_size=3))
    def take_what_nobody_commits(self, payloads: list[bytes]) -> None:
        first = max(self.own, default=0) + 1
        term = max(self.state.term, 1)
        self.write([Entry(term, first + place, data=data) for place, data in enumerate(payloads)], self.commit)

    def write(self, entries: list[Entry], commit: int) -> None:
        self.state = HardState(max(self.state.term, entries[-1].term), 0, commit)
        self.runner.run(self.log.append([Append(entries=entries, hard_state=self.state)]))
        self.own = {index: entry for index, entry in self.own.items() if index < entries[0].index}
        self.own |= {entry.index: entry for entry in entries}

    @precondition(lambda self: self.commit > 0)
    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        indexes = data.draw(st.sets(st.integers(1, self.commit), min_size=1, max_size=3), "indexes")
        self.runner.run(self.log.rewrite(dict.fromkeys(indexes, b"")))
        for rows in (self.own, self.staged):
            rows |= {index: Entry(rows[index].term, index) for index in indexes & rows.keys()}

    @precondition(lambda self: self.reached > self.commit)
    @rule(data=st.data())
    def install(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(self.commit + 1, self.reached), "index")
        term = self.staged[index].term
        state = HardState(max(self.state.term, term), 0, index)
        self.runner.run(self.log.install(snapshot_at(index, term), state))
        kept = {one: entry for one, entry in self.own.items() if one <= self.commit}
        self.own = kept | {one: row for one, row in self.staged.items() if self.commit < one <= index}
        self.state = state
        if index == max(self.staged):
            self.staged = {}

    @rule()
    def restart(self) -> None:
        self.runner.run(self.log.close())
        self.open()
        if self.reached == self.commit:
            self.staged = {}

    @invariant()
    def what_is_known_to_be_committed_is_the_clusters(self) -> None:
        state = self.log.state
        assert (state.term, state.commit, state.last_index) == (
            self.state.term,
            self.commit,
            max(self.own, default=0),
        )
        assert self.log.staged_index == self.reached
        assert self.runner.run(retained(self.log)) == [self.own[index] for index in sorted(self.own)]
        for index in range(1, self.commit + 1):
            assert self.own[index].data in {b"", self.committed[index - 1].data}
            assert self.own[index].term == self.committed[index - 1].term


TestStaging = Staging.TestCase
TestStaging.settings = settings(stateful_step_count=20)
