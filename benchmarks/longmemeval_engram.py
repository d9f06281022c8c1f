"""Does a memory find the sessions of LongMemEval that answer its questions? Over HTTP, against any engram.

    python benchmarks/longmemeval_engram.py --dataset longmemeval_s.json --output-dir out --start-engram --top-k 100
    python benchmarks/longmemeval_engram.py --dataset ... --output-dir out --mode qa --llm-base-url http://127.0.0.1:8000/v1

The data is the published file. Retrieval writes retrieval_results.json, retrieval_metrics.json and
retrieval_summary.md; QA writes hypothesis.jsonl for the official evaluator. docs/QUALITY_BENCHMARKS.md says more.
"""

import argparse
import sys
from collections.abc import Sequence

from benchmarks import quality_main
from benchmarks.quality_data import load_longmemeval
from benchmarks.quality_options import build_parser
from benchmarks.quality_run import Ids

PROG = "longmemeval_engram"


def main(arguments: Sequence[str]) -> int:
    """Run and return the exit code."""
    options = build_parser(PROG, (__doc__ or "").splitlines()[0]).parse_args(arguments)
    return quality_main.run(options, PROG, lambda: _load(options))


def _load(options: argparse.Namespace) -> quality_main.Benchmark:
    haystacks = load_longmemeval(options.dataset)[: options.limit or None]
    return quality_main.Benchmark("LongMemEval", "", Ids("", None), haystacks, {})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
