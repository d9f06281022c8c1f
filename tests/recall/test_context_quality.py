"""What a search finds gets into a context of 2 000 tokens: the first conversation of each set, where the data is."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.context_quality import AIM, AIM_TOKENS, measure
from benchmarks.recall_data import FILES, load
from benchmarks.recall_quality import DATA
from engram.inference.builtin import BuiltinEmbedder
from tests.recall.rows import TOKENS

QUESTIONS_MAX = 40


@pytest.mark.parametrize("name", ["LoCoMo", "BEAM"])
def test_the_evidence_that_is_found_is_shown(name: str) -> None:
    if not (DATA / FILES[name]).exists():
        pytest.skip(f"no {FILES[name]} in {Path('..') / 'shared' / 'data'}")
    first = load(name, DATA)[0]

    some = [first._replace(questions=first.questions[:QUESTIONS_MAX])]

    lines = asyncio.run(measure(name, some, BuiltinEmbedder(), TOKENS))

    [line] = [line for line in lines if line.budget_tokens == AIM_TOKENS]
    assert line.found > 0
    assert line.found_shown >= AIM - 0.05
    assert line.found_whole == line.found_shown
