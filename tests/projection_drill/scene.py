"""What the drill has at hand: one engram process, one redis-server, their folders, and the clients between them."""

import asyncio
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import NamedTuple, TypeVar

from tests.cluster.asking import ask, ask_json
from tests.cluster.waiting import pause, wait_until
from tests.projection_drill.clients import Clients, Habits
from tests.projection_drill.uptime import Uptime
from tests.redis_server import RedisServer
from tests.server_process import ServerProcess, find_free_port

STARTING_KILL_SHARE = 0.25
"""Of the starts after a kill: those that are killed, too."""
STARTING_KILL_AFTER_S = (0.05, 1.5)
AWAY_S = (0.0, 0.5)
"""How long a killed node stays away."""
COMMAND_S_MAX = 120.0
SETTLED_S_MAX = 120.0
"""A feed that failed often waits up to a minute before it tries again."""
SETTLED_LOOKS = 3
POLL_S = 0.05
LOOK_EVERY_S = 0.7
"""Feeds look for new rows once a second: these looks, one after the other, cover more than that."""
TRIES = 50
SNAPSHOT_THRESHOLD = 300
"""So short that most of the log is history, as on a node that has run for long."""

T = TypeVar("T")


class Told(NamedTuple):
    """What a command came to."""

    code: int
    text: str


class NodeProcess(ServerProcess):
    """An engram process, and commands over its folder while it does not run."""

    def __init__(self, folder: Path, port: int, environ: Mapping[str, str]) -> None:
        super().__init__(folder, port, environ)
        self.data = folder / "data"

    def command(self, *arguments: str) -> Told:
        """Run `engram ...` with the node's settings and wait for its end."""
        done = subprocess.run(
            [sys.executable, "-m", "engram", *arguments],
            cwd=self._folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=COMMAND_S_MAX,
        )
        return Told(done.returncode, done.stdout)


