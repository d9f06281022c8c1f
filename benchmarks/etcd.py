"""Three etcd nodes on one machine, to measure engram's cluster by; Debian's package etcd-server has them.

They are spoken to over HTTP and JSON, as engram is, by the same client. That is etcd's gateway, which passes each
request on to its gRPC server: slower than its own protocol, and the like of what engram's clients pay.
"""

import asyncio
import base64
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.cluster_load import Nodes, Turn
from benchmarks.connection import Answer, build_request
from tests.cluster.asking import ask
from tests.cluster.waiting import wait_until
from tests.server_process import find_free_port

NODES = 3
START_S_MAX = 30.0
OK = 200

TXN_OPS_MAX = 1000
"""etcd takes 128 puts in a transaction unless told otherwise."""


class EtcdDiedError(Exception):
    """A node ended by itself; the message has the end of what it wrote."""


def is_installed() -> bool:
    """Return whether there is an etcd to start."""
    return shutil.which("etcd") is not None


def version() -> str:
    """Return the installed etcd's version."""
    told = subprocess.run(["etcd", "--version"], check=True, capture_output=True, text=True)
    return told.stdout.splitlines()[0].rpartition(" ")[2]


class _Process:
    """One node."""

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        self._log_path = folder / f"{options['name']}.log"
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                ["etcd", *(f"--{name}={value}" for name, value in options.items())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raise if it has ended."""
        if self._process.poll() is not None:
            said = self._log_path.read_text(errors="replace")[-4000:]
            raise EtcdDiedError(f"exit code {self._process.returncode}:\n{said}")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Etcd:
    """What is asked of etcd: a session's messages are keys below the session's id."""

    name = "etcd"

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator[Nodes]:
        """Run three nodes with etcd's own settings, but for the size of transactions.

        Raises:
            EtcdDiedError: One ended by itself.
            NeverError: They did not find a leader.
        """
        await asyncio.to_thread(folder.mkdir)
        ports, peer_ports = ([find_free_port() for _ in range(NODES)] for _ in range(2))
        with ExitStack() as started:
            processes = []
            for number in range(NODES):
                processes.append(_Process(folder, _options(folder, number, ports, peer_ports)))
                started.callback(processes[-1].kill)
            pids = {port: process.pid for port, process in zip(ports, processes, strict=True)}
            nodes = Nodes(pids, lambda: _find_leader(ports, processes))
            await nodes.find_leader()
            yield nodes

    def write(self, session_id: str, number: int, turn: Turn) -> bytes:
        """Return the request that stores one message."""
        return build_request("POST", "/v3/kv/put", _put(session_id, number, turn))

    def write_batch(self, session_id: str, first: int, turns: Sequence[Turn]) -> bytes:
        """Return the request that stores all of `turns` or none."""
        puts = [{"requestPut": _put(session_id, first + at, turn)} for at, turn in enumerate(turns)]
        return build_request("POST", "/v3/kv/txn", {"success": puts})

    def read(self, session_id: str, number: int, *, linearizable: bool) -> bytes:
        """Return the request that reads one message, from what the node has unless `linearizable`."""
        wanted = {"key": _key(session_id, number), "serializable": not linearizable}
        return build_request("POST", "/v3/kv/range", wanted)

    def read_after(self, session_id: str, number: int, acknowledged: Answer) -> bytes:  # noqa: ARG002
        """Return the request that reads one message by whoever wrote it: only a linearizable read is sure to see it."""
        return self.read(session_id, number, linearizable=True)

    def is_missing(self, answer: Answer) -> bool:
        """Return whether `answer`, to a read, says that there is no such message."""
        return b'"kvs":' not in answer.body


def _options(folder: Path, number: int, ports: Sequence[int], peer_ports: Sequence[int]) -> dict[str, str]:
    client, peer = f"http://127.0.0.1:{ports[number]}", f"http://127.0.0.1:{peer_ports[number]}"
    return {
        "name": f"node-{number}",
        "data-dir": str(folder / f"node-{number}"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": ",".join(f"node-{at}=http://127.0.0.1:{port}" for at, port in enumerate(peer_ports)),
        "max-txn-ops": str(TXN_OPS_MAX),
        "logger": "zap",
        "log-level": "error",
    }


async def _find_leader(ports: Sequence[int], processes: Sequence[_Process]) -> int:
    """Return the port of the leader once all follow it."""
    leader_port = 0

    async def is_followed() -> bool:
        nonlocal leader_port
        for process in processes:
            process.check()
        told = {port: await _status(port) for port in ports}
        members = {status["header"]["member_id"]: port for port, status in told.items() if status is not None}
        leaders = {"" if status is None else status.get("leader", "") for status in told.values()}
        leader_port = members.get(next(iter(leaders)), 0) if len(leaders) == 1 else 0
        return leader_port != 0

    await wait_until(is_followed, "the three nodes of etcd have a leader", within_s=START_S_MAX)
    return leader_port


async def _status(port: int) -> dict[str, Any] | None:
    """Return what a node says of itself, None when it does not answer."""
    answer = await ask(port, "POST", "/v3/maintenance/status", {})
    if answer is None or answer.status != OK:
        return None
    content: dict[str, Any] = msgspec.json.decode(answer.body)
    return content


def _put(session_id: str, number: int, turn: Turn) -> dict[str, str]:
    return {"key": _key(session_id, number), "value": _text(msgspec.json.encode(turn))}


def _key(session_id: str, number: int) -> str:
    return _text(f"{session_id}/{number:08}".encode())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
