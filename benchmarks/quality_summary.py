"""What several quality runs came to together: the aims, one picture, and the numbers to keep.

python -m benchmarks.quality_summary OUT/longmemeval OUT/locomo OUT/beam --keep benchmarks/results/quality
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks import quality_plot
from benchmarks.quality_report import read_metrics, show_aims
from benchmarks.quality_results import pretty


def main(arguments: Sequence[str]) -> int:
    """Show and keep; the exit code is 2 if there is nothing to show."""
    parser = argparse.ArgumentParser(prog="quality_summary", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="output folders of retrieval runs")
    parser.add_argument("--keep", type=Path, help="folder that the numbers and the picture are written to")
    parser.add_argument(
        "--plot", action=argparse.BooleanOptionalAction, default=True, help="draw recall against latency"
    )
    options = parser.parse_args(arguments)
    paths = [path for run in options.runs for path in sorted(run.glob("*retrieval_metrics.json"))]
    try:
        runs = [read_metrics(path) for path in paths]
    except (OSError, msgspec.MsgspecError) as error:
        sys.stderr.write(f"quality_summary: {error}\n")
        return 2
    if not runs:
        sys.stderr.write(f"quality_summary: no retrieval_metrics.json in {', '.join(map(str, options.runs))}\n")
        return 2
    console = Console()
    show_aims(runs, console)
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        for run in runs:
            (options.keep / f"{run.dataset.lower()}.json").write_bytes(pretty(run))
        drawn = options.plot and quality_plot.draw(runs, options.keep / "quality.png")
        console.print(f"written to {options.keep}: numbers{' and quality.png' if drawn else ''}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
