"""A restore that is killed leaves no log, or all of it; the next one makes it."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engram.events import MessageAppended, encode
from engram.log.consensus.types import Entry
from engram.log.sqlite import SqliteLog
from engram.moving.backup_format import BackupWriter, Head
from tests.server_process import PROJECT

ROWS = 6000
KILLS = 5 if os.environ.get("THOROUGH") else 1
SEED = 7

pytestmark = pytest.mark.timeout(180)
"""Each attempt is a process that takes a second to start, and more on a busy machine."""


def parts() -> Iterator[bytes]:
    """Yield a backup that takes a moment to restore."""
    writer = BackupWriter()
    yield writer.begin(Head(engram="0", created_at_ms=1, store_id="a-store", cluster_id="", node_id=1))
    for start in range(1, ROWS, 100):
        events = {index: MessageAppended(
            session_id="s", at_ms=1, message_id=f"m{index}", role="user", text="word " * 1000, tokens=1000
        ) for index in range(start, start + 100)}  # fmt: skip
        yield from writer.add([Entry(term=1, index=index, data=encode([event])) for index, event in events.items()])
    yield writer.end()


def restore(file: Path, data_dir: Path) -> subprocess.Popen[bytes]:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "engram", "restore", str(file), "--data-dir", str(data_dir)]
    return subprocess.Popen(command, env=environ, cwd=file.parent, stderr=subprocess.PIPE)


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


async def last_index(path: Path) -> int:
    """Return where a log ends, all of which is checked."""
    log = await SqliteLog.open(path)
    try:
        return log.state.last_index
    finally:
        await log.close()


def killed_when_written(process: subprocess.Popen[bytes], unfinished: Path, size_bytes: int) -> None:
    """Kill `process` once it has written so many bytes."""
    wal = unfinished.with_name(unfinished.name + "-wal")
    while process.poll() is None:
        if size_of(unfinished) + size_of(wal) >= size_bytes:
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()


async def test_a_killed_restore_leaves_no_log_or_all_of_it(tmp_path: Path) -> None:
    file, data_dir = tmp_path / "a.backup", tmp_path / "data"
    file.write_bytes(b"".join(parts()))
    log_path = data_dir / "raft" / "engram.db"
    unfinished = log_path.with_name("engram.db.restoring")
    rng = random.Random(SEED)

    for _ in range(KILLS):
        killed_when_written(restore(file, data_dir), unfinished, rng.randrange(1, file.stat().st_size))
        if log_path.exists():
            assert await last_index(log_path) == ROWS
            log_path.unlink()

    last = restore(file, data_dir)
    _, said = last.communicate()
    assert last.returncode == 0, said
    assert [path.name for path in log_path.parent.iterdir()] == ["engram.db"]
    assert await last_index(log_path) == ROWS
