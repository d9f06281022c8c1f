"""A real redis-server in a process of its own, for tests, drills and benchmarks that stop, pause, kill and lose it.

    with RedisServer(tmp_path / "redis", find_free_port()) as server:
        server.url             # redis://127.0.0.1:port/0, for REDIS_URL
        server.flush()         # FLUSHALL
        server.pause()         # SIGSTOP: connections stay open, nothing answers
        server.resume()
        server.kill()          # SIGKILL, as a power cut
        server.start()         # what was on its disk is there again
        server.stop()          # SIGTERM: it saves first, if it persists
        server.save_copy()     # the bytes of a snapshot of now, for restore(...)
        server.restore(copy)   # an older state comes back under the same address

All calls block; they are for the tests' own code, not for the product's.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

HAS_REDIS = shutil.which("redis-server") is not None
"""Whether there is a redis-server to start; `pytest.mark.skipif(not HAS_REDIS, ...)` where there may be none."""

START_S_MAX = 20.0
STOP_S_MAX = 20.0
POLL_S = 0.01


class RedisDiedError(Exception):
    """The server ended by itself, or never answered; the message has the end of what it wrote."""


class RedisServer:
    """One redis-server on 127.0.0.1 with its files in `folder`. Without `appendonly` and `save` nothing is on its disk."""

    def __init__(
        self,
        folder: Path,
        port: int,
        *,
        appendonly: bool = False,
        save: str = "",
        password: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.port = port
        self.password = password
        self.is_paused = False
        self._appendonly = appendonly
        self._save = save
        self._options = tuple(options)
        self._log_path = folder / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """Its address as a setting names it, database 0."""
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        """Return its address with another database."""
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """The process that serves, or served last."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process is there, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def start(self) -> None:
        """Start it on what its folder holds; returns when it answers.

        Raises:
            RedisDiedError: It ended, or did not answer in time.
        """
        assert not self.is_running, "it runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.is_paused = False
        self._wait_ready()

    def stop(self) -> None:
        """Ask it to end (SIGTERM) and wait until it has."""
        assert self._process is not None, "not started"
        self.resume()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(STOP_S_MAX)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.is_paused = False

    def pause(self) -> None:
        """Let it hang (SIGSTOP): what is sent to it waits in its sockets."""
        os.kill(self.pid, signal.SIGSTOP)
        self.is_paused = True

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        if self.is_paused and self.is_running:
            os.kill(self.pid, signal.SIGCONT)
        self.is_paused = False

    def flush(self) -> None:
        """Empty all its databases."""
        with self.client() as client:
            client.flushall()

    def client(self, database: int = 0) -> contextlib.AbstractContextManager[Any]:
        """Return a connection of the test's own, closed when it is left."""
        return contextlib.closing(
            redis.Redis(host="127.0.0.1", port=self.port, db=database, password=self.password, socket_timeout=10)
        )

    def contents(self, database: int = 0) -> dict[str, Any]:
        """Return every key with its value, as plain text, lists and dictionaries."""
        with self.client(database) as client:
            return {key.decode(errors="replace"): _value(client, key) for key in sorted(client.scan_iter(count=1000))}

    def save_copy(self) -> bytes:
        """Write a snapshot (SAVE) and return its bytes."""
        with self.client() as client:
            client.save()
        return self.snapshot_path.read_bytes()

    def restore(self, snapshot: bytes) -> None:
        """Kill it and start it on an older snapshot; its append-only file goes."""
        self.kill()
        shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
        self.snapshot_path.write_bytes(snapshot)
        self._start_from_snapshot()

    def erase(self) -> None:
        """Delete what it has on its disk; only while it does not run."""
        assert not self.is_running, "it runs"
        shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
        self.snapshot_path.unlink(missing_ok=True)

    @property
    def snapshot_path(self) -> Path:
        """Where its snapshots lie."""
        return self.folder / "dump.rdb"

    def files_with(self, marker: str) -> Iterator[Path]:
        """Yield its files, its log left out, that hold `marker`."""
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path != self._log_path and marker.encode() in path.read_bytes():
                yield path

    def _start_from_snapshot(self) -> None:
        """Start it: with an append-only file it would read that alone, so it gets one of the snapshot first."""
        wanted, self._appendonly = self._appendonly, False
        self.start()
        self._appendonly = wanted
        if wanted:
            with self.client() as client:
                client.config_set("appendonly", "yes")
            self._wait_rewritten()

    def _wait_rewritten(self) -> None:
        with self.client() as client:
            ends_s = time.perf_counter() + START_S_MAX
            while time.perf_counter() < ends_s:
                state = client.info("persistence")
                if not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
                    return
                self._pause()
        raise RedisDiedError(f"its append-only file was not written:\n{self.log[-2000:]}")

    def _command(self) -> list[str]:
        secret = ["--requirepass", self.password] if self.password else []
        return [
            *("redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--save", self._save, "--appendonly", "yes" if self._appendonly else "no", "--appendfsync", "always"),
            *("--rdbcompression", "no"),  # so that a search through its files finds text
            *secret,
            *self._options,
        ]

    def _wait_ready(self) -> None:
        ends_s = time.perf_counter() + START_S_MAX
        while time.perf_counter() < ends_s:
            with self.client() as client, contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
                client.ping()
                return
            self._pause()
            if not self.is_running:
                break
        self.kill()
        raise RedisDiedError(f"it does not answer:\n{self.log[-2000:]}")

    def _pause(self) -> None:
        assert self._process is not None, "not started"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(POLL_S)


def _value(client: redis.Redis, key: bytes) -> Any:
    kind = client.type(key)
    if kind == b"list":
        return [_text(each) for each in client.lrange(key, 0, -1)]
    if kind == b"hash":
        return {_text(name): _text(value) for name, value in client.hgetall(key).items()}
    return _text(client.get(key))


def _text(value: bytes | str | None) -> str:
    """Return a value as text; nothing of a key that went while it was asked for."""
    assert not isinstance(value, str), "answers are not decoded"
    return "" if value is None else value.decode(errors="replace")
