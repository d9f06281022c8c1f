"""What a search finds gets into a context of 2 000 tokens, where the data is.

LoCoMo's first conversation stands for its others: texts are so short there that all of what is found has room.
"""

import asyncio
from pathlib import Path

import pytest

from benchmarks.context_quality import AIM, AIM_TOKENS, measure
from benchmarks.recall_data import FILES, load
from benchmarks.recall_quality import DATA
from engram.inference.builtin import BuiltinEmbedder
from tests.recall.rows import TOKENS

CONVERSATIONS_MAX = {"LoCoMo": 1}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", [pytest.param("LongMemEval", marks=pytest.mark.thorough), "LoCoMo", "BEAM"])
def test_the_evidence_that_is_found_is_shown(name: str) -> None:
    if not (DATA / FILES[name]).exists():
        pytest.skip(f"NOT CHECKED: no {FILES[name]} in {Path('..') / 'shared' / 'data'}")
    talks = load(name, DATA)[: CONVERSATIONS_MAX.get(name)]

    [line] = asyncio.run(measure(name, talks, BuiltinEmbedder(), TOKENS, [AIM_TOKENS]))

    assert line.found > 0
    assert line.found_shown >= AIM
    assert line.found_whole == line.found_shown
