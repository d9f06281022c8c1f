"""The recipe's quality on public questions does not fall below what it is to reach, where the data is."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.quality_aims import AIMS
from benchmarks.recall_ablation import CHANGES, STEPS, changed, marks
from benchmarks.recall_data import FILES, Conversation, load
from benchmarks.recall_quality import DATA, Recipe, measure, score
from engram.inference.builtin import BuiltinEmbedder

EMBEDDER = BuiltinEmbedder()
MEASURE_OF = {"recall_any@5": "any@5", "recall_all@10": "all@10", "ndcg@10": "NDCG@10"}


def conversations(name: str) -> Sequence[Conversation]:
    if not (DATA / FILES[name]).exists():
        pytest.skip(f"NOT CHECKED: no {FILES[name]} in {Path('..') / 'shared' / 'data'}")
    return load(name, DATA)


def test_measures_are_those_of_their_definitions() -> None:
    measured = score(["x", "a", "y", "z", "w", "b"], frozenset({"a", "b"}))

    assert measured == pytest.approx((1.0, 1.0, 0.0, 1.0, 0.5, (0.6309 + 0.3562) / (1 + 0.6309)), abs=1e-3)


def test_nothing_right_is_zero_everywhere() -> None:
    assert score(["x"], frozenset({"a"})) == (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", AIMS)
def test_the_recipe_reaches_its_aims(name: str) -> None:
    talks = conversations(name)

    means = marks(talks, [Recipe(talk.messages, EMBEDDER) for talk in talks])

    measured = {aim: round(means[MEASURE_OF[aim.measure]], 3) for aim in AIMS[name]}
    assert {aim: value for aim, value in measured.items() if value < aim.least} == {}


@pytest.mark.parametrize("name", ["LoCoMo", "BEAM"])
def test_the_recipe_finds_clearly_more_than_plain_methods(name: str) -> None:
    lines = measure(name, conversations(name)[:1], EMBEDDER)

    found = {line.method: line.measures["NDCG@10"] for line in lines if line.level == "message"}
    assert found["engram"] > max(found["plain BM25"], found["plain dense"]) + 0.05


def test_a_changed_step_is_as_before_afterwards() -> None:
    before = [dict(vars(step)) for step in STEPS]

    for constants in CHANGES.values():
        with changed(constants):
            now = {name: value for step in STEPS for name, value in vars(step).items() if name in constants}
            assert now == constants

    assert [dict(vars(step)) for step in STEPS] == before