class Scene:
    """One run of the drill."""

    def __init__(self, folder: Path, seed: str, habits: Habits) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.redis_port = find_free_port()
        self.redis = RedisServer(folder / "redis", self.redis_port, appendonly=True)
        self.environ = {
            "SHORT_TERM_COUNT": str(habits.short_term_count),
            "REDIS_URL": self.redis.url,
            "LOG_FORMAT": "json",
            "SNAPSHOT_LOG_THRESHOLD": str(SNAPSHOT_THRESHOLD),
        }
        self.node = NodeProcess(folder / "node", find_free_port(), self.environ)
        self.uptime = Uptime()
        self.clients = Clients(self.node.port, seed, habits, self.uptime)
        self.problems: list[str] = []
        self.notes: dict[str, list[float]] = {}
        """Measurements, by what they say."""
        self.older_projections: Path | None = None
        """A copy of the read models' files as they were at an earlier moment at which the node was dead."""
        self.older_redis: bytes | None = None
        """A snapshot file of an earlier moment."""
        self.older_keys: dict[bytes, bytes] | None = None
        """What Redis held at an earlier moment, as DUMP gives it."""
        self._node_lock = asyncio.Lock()
        self._redis_lock = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def running(cls, folder: Path, seed: str, habits: Habits) -> AsyncIterator["Scene"]:
        """Start both servers; kill them at the end."""
        scene = cls(folder, seed, habits)
        async with AsyncExitStack() as started:
            started.callback(scene.node.kill)
            started.callback(scene.end_redis)
            await aside(scene.redis.start)
            await aside(scene.node.start)
            yield scene

    @asynccontextmanager
    async def node_killed(self) -> AsyncIterator[None]:
        """The node is killed now and started again when this is left, now and then killed once more meanwhile."""
        async with self._node_lock:
            with self.uptime.down():
                await aside(self.node.kill)
                yield
                await pause(self.rng.uniform(*AWAY_S))
                if self.rng.random() < STARTING_KILL_SHARE:
                    await aside(lambda: self.node.start_and_kill(self.rng.uniform(*STARTING_KILL_AFTER_S)))
                self.note("node ready again after s", await aside(self.node.start))

    @asynccontextmanager
    async def node_stopped(self) -> AsyncIterator[None]:
        """The node is asked to end, as it has to within a few seconds, and is started again when this is left."""
        async with self._node_lock:
            with self.uptime.down():
                await self.stop_node()
                yield
                self.note("node ready again after s", await aside(self.node.start))

    async def stop_node(self) -> None:
        """Ask the node to end; another exit code than 0 is a problem."""
        code = await aside(self.node.stop)
        if code != 0:
            self.problems.append(f"exit code {code} after SIGTERM: {self.node.log[-500:]}")

    @asynccontextmanager
    async def redis_held(self) -> AsyncIterator[RedisServer]:
        """Nobody else does anything to the Redis server meanwhile; it runs when this is left."""
        async with self._redis_lock:
            yield self.redis
            if not self.redis.is_running:
                await aside(self.redis.start)

    def exchange_redis(self, *, appendonly: bool) -> RedisServer:
        """Return the server that takes the place of the one that was killed, over the same files."""
        assert not self.redis.is_running, "it runs"
        self.redis = RedisServer(self.redis.folder, self.redis_port, appendonly=appendonly)
        return self.redis

    def end_redis(self) -> None:
        """Kill the server that is there now."""
        self.redis.kill()

    async def write_on(self, low_s: float, high_s: float) -> None:
        """Let the clients work for some time between these."""
        await pause(self.rng.uniform(low_s, high_s))

    def note(self, what: str, value: float) -> None:
        """Keep a measurement."""
        self.notes.setdefault(what, []).append(round(value, 3))

    async def wait_settled(self) -> None:
        """Wait until every store has all that there is.

        Raises:
            NeverError: One does not get there.
        """
        looks = 0

        async def is_settled() -> bool:
            nonlocal looks
            looks = looks + 1 if await self._has_no_lag() else 0
            return looks >= SETTLED_LOOKS

        await wait_until(is_settled, "all stores are current", within_s=SETTLED_S_MAX, every_s=LOOK_EVERY_S)

    async def wait_redis_serves(self) -> float:
        """Wait until readers are answered by Redis; return the seconds that it took.

        Raises:
            NeverError: It does not get there.
        """
        begun_s = perf_counter()
        await wait_until(self._redis_serves, "Redis serves readers again", within_s=SETTLED_S_MAX, every_s=POLL_S)
        return perf_counter() - begun_s

    async def wait_clients_went_on(self, acknowledged: int, from_s: float) -> None:
        """Wait until more messages than these are acknowledged, and a read was answered since then.

        Raises:
            NeverError: It does not get there.
        """

        async def went_on() -> bool:
            is_read = any(one.kind == "read" for one in self.clients.asked(from_s, perf_counter()))
            return is_read and self.clients.acknowledged > acknowledged

        await wait_until(went_on, "clients write and read again", within_s=SETTLED_S_MAX, every_s=POLL_S)

    async def _redis_serves(self) -> bool:
        ready = await ask_json(self.node.port, "/ready")
        return ready is not None and any(one["name"] == "redis" and one["ready"] for one in ready["dependencies"])

    async def _has_no_lag(self) -> bool:
        ready = await ask_json(self.node.port, "/ready")
        metrics = await ask(self.node.port, "GET", "/metrics")
        if ready is None or metrics is None:
            return False
        is_open = all(dependency["ready"] for dependency in ready["dependencies"])
        return is_open and not any(lags(metrics.body.decode()).values())


def lags(metrics: str) -> dict[str, float]:
    """Return how far each projection is behind, from the text of /metrics."""
    found: dict[str, float] = {}
    for line in metrics.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("engram_projection_lag_entries{"):
            found[name.partition('"')[2].partition('"')[0]] = float(value)
    return found


async def aside(function: Callable[[], T]) -> T:
    """Do what blocks in a thread, while the clients go on."""
    return await asyncio.to_thread(function)


def copy_files(source: Path, pattern: str, target: Path) -> None:
    """Copy the files that match, into a folder that is new."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in source.glob(pattern):
        shutil.copy(path, target)


def delete_files(folder: Path, pattern: str) -> None:
    """Delete the files that match."""
    for path in folder.glob(pattern):
        path.unlink()


def delete_tree(folder: Path) -> None:
    """Delete a folder, also while somebody writes into it."""
    for _ in range(TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
