"""Lists that are only appended to: histories that are all right, and one for each way to be wrong."""

from collections.abc import Callable

import pytest

from tests.linearizability.history import (
    AddMessages,
    DeleteMessage,
    Done,
    Got,
    Listed,
    Outcome,
    ReadMessage,
    ReadMessages,
)
from tests.linearizability.lists import find_faults
from tests.linearizability.made_up import Scribe


def test_appends_and_reads_one_after_the_other_are_all_right() -> None:
    scribe = Scribe()
    scribe.read()
    scribe.append("a", at=1)
    scribe.append("b", "c", at=2)
    scribe.append("a", at=1, word="duplicate")
    scribe.read(("a", 1), ("b", 2), ("c", 2))
    scribe.read(("a", 1), min_index=1)

    assert find_faults(scribe.operations) == []


def test_a_write_of_unknown_outcome_may_be_there_or_not() -> None:
    scribe = Scribe()
    scribe.append("a", at=0, outcome=Outcome.UNKNOWN)
    scribe.append("b", at=0, outcome=Outcome.UNKNOWN)
    scribe.read()
    scribe.read(("a", 7))

    assert find_faults(scribe.operations) == []


def test_a_read_during_a_write_may_see_it_or_not() -> None:
    scribe = Scribe()
    scribe.append("a", at=1, between=(10, 90))
    scribe.read(between=(20, 30))
    scribe.read(("a", 1), between=(40, 50))

    assert find_faults(scribe.operations) == []


def test_writes_at_the_same_time_may_be_in_either_order() -> None:
    scribe = Scribe()
    scribe.append("a", at=2, between=(10, 40))
    scribe.append("b", at=1, between=(20, 30))
    scribe.read(("b", 1), ("a", 2))

    assert find_faults(scribe.operations) == []


def test_where_messages_are_deleted_reads_need_not_be_beginnings_of_one_list() -> None:
    scribe = Scribe()
    scribe.append("a", at=1)
    scribe.append("b", at=2)
    scribe.note(DeleteMessage("a"), Done(), log_index=3)
    scribe.read(("b", 2))

    assert find_faults(scribe.operations) == []


def stale_read(scribe: Scribe) -> None:
    scribe.append("a", at=1)
    scribe.read()


def lost_write(scribe: Scribe) -> None:
    scribe.append("a", at=1)
    scribe.append("b", at=2)
    scribe.read(("b", 2))


def read_that_goes_back(scribe: Scribe) -> None:
    scribe.append("a", at=1, outcome=Outcome.UNKNOWN)
    scribe.read(("a", 1))
    scribe.read()


def twice_in_a_list(scribe: Scribe) -> None:
    scribe.append("a", at=1)
    scribe.read(("a", 1), ("a", 1))


def two_places(scribe: Scribe) -> None:
    scribe.append("a", at=1)
    scribe.append("a", at=2, word="duplicate")


def unknown_write_that_happens_twice(scribe: Scribe) -> None:
    scribe.append("a", at=1, outcome=Outcome.UNKNOWN)
    scribe.read(("a", 1))
    scribe.append("a", at=3)


def one_place_for_two(scribe: Scribe) -> None:
    scribe.append("a", at=1)
    scribe.append("b", at=1)


def one_place_for_two_sessions(scribe: Scribe) -> None:
    scribe.append("a", at=1)
    scribe.append("a", at=1, session_id="other")


def order_against_real_time(scribe: Scribe) -> None:
    scribe.append("a", at=2)
    scribe.append("b", at=1)


def order_against_real_time_of_an_unknown_write(scribe: Scribe) -> None:
    scribe.append("a", at=2)
    scribe.append("b", at=0, outcome=Outcome.UNKNOWN)
    scribe.read(("b", 1), ("a", 2))


def order_against_real_time_between_sessions(scribe: Scribe) -> None:
    scribe.append("a", at=2, session_id="other")
    scribe.append("b", at=1)


