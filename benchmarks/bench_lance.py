"""Which index of LanceDB pays? Searches in one session and in everything, without an index and with each kind.

    python -m benchmarks.bench_lance            10 000 and 100 000 rows, some minutes; writes results/lance.json
    python -m benchmarks.bench_lance --quick    2 000 rows; writes nothing

The columns are those of the long-term store, in one merged file. A search takes the 10 nearest rows by cosine. Vectors are
256 numbers around a few hundred centres, as texts are around subjects; "found" is the share of the exact 10 that came.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lancedb
import lancedb.index
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.timing import Result, Timing, describe_machine, summarize
from engram import __version__
from engram.projections.lance_rows import Space, schema

RESULTS = Path(__file__).parent / "results"
SIZES, QUICK_SIZES = (10_000, 100_000), (2_000,)
SEARCHES, QUICK_SEARCHES = 60, 5
DIMENSION = 256
CENTRES = 300
SESSION_ROWS = 100
NEAREST = 10
PARTITION_ROWS = 400
PROBES, REFINE = 20, 10

Floats = npt.NDArray[np.float32]


class Report(msgspec.Struct, kw_only=True):
    """One run, as it is written down."""

    version: str
    machine: dict[str, str]
    results: list[Result]


def main(arguments: Sequence[str]) -> int:
    """Measure, show a table, and keep the results of a full run."""
    parser = argparse.ArgumentParser(prog="bench_lance", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once, small, and keep nothing")
    options = parser.parse_args(arguments)
    sizes, searches = (QUICK_SIZES, QUICK_SEARCHES) if options.quick else (SIZES, SEARCHES)
    console = Console()
    results: list[Result] = []
    with Progress(console=console) as progress:
        task = progress.add_task("LanceDB", total=5 * len(sizes))
        for rows in sizes:
            with tempfile.TemporaryDirectory() as name:
                bench = _Bench(Path(name), rows, searches)
                for kind in (bench.plain, bench.bitmap, bench.btree, bench.ivf_flat, bench.ivf_pq):
                    progress.update(task, description=f"{rows} rows, {kind.__name__}")
                    results += kind()
                    progress.advance(task)
    console.print(_table(results))
    if not options.quick:
        report = Report(version=__version__, machine=describe_machine(), results=results)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "lance.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return 0


class _Bench:
    """A table, and the searches in it."""

    def __init__(self, folder: Path, rows: int, searches: int) -> None:
        self._rows = rows
        self._searches = searches
        self._partitions = max(1, rows // PARTITION_ROWS)
        self._rng = np.random.default_rng(1)
        self._centres = _normalized(self._rng.normal(size=(CENTRES, DIMENSION)))
        columns = schema(pa, Space("bench", DIMENSION))
        self._table: Any = lancedb.connect(folder).create_table("memories", schema=columns)
        self._table.add(self._content(columns))
        self._table.optimize()
        self._queries = self._near_centres(searches)
        self._exact = [self._found(query, None) for query in self._queries]

    def plain(self) -> list[Result]:
        """Measure without an index."""
        return [self._session("no index"), self._everything("no index")]

    def bitmap(self) -> list[Result]:
        """Measure with a bitmap on the session."""
        return self._scalar("bitmap", lancedb.index.Bitmap())

    def btree(self) -> list[Result]:
        """Measure with a tree on the session."""
        return self._scalar("btree", lancedb.index.BTree())

    def ivf_flat(self) -> list[Result]:
        """Measure with whole vectors in partitions."""
        return self._vector("IVF_FLAT", lancedb.index.IvfFlat(distance_type="cosine", num_partitions=self._partitions))

    def ivf_pq(self) -> list[Result]:
        """Measure with quantized vectors in partitions, and the best ones compared exactly."""
        config = lancedb.index.IvfPq(
            distance_type="cosine", num_partitions=self._partitions, num_sub_vectors=DIMENSION // 8
        )
        return self._vector("IVF_PQ", config)

    def _scalar(self, name: str, config: Any) -> list[Result]:
        built_s = _seconds(lambda: self._table.create_index("session_id", config=config, name="by_session"))
        result = self._session(name)
        self._table.drop_index("by_session")
        return [msgspec.structs.replace(result, value=round(built_s, 2), unit="s to build")]

    def _vector(self, name: str, config: Any) -> list[Result]:
        built_s = _seconds(lambda: self._table.create_index("vector", config=config, name="by_vector"))
        result = self._everything(name)
        self._table.drop_index("by_vector")
        return [msgspec.structs.replace(result, unit=f"{result.unit}, {built_s:.1f} s to build")]

    def _session(self, case: str) -> Result:
        wanted = [int(number) for number in self._rng.integers(0, self._rows // SESSION_ROWS, self._searches)]
        took_s = [
            _seconds(lambda query=query, number=number: self._found(query, number))  # type: ignore[misc]
            for query, number in zip(self._queries, wanted, strict=True)
        ]
        return summarize("in one session", self._case(case), Timing(took_s, sum(took_s)))

    def _everything(self, case: str) -> Result:
        took_s: list[float] = []
        found = 0
        for query, exact in zip(self._queries, self._exact, strict=True):
            started_s = time.perf_counter()
            came = self._found(query, None)
            took_s.append(time.perf_counter() - started_s)
            found += len(came & exact)
        result = summarize("in everything", self._case(case), Timing(took_s, sum(took_s)))
        share = found / sum(map(len, self._exact))
        return msgspec.structs.replace(result, value=round(share, 3), unit="found")

    def _case(self, case: str) -> str:
        return f"{self._rows} rows, {case}"

    def _found(self, query: Floats, session: int | None) -> frozenset[str]:
        search = self._table.search(query, vector_column_name="vector").distance_type("cosine")
        search = search.nprobes(PROBES).refine_factor(REFINE).limit(NEAREST).select(["message_id", "_distance"])
        if session is not None:
            search = search.where(f"session_id = 's{session}'", prefilter=True)
        return frozenset(search.to_arrow()["message_id"].to_pylist())

    def _near_centres(self, count: int) -> Floats:
        around = self._centres[self._rng.integers(0, CENTRES, count)]
        return _normalized(around + 0.06 * self._rng.normal(size=(count, DIMENSION)))

    def _content(self, columns: Any) -> Any:
        numbers = range(self._rows)
        text = ["some text of about the length that a message has, one or two sentences in all"] * self._rows
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(self._near_centres(self._rows).ravel()), DIMENSION)
        values = {
            "session_id": [f"s{number // SESSION_ROWS}" for number in numbers],
            "message_id": [f"m{number}" for number in numbers],
            "ordinal": list(numbers),
            "chunk": [0] * self._rows,
            "tenant": ["default"] * self._rows,
            "agent_id": [None] * self._rows,
            "user_id": [None] * self._rows,
            "role": ["user"] * self._rows,
            "name": [None] * self._rows,
            "text": text,
            "when": list(numbers),
            "log_index": list(numbers),
            "vector": vectors,
        }
        return pa.table(values, schema=columns)


def _normalized(rows: npt.NDArray[Any]) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _seconds(call: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    call()
    return time.perf_counter() - started_s


def _table(results: Sequence[Result]) -> Table:
    table = Table(title="LanceDB")
    for heading in ("search", "case", "p50 ms", "p99 ms", "besides"):
        table.add_column(heading, justify="left" if heading in {"search", "case"} else "right")
    for each in results:
        besides = "" if each.value is None else f"{each.value} {each.unit}"
        table.add_row(each.question, each.case, f"{each.p50_ms:,.1f}", f"{each.p99_ms:,.1f}", besides)
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
