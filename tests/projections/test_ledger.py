"""What each event counts for, folded in memory."""

import pytest

from engram.events import Event, SessionCreated, VisibilityChanged, WorkAbandoned
from engram.projections.erasures import Kind
from engram.projections.ledger import Decoded, fold
from engram.projections.lives import ABANDONED, DONE, PENDING, Life, View
from engram.projections.verdicts import Outcome, Verdict
from tests.projections.histories import (
    History,
    created,
    deleted,
    embedded,
    ended,
    pinned,
    said,
    unpinned,
    vector,
)

ACCEPTED, DUPLICATE, CONFLICT = Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.CONFLICT
DELETED, UNKNOWN = Outcome.DELETED, Outcome.UNKNOWN


def decoded(history: History) -> list[Decoded]:
    return [
        Decoded(index, item if isinstance(item, list) else [item])  # type: ignore[list-item]
        for index, item in enumerate(history, start=1)
    ]


def judged(*history: Event | list[Event]) -> list[tuple[Outcome, int]]:
    """Return the verdicts on the events of the last entry."""
    return [(verdict.outcome, verdict.first_index) for verdict in fold(View(), decoded(history))[-1]]


def seen(*history: Event | list[Event]) -> View:
    view = View()
    fold(view, decoded(history))
    return view


def life_of(view: View, session_id: str = "s") -> Life:
    return view.lives["default", session_id]


def test_a_message_counts_in_the_entry_that_brings_it() -> None:
    assert judged(said("m1"), said("m2")) == [(ACCEPTED, 2)]


def test_the_same_message_again_is_answered_with_its_first_index() -> None:
    assert judged(said("m1"), said("m2"), said("m1")) == [(DUPLICATE, 1)]


@pytest.mark.parametrize("other", [said("m1", "other"), said("m1", role="assistant")], ids=["text", "role"])
def test_other_content_under_the_same_id_is_a_conflict(other: Event) -> None:
    assert judged(said("m1"), other) == [(CONFLICT, 0)]


def test_an_id_belongs_to_its_session() -> None:
    assert judged(said("m1"), said("m1", "other", session_id="t")) == [(ACCEPTED, 2)]


def test_nothing_of_an_entry_with_one_conflict_counts() -> None:
    history = [said("m1"), [said("m2"), said("m1", "other"), said("m1")]]

    assert judged(*history) == [(ACCEPTED, 0), (CONFLICT, 0), (DUPLICATE, 1)]
    assert list(life_of(seen(*history)).messages) == ["m1"]


def test_duplicates_within_a_batch_are_no_conflict() -> None:
    assert judged(said("m1"), [said("m2"), said("m1")]) == [(ACCEPTED, 2), (DUPLICATE, 1)]


def test_one_id_with_two_texts_in_one_entry_refuses_it_and_makes_no_session() -> None:
    history = [[said("m1"), said("m2"), said("m1", "other")]]

    assert judged(*history)[-1] == (CONFLICT, 0)
    assert seen(*history).lives == {}


def test_a_deleted_id_is_not_taken_again() -> None:
    assert judged(said("m1"), deleted("m1"), said("m1")) == [(DELETED, 0)]


def test_a_batch_with_a_deleted_id_does_not_count() -> None:
    assert judged(said("m1"), deleted("m1"), [said("m2"), said("m1")]) == [(ACCEPTED, 0), (DELETED, 0)]


def test_deleting_an_unknown_message_keeps_its_id_from_being_taken() -> None:
    assert judged(created(), deleted("m1")) == [(UNKNOWN, 0)]
    assert judged(created(), deleted("m1"), said("m1")) == [(DELETED, 0)]


def test_deleting_a_message_of_an_unknown_session_changes_nothing() -> None:
    assert judged(deleted("m1"), said("m1")) == [(ACCEPTED, 2)]


