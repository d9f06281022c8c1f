"""A node that is told to keep less history: seen from outside, with old entries in its log."""

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.cli.data_folder import DataFolder, conversation, message
from tests.server_process import ServerProcess

WITHIN_S_MAX = 25.0
REFUSED = "an attempt to say something else under the same id"


def ask(server: ServerProcess, path: str, body: object = None) -> Any:
    request = urllib.request.Request(
        f"{server.url}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        content = answer.read()
    return json.loads(content) if content else None


def reads(server: ServerProcess) -> list[Any]:
    """Return what readers get, without the index that it is answered at: each start adds an entry."""
    answers = [
        ask(server, "/sessions/s1/context?query=coffee"),
        ask(server, "/sessions/s1/messages"),
        ask(server, "/sessions/s1/core-memory"),
        ask(server, "/sessions/s1/search", {"query": "coffee machine", "top_k": 5}),
    ]
    return [{name: value for name, value in answer.items() if name != "index"} for answer in answers]


def reduced_entries(server: ServerProcess) -> float:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("engram_history_reduced_entries_total "))


def is_in_log(folder: DataFolder, text: str) -> bool:
    return any(text.encode() in path.read_bytes() for path in folder.log_path.parent.iterdir())


async def test_old_history_is_reduced_and_memory_stays_as_it_was(tmp_path: Path, free_port: int) -> None:
    folder = DataFolder(tmp_path / "data")
    await folder.write([*conversation(), message("s1", "m1", REFUSED)])
    with ServerProcess(tmp_path, free_port, {"SNAPSHOT_LOG_THRESHOLD": "1"}) as server:
        ask(server, "/sessions/s2/messages", {"role": "user", "content": "of today"})
        before = reads(server)
        server.stop()
    assert is_in_log(folder, REFUSED)

    environ = {"SNAPSHOT_LOG_THRESHOLD": "1", "ENGRAM_HISTORY_DAYS": "30"}
    with ServerProcess(tmp_path, free_port, environ) as server:
        deadline_s = time.perf_counter() + WITHIN_S_MAX
        while not reduced_entries(server):
            assert time.perf_counter() < deadline_s, server.log

        assert reads(server) == before
        assert not is_in_log(folder, REFUSED)
        server.stop()
        kept = await folder.digest()
        for path in folder.path.glob("projections.db*"):
            path.unlink()
        server.start()
        server.stop()

    assert await folder.digest() == kept
