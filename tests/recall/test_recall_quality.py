"""The recipe's quality on public questions does not fall: the first conversation of each set, where the data is."""

from pathlib import Path

import pytest

from benchmarks.recall_ablation import CHANGES, changed
from benchmarks.recall_data import FILES, load
from benchmarks.recall_quality import DATA, measure, score
from engram.inference.builtin import BuiltinEmbedder
from engram.recall import rank


def test_measures_are_those_of_their_definitions() -> None:
    marks = score(["x", "a", "y", "z", "w", "b"], frozenset({"a", "b"}))

    assert marks == pytest.approx((1.0, 1.0, 0.0, 1.0, 0.5, (0.6309 + 0.3562) / (1 + 0.6309)), abs=1e-3)


def test_nothing_right_is_zero_everywhere() -> None:
    assert score(["x"], frozenset({"a"})) == (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(("name", "level", "floor"), [("LoCoMo", "message", 0.60), ("BEAM", "message", 0.60)])
def test_the_recipe_finds_clearly_more_than_plain_methods(name: str, level: str, floor: float) -> None:
    if not (DATA / FILES[name]).exists():
        pytest.skip(f"no {FILES[name]} in {Path('..') / 'shared' / 'data'}")

    lines = measure(name, load(name, DATA)[:1], BuiltinEmbedder())

    found = {line.method: line.measures["NDCG@10"] for line in lines if line.level == level}
    assert found["engram"] > floor
    assert found["engram"] > max(found["plain BM25"], found["plain dense"]) + 0.05


def test_a_changed_step_is_as_before_afterwards() -> None:
    before = dict(vars(rank))

    for constants in CHANGES.values():
        with changed(constants):
            assert {name: getattr(rank, name) for name in constants} == constants

    assert dict(vars(rank)) == before
