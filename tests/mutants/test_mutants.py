"""The list of mutants fits the code, and whoever runs it can tell what became of one; `make mutants` runs it."""

import ast
from pathlib import Path

import pytest

from tests.mutants.mutant import Mutant, StaleMutantError, mutated
from tests.mutants.run import LIMIT_S, MUTANTS, PROJECT, Copy, Fate, Outcome, table

ROSTER = "engram/log/roster.py"
FOLD = "        self.book.update(decode_book(change.context))\n"
KILLED = Mutant("fold-nothing", "no addresses", ROSTER, FOLD, "", ("tests/log/test_roster.py",))
HARMLESS = KILLED._replace(name="fold-twice", instead=FOLD * 2)
NO_PYTHON = KILLED._replace(name="fold-badly", instead="        self.book.update(\n")


def test_mutants_have_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 40


def test_every_mutant_is_one_change_of_what_is_there_and_still_python() -> None:
    for mutant in MUTANTS:
        changed = mutated(mutant, PROJECT)

        assert changed != (PROJECT / mutant.module).read_text(), mutant.name
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse((PROJECT / mutant.module).read_text())), mutant.name


def test_every_mutant_names_tests_that_are_there() -> None:
    for mutant in MUTANTS:
        assert mutant.tests, mutant.name
        for test in mutant.tests:
            path, _, claim = test.partition("::")
            assert f"def {claim}" in (PROJECT / path).read_text(), mutant.name


@pytest.mark.parametrize("text", ["not in any module", "self"])
def test_a_mutant_whose_place_is_not_there_exactly_once_is_an_error(text: str) -> None:
    with pytest.raises(StaleMutantError, match="fold-nothing: its text stands"):
        mutated(KILLED._replace(text=text), PROJECT)


@pytest.mark.thorough
@pytest.mark.timeout(120)  # it starts pytest three times
def test_what_becomes_of_a_mutant_is_told_and_the_copy_is_whole_again(tmp_path: Path) -> None:
    copy = Copy(tmp_path)

    outcomes = {mutant.name: copy.break_it(mutant, LIMIT_S) for mutant in (KILLED, HARMLESS, NO_PYTHON)}

    assert {name: outcome.fate for name, outcome in outcomes.items()} == {
        "fold-nothing": Fate.KILLED,
        "fold-twice": Fate.SURVIVED,
        "fold-badly": Fate.BROKEN,
    }
    assert outcomes["fold-nothing"].test == "tests/log/test_roster.py::test_addresses_come_and_go_with_members"
    assert (copy.place / ROSTER).read_bytes() == (PROJECT / ROSTER).read_bytes()


def test_a_run_that_takes_too_long_is_told_apart(tmp_path: Path) -> None:
    assert Copy(tmp_path).break_it(KILLED, limit_s=0.01).fate is Fate.TIMED_OUT


def test_the_table_says_who_noticed() -> None:
    noticed = Outcome(Fate.KILLED, "tests/log/test_roster.py::test_a_member_moves", "", 1.0)
    late = Outcome(Fate.TIMED_OUT, "", "", 1.0)

    assert table([(KILLED, noticed), (HARMLESS, late)]).splitlines()[2:] == [
        "| fold nothing | no addresses | `log/roster.py` | `test_a_member_moves` in `tests/log/test_roster.py` |",
        "| fold twice | no addresses | `log/roster.py` | killed (time) |",
    ]
