"""What several quality runs came to together: the aims, one picture, and the numbers to keep.

python -m benchmarks.quality_summary OUT/longmemeval OUT/locomo OUT/beam OUT/speed --keep benchmarks/results/quality
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks import quality_plot
from benchmarks.quality_aims import MINILM
from benchmarks.quality_metrics import Metrics, Speed, read_metrics, read_speed
from benchmarks.quality_report import show_aims, show_survival, show_times
from benchmarks.quality_results import pretty


def main(arguments: Sequence[str]) -> int:
    """Show and keep; the exit code is 2 if there is nothing to show."""
    parser = argparse.ArgumentParser(prog="quality_summary", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="output folders of retrieval runs, and of quality_speed")
    parser.add_argument("--keep", type=Path, help="folder that the numbers and the picture are written to")
    parser.add_argument(
        "--plot", action=argparse.BooleanOptionalAction, default=True, help="draw recall against latency"
    )
    options = parser.parse_args(arguments)
    try:
        runs = {name_of(run): run for run in map(read_metrics, _found(options.runs, "*retrieval_metrics.json"))}
        speeds = [read_speed(path) for path in _found(options.runs, "speed_metrics.json")]
    except (OSError, msgspec.MsgspecError) as error:
        sys.stderr.write(f"quality_summary: {error}\n")
        return 2
    if not runs and not speeds:
        sys.stderr.write(f"quality_summary: no metrics of a run in {', '.join(map(str, options.runs))}\n")
        return 2
    console = Console()
    _show(runs, speeds, console)
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        for name, run in [*runs.items(), *(("speed", speed) for speed in speeds)]:
            (options.keep / f"{name.lower()}.json").write_bytes(pretty(run))
        drawn = options.plot and quality_plot.draw(runs, options.keep / "quality.png")
        console.print(f"written to {options.keep}: numbers{' and quality.png' if drawn else ''}", highlight=False)
    return 0


def name_of(run: Metrics) -> str:
    """Return what a run is called: the data set, and the embedder if it is the extra's."""
    return f"{run.dataset}-MiniLM" if run.embedder.startswith(MINILM) else run.dataset


def _found(folders: Sequence[Path], pattern: str) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.glob(pattern))]


def _show(runs: Mapping[str, Metrics], speeds: Sequence[Speed], console: Console) -> None:
    for run in runs.values():
        show_survival(run, console)
    for speed in speeds:
        show_times(speed, console)
    aims = {name: run.aims for name, run in runs.items()} | {f"{one.messages} stored": one.aims for one in speeds}
    show_aims(aims, console)
    judged = [one for listed in aims.values() for one in listed]
    console.print(f"{sum(one.is_met for one in judged)} of {len(judged)} aims met", highlight=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