def test_a_deleted_message_leaves_a_gap_in_the_ordinals() -> None:
    life = life_of(seen(said("m1"), said("m2"), deleted("m1"), said("m3")))

    assert {message_id: message.ordinal for message_id, message in life.messages.items()} == {"m2": 1, "m3": 2}
    assert (life.next_ordinal, life.message_count, life.deletions) == (3, 2, 1)


def test_a_deleted_session_takes_its_tombstones_along() -> None:
    assert judged(said("m1"), deleted("m1"), ended(), said("m1")) == [(ACCEPTED, 4)]


def test_a_session_made_again_is_another_life() -> None:
    view = seen(said("m1"), ended(), said("m2"))

    assert life_of(view).key == 3
    assert list(life_of(view).messages) == ["m2"]


def test_deleting_an_unknown_session_is_noted_for_the_long_term_store_only() -> None:
    view = seen(ended())

    assert judged(ended()) == [(UNKNOWN, 0)]
    assert [(erasure.kind, erasure.session_key) for erasure in view.erasures] == [(Kind.SESSION, 0)]
    assert view.timeline == []


@pytest.mark.parametrize("first_write", [said("m1"), pinned("f1"), created()])
def test_making_a_session_that_is_there_is_a_duplicate(first_write: Event) -> None:
    assert judged(first_write, said("m2"), created()) == [(DUPLICATE, 1)]


@pytest.mark.parametrize(
    "other",
    [
        created(agent_id="agent"),
        created(user_id="user"),
        SessionCreated(session_id="s", at_ms=1, metadata={"plan": "pro"}),
    ],
    ids=["agent", "user", "metadata"],
)
def test_making_a_session_otherwise_than_it_is_conflicts(other: Event) -> None:
    assert judged(created(), other) == [(CONFLICT, 0)]


def test_a_session_may_be_opened_before_anything_is_in_it() -> None:
    opened = VisibilityChanged(session_id="s", at_ms=1, visibility="shared")

    assert judged(opened) == [(ACCEPTED, 1)]
    assert life_of(seen(opened, said("m1"))).visibility == "shared"


def test_a_message_without_vectors_in_its_entry_is_pending() -> None:
    life = life_of(seen([said("m1"), embedded("m1")], said("m2")))

    assert [message.embedding for message in life.messages.values()] == [DONE, PENDING]
    assert life.pending == 1


def test_vectors_that_come_later_name_the_entry_of_their_message() -> None:
    view = seen(said("m1"), embedded("m1", 1))

    assert judged(said("m1"), embedded("m1", 1)) == [(ACCEPTED, 2)]
    assert (life_of(view).pending, life_of(view).vectors_index) == (0, 2)


@pytest.mark.parametrize(
    "history",
    [
        [embedded("m1", 1)],
        [created(), embedded("m1", 1)],
        [said("m2"), said("m1"), embedded("m1", 1)],
        [said("m1"), embedded("m1")],
        [said("m1"), deleted("m1"), embedded("m1", 1)],
        [said("m1"), ended(), embedded("m1", 1)],
        [said("m1"), ended(), said("m1"), embedded("m1", 1)],
    ],
    ids=["no session", "no message", "other entry", "not in it", "deleted", "session deleted", "another life"],
)
def test_vectors_of_another_text_than_the_current_one_count_for_nothing_and_are_erased(history: History) -> None:
    view = seen(*history)  # type: ignore[arg-type]

    assert judged(*history) == [(UNKNOWN, 0)]  # type: ignore[arg-type]
    assert view.erasures[-1][:3] == (len(history), Kind.STALE, "m1")


def test_new_vectors_replace_those_that_were_there() -> None:
    life = life_of(seen([said("m1"), embedded("m1", chunks=[vector(), vector()])], embedded("m1", 1, model="model-b")))

    assert [row.chunk for row in life.new_vectors[0]] == [0]
    assert (life.messages["m1"].model, life.messages["m1"].vectors_index) == ("model-b", 2)


