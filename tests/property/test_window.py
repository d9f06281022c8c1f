"""The window in memory is a run of the log's newest entries that reaches the base, whatever was done to it."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engram.log.consensus.types import Entry
from engram.log.storage import CompactedError, UnavailableError
from engram.log.window import ENTRY_OVERHEAD_BYTES, Window

sizes = st.lists(st.sampled_from((0, 1, 300, 2_000)), min_size=1, max_size=5)


def bytes_of(entry: Entry) -> int:
    return len(entry.data) + ENTRY_OVERHEAD_BYTES


class WindowIsTheEndOfTheLog(RuleBasedStateMachine):
    """The model is the whole log, which forgets nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.log: dict[int, Entry] = {}
        self.base = 0
        self.start_term = 0
        self.term = 1
        self.first = 1

    @property
    def last(self) -> int:
        return max(self.log, default=self.base)

    @initialize(base=st.sampled_from((0, 7)), bytes_max=st.sampled_from((0, 1_500, 100_000)))
    def begin(self, base: int, bytes_max: int) -> None:
        self.base, self.start_term = base, int(base > 0)
        self.first = base + 1
        self.window = Window(base_index=base, base_term=self.start_term, bytes_max=bytes_max)

    @rule(data=st.data(), sizes=sizes)
    def append(self, data: st.DataObject, sizes: list[int]) -> None:
        first = data.draw(st.integers(self.base + 1, self.last + 1), "first")
        self.term += first <= self.last
        added = [Entry(self.term, first + place, data=b"d" * size) for place, size in enumerate(sizes)]
        self.log = {index: entry for index, entry in self.log.items() if index < first}
        self.log |= {entry.index: entry for entry in added}
        self.window.append(added)

    @rule()
    def append_nothing(self) -> None:
        self.window.append([])

    @precondition(lambda self: self.last > self.base)
    @rule(data=st.data())
    def move_base(self, data: st.DataObject) -> None:
        self.base = data.draw(st.integers(self.base, self.last), "base")
        self.window.move_base(self.base)

    @rule(data=st.data())
    def trim(self, data: st.DataObject) -> None:
        up_to = data.draw(st.integers(0, self.last), "up to")
        before, size = self.first, self.window.size_bytes
        self.window.trim(up_to)
        self.first = self.window.first_index
        assert before <= self.first <= max(min(up_to, self.base) + 1, before)
        if size <= self.window.bytes_max:
            assert self.first == before
        elif self.first <= min(up_to, self.base):
            assert self.window.size_bytes <= self.window.bytes_max * 3 // 4
        if self.first > before:  # no more than was needed
            assert self.window.size_bytes + bytes_of(self.log[self.first - 1]) > self.window.bytes_max * 3 // 4

    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        self.base = data.draw(st.integers(self.last, self.last + 3), "base")
        self.start_term, self.first, self.log = self.term, self.base + 1, {}
        self.window.restart(self.base, self.start_term)

    @rule(data=st.data(), size=st.sampled_from((0, 700)))
    def replace(self, data: st.DataObject, size: int) -> None:
        indexes = data.draw(st.sets(st.integers(0, self.last + 1), max_size=4), "indexes")
        for index in indexes & self.log.keys():
            self.log[index] = Entry(self.log[index].term, index, data=b"r" * size)
        self.window.replace(dict.fromkeys(indexes, b"r" * size))

    @invariant()
    def what_is_here_is_the_log(self) -> None:
        window = self.window
        assert (window.first_index, window.last_index, window.base_index) == (self.first, self.last, self.base)
        assert self.first <= self.base + 1
        here = [self.log[index] for index in range(self.first, self.last + 1)]
        assert window.entries(self.first, self.last + 1) == here
        assert window.recent(self.first - 1, self.last) == here
        terms = [window.term(index) for index in range(self.first - 1, self.last + 1)]
        assert terms == [self.term_of(index) for index in range(self.first - 1, self.last + 1)]

    @invariant()
    def what_is_not_here_is_said_to_be_elsewhere(self) -> None:
        window = self.window
        assert window.recent(self.first - 2, self.last) is None
        assert window.recent(self.last, self.last + 1) is None
        with pytest.raises(CompactedError):
            window.entries(self.first - 1, self.last + 1)
        with pytest.raises(CompactedError):
            window.term(self.first - 2)
        with pytest.raises(UnavailableError):
            window.entries(self.first, self.last + 2)
        with pytest.raises(UnavailableError):
            window.term(self.last + 1)

    @invariant()
    def sizes_add_up(self) -> None:
        here = [self.log[index] for index in range(self.first, self.last + 1)]
        assert self.window.size_bytes == sum(map(bytes_of, here))
        assert self.window.size_above_base_bytes == sum(bytes_of(entry) for entry in here if entry.index > self.base)

    def term_of(self, index: int) -> int:
        return self.log[index].term if index in self.log else self.start_term


TestWindowIsTheEndOfTheLog = WindowIsTheEndOfTheLog.TestCase
TestWindowIsTheEndOfTheLog.settings = settings(stateful_step_count=30)
