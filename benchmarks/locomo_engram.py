"""Does a memory find the turns of LoCoMo that answer its questions? Over HTTP, against any engram.

    python benchmarks/locomo_engram.py --dataset locomo10.json --output-dir out --start-engram --top-k 100

The data is the published file; --audit corrects its evidence. Retrieval writes locomo_retrieval_results.json,
locomo_retrieval_metrics.json and locomo_retrieval_summary.md; QA writes locomo_hypothesis.jsonl.
docs/QUALITY_BENCHMARKS.md says more.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import quality_main
from benchmarks.quality_data import LOCOMO_KINDS, load_locomo
from benchmarks.quality_options import build_parser
from benchmarks.quality_run import Ids

PROG = "locomo_engram"


def main(arguments: Sequence[str]) -> int:
    """Run and return the exit code."""
    parser = build_parser(PROG, (__doc__ or "").splitlines()[0])
    group = parser.add_argument_group("LoCoMo")
    group.add_argument("--audit", type=Path, help="a list of errors in the evidence, with what is right")
    group.add_argument(
        "--categories", type=_categories, default=frozenset({1, 2, 3, 4}), help="of questions, 1 to 5 (1,2,3,4)"
    )
    options = parser.parse_args(arguments)
    return quality_main.run(options, PROG, lambda: _load(options))


def _load(options: argparse.Namespace) -> quality_main.Benchmark:
    haystacks = load_locomo(options.dataset, options.audit, options.categories)[: options.limit or None]
    settings = {
        "categories": sorted(options.categories),
        "audit": None if options.audit is None else options.audit.name,
    }
    return quality_main.Benchmark("LoCoMo", "locomo_", Ids("locomo-", None), haystacks, settings)


def _categories(text: str) -> frozenset[int]:
    numbers = [int(one) for one in text.split(",") if one.isdecimal()]
    if len(numbers) != text.count(",") + 1 or not set(numbers) <= LOCOMO_KINDS.keys():
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers from 1 to 5, as in 1,2,3,4")
    return frozenset(numbers)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
