"""How long things took, and what the machine itself can do."""

import math
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

APPEND_BYTES = 4096


class Timing(NamedTuple):
    """Latencies of the requests of one run, and how long the run took as a whole."""

    latencies_s: Sequence[float]
    run_s: float

    def quantile_ms(self, share: float) -> float:
        """Return the latency that `share` of the requests did not exceed, in milliseconds."""
        ranked = sorted(self.latencies_s)
        return 1000 * ranked[max(0, math.ceil(share * len(ranked)) - 1)]


class Result(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of the table."""

    question: str
    case: str
    requests: int = 0
    per_s: float | None = None
    """Messages or requests a second, over the whole run."""
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    value: float | None = None
    unit: str = ""


def summarize(question: str, case: str, timing: Timing, *, items: int = 1) -> Result:
    """Return the line for `timing`, whose every request carried `items` things."""
    return Result(
        question=question,
        case=case,
        requests=len(timing.latencies_s),
        per_s=round(len(timing.latencies_s) * items / timing.run_s, 1),
        p50_ms=round(timing.quantile_ms(0.5), 3),
        p95_ms=round(timing.quantile_ms(0.95), 3),
        p99_ms=round(timing.quantile_ms(0.99), 3),
    )


def time_appends(folder: Path, count: int) -> Timing:
    """Append 4 KiB and wait for the disk, `count` times: what one durable write costs here at least."""
    path = folder / "append.tmp"
    block = os.urandom(APPEND_BYTES)
    latencies_s: list[float] = []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        for _ in range(count):
            started_s = time.perf_counter()
            os.write(descriptor, block)
            os.fdatasync(descriptor)
            latencies_s.append(time.perf_counter() - started_s)
    finally:
        os.close(descriptor)
        path.unlink()
    return Timing(latencies_s, sum(latencies_s))


def describe_machine() -> dict[str, str]:
    """Return what the numbers depend on, and nothing that identifies the machine."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": models[0] if models else platform.machine(),
        "python": platform.python_version(),
        "system": platform.system(),
        "load_before": f"{os.getloadavg()[0]:.2f}",
    }
