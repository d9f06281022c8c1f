"""How fast are backups and exports made and read, and do writes go on meanwhile?

    python -m benchmarks.bench_moving [--messages 20000]

A node in a process of its own is filled; then each copy is made over HTTP, first alone, then under a client that writes one
message after the other. Restore and import are the commands, in processes of their own.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles

import aiohttp

from tests.server_process import PROJECT, ServerProcess, find_free_port

BATCH = 250
TEXT = "the coffee machine is on the third floor, behind the meeting room, and it takes no coins, says number"


async def fill(http: aiohttp.ClientSession, messages: int) -> None:
    """Write so many messages, in batches, to a hundred sessions."""
    for start in range(0, messages, BATCH):
        batch = [{"role": "user", "content": f"{TEXT} {n}", "id": f"m{n}"} for n in range(start, start + BATCH)]
        async with http.post(f"/sessions/s{start // BATCH % 100}/messages", json={"messages": batch}) as answer:
            answer.raise_for_status()


async def download(http: aiohttp.ClientSession, path: str, file: Path | None) -> tuple[float, int]:
    """Take a copy; return the seconds and bytes that it took."""
    started_s, size_bytes = time.perf_counter(), 0
    parts: list[bytes] = []
    async with http.get(path) as answer:
        async for part in answer.content.iter_any():
            size_bytes += len(part)
            parts.append(part)
    took_s = time.perf_counter() - started_s
    if file is not None:
        await asyncio.to_thread(file.write_bytes, b"".join(parts))
    return took_s, size_bytes


async def write_until(http: aiohttp.ClientSession, done: asyncio.Event, least: int = 0) -> list[float]:
    """Write one message after the other until `done`, at least so many; return how long each took, in ms."""
    took_ms: list[float] = []
    while not done.is_set() or len(took_ms) < least:
        started_s = time.perf_counter()
        message = {"role": "user", "content": TEXT}
        async with http.post("/sessions/busy/messages", json=message) as answer:
            answer.raise_for_status()
        took_ms.append((time.perf_counter() - started_s) * 1000)
    return took_ms


def told(name: str, took_ms: Sequence[float]) -> None:
    """Print percentiles of writes."""
    cuts = quantiles(took_ms, n=100)
    print(f"writes {name}: {len(took_ms)}, p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms, max {max(took_ms):.1f} ms")


async def measure(server: ServerProcess, folder: Path, messages: int) -> None:
    """Fill the node, and copy it with and without writes."""
    done = asyncio.Event()
    done.set()
    async with aiohttp.ClientSession(server.url, timeout=aiohttp.ClientTimeout(total=None)) as http:
        await fill(http, messages)
        told("alone", await write_until(http, done, least=200))
        for path, name in (("/backup", "a.backup"), ("/export", "a.jsonl")):
            before_bytes = server.rss_bytes()
            took_s, size_bytes = await download(http, path, folder / name)
            grown = (server.rss_bytes() - before_bytes) / 1e6
            print(
                f"{path}: {messages / took_s:,.0f} messages/s, {size_bytes / took_s / 1e6:.0f} MB/s, "
                f"{size_bytes / 1e6:.0f} MB, the node grew by {grown:.0f} MB"
            )
            done = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                writes = group.create_task(write_until(http, done, least=20))
                took_s, _ = await download(http, path, None)
                done.set()
            told(f"while {path} takes {took_s:.1f} s", writes.result())


def command(*argv: str, cwd: Path) -> float:
    """Run a command; return the seconds it took."""
    started_s = time.perf_counter()
    environ = {**os.environ, "PYTHONPATH": str(PROJECT)}
    subprocess.run([sys.executable, "-m", "engram", *argv], cwd=cwd, env=environ, check=True, capture_output=True)
    return time.perf_counter() - started_s


def main() -> None:
    """Measure, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    messages = parser.parse_args().messages
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ServerProcess(folder / "node", find_free_port()) as server:
            asyncio.run(measure(server, folder, messages))
        for verb, file in (("restore", "a.backup"), ("import", "a.jsonl")):
            took_s = command(verb, file, "--data-dir", str(folder / verb), cwd=folder)
            print(f"{verb}: {messages / took_s:,.0f} messages/s, start of the process included")


if __name__ == "__main__":
    main()
