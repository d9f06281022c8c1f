"""Which sessions wait to be written to Redis."""

from hypothesis import given
from hypothesis import strategies as st

from engram.projections.redis_changes import Changes
from engram.projections.redis_keys import SessionName

A, B, C = (SessionName("t", name) for name in "abc")


def test_a_session_waits_until_it_is_written() -> None:
    changes = Changes()
    changes.add([A, B], 5)

    assert A in changes
    assert list(changes.take(1)) == [A]
    assert A in changes
    changes.done([A])
    assert A not in changes
    assert B in changes


def test_a_session_that_changes_while_it_is_written_waits_again() -> None:
    changes = Changes()
    changes.add([A], 5)
    changes.take(9)
    changes.add([A], 6)
    changes.done([A])

    assert A in changes
    assert changes.first_index() == 6


def test_what_was_taken_and_not_written_comes_again() -> None:
    changes = Changes()
    changes.add([A], 1)
    changes.add([B], 2)
    changes.take(1)

    assert list(changes.take(2)) == [A, B]


def test_what_comes_again_comes_with_what_changed_meanwhile() -> None:
    changes = Changes()
    changes.add([A, B], 1)
    changes.take(2)
    changes.add([A], 5)
    changes.take(2)
    changes.done([A])

    assert A not in changes


def test_the_first_entry_that_waits_is_known() -> None:
    changes = Changes()
    assert changes.first_index() is None
    changes.add([A], 3)
    changes.add([B], 4)
    changes.add([A], 9)

    assert changes.first_index() == 3
    changes.take(1)
    assert changes.first_index(without={A}) == 4
    changes.done([A])
    assert changes.first_index() == 4


def test_too_many_are_not_kept() -> None:
    changes = Changes(changes_max=2)
    changes.add([A, B, C], 1)

    assert changes.has_overflowed
    assert len(changes) == 0
    changes.forget()
    assert not changes.has_overflowed


@given(st.lists(st.tuples(st.sampled_from(["add", "take", "done", "part"]), st.sampled_from([A, B, C])), max_size=30))
def test_no_change_is_lost(steps: list[tuple[str, SessionName]]) -> None:
    changes = Changes()
    unwritten: dict[SessionName, int] = {}
    taken: dict[SessionName, int] = {}
    for index, (step, name) in enumerate(steps, start=1):
        if step == "add":
            changes.add([name], index)
            unwritten.setdefault(name, index)
        elif step == "take":
            for each in changes.take(2):
                taken[each] = index
        else:
            done = list(taken) if step == "done" else list(taken)[:1]
            changes.done(done)
            for each in done:
                since = taken.pop(each)
                later = [
                    n for n, (what, who) in enumerate(steps[:index], 1) if what == "add" and who == each and n > since
                ]
                unwritten.pop(each, None)
                if later:
                    unwritten[each] = later[0]

        assert {each for each in (A, B, C) if each in changes} == set(unwritten)
        assert changes.first_index() == min(unwritten.values(), default=None)