def test_vectors_sent_again_with_their_message_are_a_duplicate() -> None:
    entry: list[Event] = [said("m1"), embedded("m1")]

    assert judged(entry, entry) == [(DUPLICATE, 1), (DUPLICATE, 1)]


def abandoned(message_id: str) -> WorkAbandoned:
    return WorkAbandoned(session_id="s", at_ms=1, work="embedding", message_id=message_id, error="away", attempts=3)


def test_work_given_up_is_visible_until_vectors_come() -> None:
    given_up = life_of(seen(said("m1"), abandoned("m1")))
    retried = life_of(seen(said("m1"), abandoned("m1"), embedded("m1", 1)))

    assert (given_up.messages["m1"].embedding, given_up.pending, given_up.abandoned) == (ABANDONED, 0, 1)
    assert (retried.messages["m1"].embedding, retried.pending, retried.abandoned) == (DONE, 0, 0)


@pytest.mark.parametrize(
    "history", [[], [created()], [[said("m1"), embedded("m1")]]], ids=["session", "message", "work"]
)
def test_there_is_nothing_to_give_up(history: History) -> None:
    assert judged(*history, abandoned("m1")) == [(UNKNOWN, 0)]  # type: ignore[arg-type]


def test_a_fact_counts_once_whatever_its_id() -> None:
    assert judged(pinned("f1"), pinned("f2")) == [(DUPLICATE, 1)]
    assert judged(pinned("f1"), pinned("f1")) == [(DUPLICATE, 1)]


def test_another_text_under_a_facts_id_is_a_conflict() -> None:
    assert judged(pinned("f1"), pinned("f1", "another fact")) == [(CONFLICT, 0)]


def test_an_unpinned_fact_may_be_pinned_again() -> None:
    assert judged(pinned("f1"), unpinned("f1"), pinned("f2")) == [(ACCEPTED, 3)]


@pytest.mark.parametrize("history", [[], [created()]], ids=["session", "fact"])
def test_unpinning_what_is_not_pinned_is_unknown(history: History) -> None:
    assert judged(*history, unpinned("f1")) == [(UNKNOWN, 0)]  # type: ignore[arg-type]


def test_the_timeline_names_the_entries_that_had_an_effect() -> None:
    view = seen(said("m1"), said("m1"), said("m1", "other"), deleted("m1"), said("m2"))

    assert view.timeline == [(1, 1), (1, 4), (1, 5)]


def test_every_entry_without_effect_is_traced_so_that_it_can_be_erased() -> None:
    view = seen(said("m1"), said("m1"), said("m1", "other"), created(agent_id="agent"), pinned("f1"), pinned("f1", "b"))

    assert {(subject, log_index) for _, subject, log_index in view.traces} >= {
        ("mm1", 2),
        ("mm1", 3),
        ("", 4),
        ("ff1", 6),
    }


def test_the_text_of_an_id_that_was_deleted_before_is_erased_at_once() -> None:
    view = seen(said("m1"), deleted("m1"), [said("m1"), said("m2")])

    assert view.erasures[-1][:3] == (3, Kind.ENTRY, "")


def test_an_empty_entry_changes_nothing() -> None:
    view = View()

    verdicts = fold(view, [Decoded(1, [said("m1")]), Decoded(2, []), Decoded(3, [said("m1")])])

    assert verdicts == [[Verdict(ACCEPTED, 1)], [], [Verdict(DUPLICATE, 1)]]


def test_what_an_entry_changes_is_taken_into_account_further_on_in_it() -> None:
    assert judged([said("m1"), deleted("m1"), said("m1")])[-1] == (DELETED, 0)
    assert judged([pinned("f1"), unpinned("f1"), pinned("f1", "b")]) == [(ACCEPTED, 1), (ACCEPTED, 1), (ACCEPTED, 1)]
    assert judged(said("m1"), [ended(), said("m1", "b"), created()])[1:] == [(ACCEPTED, 2), (DUPLICATE, 2)]
