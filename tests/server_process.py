"""A real server in a process of its own, for tests and benchmarks that need to kill it."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

PROJECT = Path(__file__).parents[1]

START_S_MAX = 60.0
"""Long enough for a busy machine; a server that needs this long is broken."""

STOP_S_MAX = 30.0
POLL_S = 0.01


class ServerDiedError(Exception):
    """The server ended by itself; the message has the end of what it wrote."""


class ServerProcess:
    """`python -m engram serve` with its data in `folder`, deaf to the settings of whoever runs the tests."""

    def __init__(self, folder: Path, port: int, environ: Mapping[str, str] | None = None) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.data = folder / "data"
        self._folder = folder
        self._log_path = folder / "server.log"
        self._environ = dict(environ or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """The process that serves, or served last."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written to standard output and error so far."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def start(self) -> float:
        """Start it and return the seconds until it was ready.

        Raises:
            ServerDiedError: It ended, or was not ready in time.
        """
        started_s = time.perf_counter()
        self._process = self._spawn()
        while not self._is_ready():
            if self._ended(POLL_S):
                raise ServerDiedError(f"exit code {self._process.returncode}:\n{self.log[-4000:]}")
            if time.perf_counter() - started_s > START_S_MAX:
                self.kill()
                raise ServerDiedError(f"not ready within {START_S_MAX:g} s:\n{self.log[-4000:]}")
        return time.perf_counter() - started_s

    def start_and_kill(self, after_s: float) -> None:
        """Start it and kill it `after_s` later, ready or not."""
        self._process = self._spawn()
        self._ended(after_s)
        self.kill()

    def kill(self) -> None:
        """End it as a power cut would: no handler runs, no buffer is flushed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """Ask it to end (SIGTERM) and return its exit code."""
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_S_MAX)

    def rss_bytes(self) -> int:
        """Return the memory it has resident."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "engram", "serve"],
                cwd=self._folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _environment(self) -> dict[str, str]:
        passed = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        ours = {
            "ENGRAM_BIND_ADDR": f"127.0.0.1:{self.port}",
            "ENGRAM_DATA_DIR": str(self.data),
            "PYTHONPATH": str(PROJECT),
        }
        return {**passed, **ours, **self._environ}

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _ended(self, within_s: float) -> bool:
        """Wait for its end, for so long at most."""
        assert self._process is not None, "not started"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        return self._process.returncode is not None


_ports = itertools.cycle(range(20_000, 32_000))
for _ in range(os.getpid() * 4_999 % 12_000):  # processes that test at the same time begin at different ports
    next(_ports)


def find_free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago.

    It is none of those that the system gives to connections: one that a test's client got would be taken from a node.
    """
    for port in _ports:
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("the range has no end")
