"""The verdict on whole histories, and keeping them."""

from pathlib import Path

from tests.linearizability.history import (
    Added,
    AddMessages,
    DeleteMessage,
    Done,
    FactPlaced,
    FactsListed,
    Got,
    History,
    Outcome,
    PinFact,
    ReadFacts,
    ReadMessage,
    Refused,
    UnpinFact,
    load,
    save,
)
from tests.linearizability.judge import judge
from tests.linearizability.made_up import Scribe
from tests.linearizability.run import main
from tests.linearizability.wgl import Verdict


def good() -> Scribe:
    """Return a history with everything that a client can ask and be answered."""
    scribe = Scribe()
    scribe.append("a", at=1)
    scribe.note(AddMessages((("a", "other"),)), Refused("message_conflict"), log_index=2)
    scribe.append("b", "c", at=0, outcome=Outcome.UNKNOWN)
    scribe.read(("a", 1), ("b", 3), ("c", 3))
    scribe.note(DeleteMessage("a"), Done(), log_index=4)
    scribe.note(ReadMessage("a"), Got(None))
    scribe.note(ReadMessage("b"), Got("says b"))
    scribe.note(AddMessages((("a", "says a"),)), Refused("message_deleted"), log_index=5)
    scribe.note(PinFact("f", "red"), FactPlaced("f"), log_index=6)
    scribe.note(PinFact("g", "red"), FactPlaced("f"), log_index=6)
    scribe.note(PinFact("f", "blue"), Refused("fact_conflict"), log_index=7)
    scribe.note(UnpinFact("f"), None, outcome=Outcome.UNKNOWN, status=504)
    scribe.note(ReadFacts(), FactsListed(()))
    scribe.note(PinFact("f", "blue"), None, outcome=Outcome.FAILED, status=503)
    return scribe


def test_a_history_of_everything_that_can_be_asked_is_linearizable() -> None:
    judgement = judge(good().operations)

    assert judgement.faults == []
    assert judgement.verdict is Verdict.LINEARIZABLE
    assert judgement.objects == 4, "three messages and one core memory"


def test_a_message_that_is_read_after_its_deletion_is_a_violation() -> None:
    scribe = good()
    scribe.note(ReadMessage("a"), Got("says a"))

    judgement = judge(scribe.operations)

    assert judgement.verdict is Verdict.VIOLATION
    assert "message s/a" in judgement.faults[0]


def test_a_fact_whose_pinning_was_refused_is_a_violation_when_it_shows() -> None:
    scribe = good()
    scribe.note(ReadFacts(), FactsListed((("f", "blue"),)))

    judgement = judge(scribe.operations)

    assert judgement.verdict is Verdict.VIOLATION
    assert "facts of s" in judgement.faults[0]


def test_a_message_of_a_list_that_is_created_twice_is_a_violation() -> None:
    scribe = good()
    scribe.note(AddMessages((("b", "says b"),)), Added((("created", 3),)), log_index=3)

    assert judge(scribe.operations).verdict is Verdict.VIOLATION


def test_an_answer_that_the_api_does_not_name_is_told_but_is_no_violation_by_itself() -> None:
    scribe = good()
    scribe.note(UnpinFact("f"), None, outcome=Outcome.UNKNOWN, status=500)

    judgement = judge(scribe.operations)

    assert judgement.verdict is Verdict.LINEARIZABLE
    assert len(judgement.odd) == 1
    assert "must not be answered" in judgement.odd[0]


def test_a_search_that_was_given_up_is_no_verdict() -> None:
    assert judge(good().operations, steps_max=2).verdict is Verdict.UNDECIDED


def test_a_history_that_was_kept_is_the_same(tmp_path: Path) -> None:
    history = History(seed=7, nemesis="none", operations=good().operations, events=[(5, "nothing")])

    save(history, tmp_path / "history.jsonl")

    assert load(tmp_path / "history.jsonl") == history


def test_the_command_judges_a_kept_history_by_its_exit_code(tmp_path: Path) -> None:
    scribe = good()
    save(History(seed=7, nemesis="none", operations=scribe.operations), tmp_path / "good.jsonl")
    scribe.note(ReadMessage("a"), Got("says a"))
    save(History(seed=7, nemesis="none", operations=scribe.operations), tmp_path / "bad.jsonl")

    scribe = good()
    scribe.note(UnpinFact("f"), None, outcome=Outcome.UNKNOWN, status=500)
    save(History(seed=7, nemesis="none", operations=scribe.operations), tmp_path / "odd.jsonl")

    codes = [main(["--check", str(tmp_path / name)]) for name in ("good.jsonl", "bad.jsonl", "odd.jsonl")]

    assert codes == [0, 1, 1]
