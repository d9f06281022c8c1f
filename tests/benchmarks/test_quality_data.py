"""Public data sets become conversations with questions, whatever published form they have; what is wrong is said."""

import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.quality_beam import USUAL_KEYS, Wanted, load_beam
from benchmarks.quality_data import Json, WrongDataError, load_locomo, load_longmemeval
from benchmarks.quality_run import split
from tests.benchmarks import quality_sets
from tests.benchmarks.quality_sets import write


def beam(path: Path, *, form: str = "auto", tier: str = "", limit: int = 0, **keys: str) -> Wanted:
    return Wanted(path, form, tier, {**dict.fromkeys(USUAL_KEYS, ""), **keys}, limit)


def test_longmemeval_names_sessions_turns_and_times(tmp_path: Path) -> None:
    haystack, without_answer = load_longmemeval(write(tmp_path / "lme.json", quality_sets.longmemeval()))

    [asked] = haystack.questions
    assert asked.sessions == {"s1-3"}
    assert asked.turns == {"3-1"}
    assert asked.now is not None
    assert asked.now.isoformat() == "2023-06-06T08:19:00+00:00"
    assert [turn.session for turn in haystack.turns][::2] == ["s1-1", "s1-2", "s1-3", "s1-4"]
    assert not any(not turn.text.strip() for turn in haystack.turns)
    assert [question.is_abstention for question in without_answer.questions] == [True]


def test_packed_files_are_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "lme.json.xz"
    path.write_bytes(lzma.compress(json.dumps(quality_sets.longmemeval()).encode()))

    assert len(load_longmemeval(path)) == 2


def test_locomo_has_the_categories_that_are_asked_and_corrected_evidence(tmp_path: Path) -> None:
    path = write(tmp_path / "locomo.json", quality_sets.locomo())
    audit = write(tmp_path / "audit.json", quality_sets.locomo_audit())

    [haystack] = load_locomo(path, audit, frozenset({1, 4}))

    assert [(asked.question_id, asked.kind, set(asked.turns)) for asked in haystack.questions] == [
        ("conv-1:0", "single-hop", {"D1:2"}),
        ("conv-1:1", "multi-hop", {"D2:1"}),
    ]
    assert haystack.turns[1].text == "Ben: I adopted a greyhound. [shares a dog]"


def test_beam_is_the_same_from_its_folder_from_any_folder_above_and_from_one_file(tmp_path: Path) -> None:
    root = quality_sets.beam_folder(tmp_path)
    file = write(
        tmp_path / "beam.json",
        {"1": {"chat": quality_sets.beam_chat(), "probing_questions": quality_sets.beam_probing()}},
    )

    places = [root, root / "chats", root / "chats" / "100K", root / "chats" / "100K" / "1", file]
    first, *others = [load_beam(beam(place))[0] for place in places]

    assert all(other == first for other in others)
    assert [asked.question_id for asked in first[0].questions] == [
        "1:information_extraction:0",
        "1:abstention:0",
        "1:summarization:0",
    ]


def test_beam_scores_only_what_retrieval_answers_and_hides_the_generators_notes(tmp_path: Path) -> None:
    [haystack], _ = load_beam(beam(quality_sets.beam_folder(tmp_path)))

    assert [asked.turns for asked in haystack.questions] == [{"0"}, set(), set()]
    assert [asked.answer for asked in haystack.questions] == ["29", "Nothing.", '["the sprint"]']
    assert haystack.turns[0].text == "My sprint ends on March 29."


def test_entries_may_call_their_fields_as_they_like(tmp_path: Path) -> None:
    entry = {"qid": "a", "wish": "Where?", "talk": [{"role": "user", "content": "Here."}], "size": "128K"}
    path = write(tmp_path / "list.json", {"examples": [entry, {**entry, "qid": "b", "size": "1M"}]})

    haystacks, _ = load_beam(beam(path, tier="100K", question="wish", conversation="talk"))

    assert [(one.questions[0].question_id, one.questions[0].text) for one in haystacks] == [("a", "Where?")]
    assert [turn.text for turn in haystacks[0].turns] == ["Here."]


def test_longmemevals_form_is_a_list_of_entries_too(tmp_path: Path) -> None:
    [haystack], _ = load_beam(beam(write(tmp_path / "lme.json", quality_sets.longmemeval()), limit=1))

    assert haystack.questions[0].sessions == {"s1-3"}
    assert haystack.turns[0].when is not None


def _without(name: str) -> Callable[[Json], None]:
    def change(data: Json) -> None:
        del data[0][name]

    return change


def _one_date_less(data: Json) -> None:
    data[0]["haystack_dates"].pop()


def _odd_date(data: Json) -> None:
    data[0]["haystack_dates"][0] = "yesterday"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_without("question_id"), "question 1 of lme.json has no question_id"),
        (_without("answer_session_ids"), "q1 has no answer_session_ids"),
        (_one_date_less, "q1 has 4 sessions, 4 ids and 3 dates"),
        (_odd_date, "q1: 'yesterday' is no date"),
    ],
)
def test_what_a_question_lacks_is_said_with_its_place(
    change: Callable[[Json], None], told: str, tmp_path: Path
) -> None:
    data = quality_sets.longmemeval()
    change(data)

    with pytest.raises(WrongDataError, match=told):
        load_longmemeval(write(tmp_path / "lme.json", data))


@pytest.mark.parametrize(
    ("tier", "told"),
    [("", "choose one with --tier"), ("1M", "has no tier 1M"), ("7K", "no tier of BEAM"), ("10M", "not supported")],
)
def test_a_tier_that_is_not_there_is_refused(tier: str, told: str, tmp_path: Path) -> None:
    quality_sets.beam_folder(quality_sets.beam_folder(tmp_path), tier="500K")

    with pytest.raises(WrongDataError, match=told):
        load_beam(beam(tmp_path, tier=tier))


def test_a_long_text_is_split_at_paragraphs_and_nothing_is_lost() -> None:
    parts = split("aaa\n\nbbb\n\n" + "c" * 25, 10)

    assert parts == ["aaa\n\nbbb", "c" * 10, "c" * 10, "c" * 5]


def test_a_blank_text_has_no_parts() -> None:
    assert split(" \n", 10) == split(" \n", None) == []