def lists_that_contradict_each_other(scribe: Scribe) -> None:
    scribe.append("a", at=1, outcome=Outcome.UNKNOWN)
    scribe.append("b", at=2, outcome=Outcome.UNKNOWN)
    scribe.read(("a", 1), ("b", 2))
    scribe.read(("b", 2))


def list_in_another_order_than_the_log(scribe: Scribe) -> None:
    scribe.append("a", at=1, between=(10, 90))
    scribe.append("b", at=2, between=(11, 90))
    scribe.read(("b", 2), ("a", 1))


def half_a_batch(scribe: Scribe) -> None:
    scribe.append("a", "b", at=1, outcome=Outcome.UNKNOWN)
    scribe.read(("a", 1))


def read_from_the_future(scribe: Scribe) -> None:
    scribe.read(("a", 1))
    scribe.append("a", at=1)


def message_that_nobody_wrote(scribe: Scribe) -> None:
    scribe.read(("a", 1))


def message_that_was_said_not_to_be_written(scribe: Scribe) -> None:
    scribe.append("a", at=1, outcome=Outcome.FAILED)
    scribe.read(("a", 1))


def another_text(scribe: Scribe) -> None:
    scribe.append("a", at=1)
    scribe.read(("a", 1))
    scribe.note(ReadMessages(), Listed((("a", "says nothing", 1),)))


def read_that_has_not_seen_what_it_asked_for(scribe: Scribe) -> None:
    scribe.append("a", at=5)
    scribe.read(("a", 5), min_index=5, seen=4)


def read_without_what_it_asked_for(scribe: Scribe) -> None:
    scribe.append("a", at=5)
    scribe.read(min_index=5, seen=5)


def node_behind_what_was_acknowledged_elsewhere(scribe: Scribe) -> None:
    scribe.append("a", at=5, session_id="other")
    scribe.note(ReadMessage("b"), Got(None), log_index=4)


BAD: dict[str, tuple[Callable[[Scribe], None], str]] = {
    "stale read": (stale_read, "does not have s/a"),
    "lost write": (lost_write, "does not have s/a"),
    "a read that goes back": (read_that_goes_back, "does not have s/a"),
    "twice in a list": (twice_in_a_list, "twice in one list"),
    "two places": (two_places, "several places"),
    "an unknown write that happens twice": (unknown_write_that_happens_twice, "several places"),
    "one place for two": (one_place_for_two, "has the place 1"),
    "one place for two sessions": (one_place_for_two_sessions, "has the place 1"),
    "order against real time": (order_against_real_time, "stands before it: 1 < 2"),
    "of an unknown write": (order_against_real_time_of_an_unknown_write, "stands before it: 1 < 2"),
    "between sessions": (order_against_real_time_between_sessions, "stands before it: 1 < 2"),
    "lists that contradict each other": (lists_that_contradict_each_other, "is no beginning of"),
    "not in the order of the log": (list_in_another_order_than_the_log, "not in the order of the log"),
    "half a batch": (half_a_batch, "was written with"),
    "from the future": (read_from_the_future, "nobody had asked for yet"),
    "nobody wrote it": (message_that_nobody_wrote, "no request can have written it"),
    "said not to be written": (message_that_was_said_not_to_be_written, "no request can have written it"),
    "another text": (another_text, "several texts"),
    "not seen what it asked for": (read_that_has_not_seen_what_it_asked_for, "and should up to 5"),
    "without what it asked for": (read_without_what_it_asked_for, "does not have s/a"),
    "behind what was acknowledged": (node_behind_what_was_acknowledged_elsewhere, "and should up to 5"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_has_the_fault_that_was_put_in(name: str) -> None:
    make, fault = BAD[name]
    scribe = Scribe()
    make(scribe)

    faults = find_faults(scribe.operations)

    assert any(fault in found for found in faults), faults


def test_a_batch_that_was_never_written_is_no_fault() -> None:
    scribe = Scribe()
    scribe.note(AddMessages((("a", "x"), ("b", "y"))), None, outcome=Outcome.FAILED)
    scribe.read()

    assert find_faults(scribe.operations) == []
