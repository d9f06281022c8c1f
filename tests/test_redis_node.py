"""A whole node with a real Redis: requests go on whatever becomes of it, and /ready and /metrics tell."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.waiting import wait_until
from tests.projections.redis_scene import needs_redis
from tests.redis_server import RedisServer
from tests.server_process import ServerDiedError, ServerProcess, find_free_port
from tests.test_node import ask

pytestmark = [needs_redis, pytest.mark.timeout(90)]

PASSWORD = "Sehr%3AGeheim"
WITHIN_S = 30.0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", find_free_port(), appendonly=True, password="Sehr:Geheim") as started:
        yield started


@pytest.fixture
def node(tmp_path: Path, redis: RedisServer) -> Iterator[ServerProcess]:
    environ = {"REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/2"}
    with ServerProcess(tmp_path / "node", find_free_port(), environ) as started:
        yield started


async def dependency(node: ServerProcess) -> dict[str, Any]:
    """Return what /ready says of Redis."""
    ready = json.loads(await ask(f"{node.url}/ready"))
    (found,) = [each for each in ready["dependencies"] if each["name"] == "redis"]
    return dict(found)


async def wait_for(node: ServerProcess, detail: str, *, ready: bool) -> None:
    async def holds() -> bool:
        told = await dependency(node)
        return told["ready"] is ready and detail in told["detail"]

    await wait_until(holds, f"Redis is ready={ready} and {detail!r}", within_s=WITHIN_S)


async def say(node: ServerProcess, content: str) -> None:
    assert await ask(f"{node.url}/sessions/s1/messages", "POST", {"role": "user", "content": content}) == ""


async def context(node: ServerProcess) -> str:
    return str(json.loads(await ask(f"{node.url}/sessions/s1/context"))["context"])


async def test_requests_go_on_whatever_becomes_of_redis(node: ServerProcess, redis: RedisServer) -> None:
    await wait_for(node, "current", ready=True)
    await say(node, "one")
    await ask(f"{node.url}/sessions/s1/core-memory", "PUT", {"fact": "a fact"})
    misfortunes = [redis.flush, redis.pause, redis.resume, redis.kill, redis.start, redis.stop, redis.start]
    for number, befall in enumerate(misfortunes):
        befall()
        await say(node, f"number {number}")

        told = await context(node)
        assert f"number {number}" in told
        assert "a fact" in told
        assert "a fact" in await ask(f"{node.url}/sessions/s1/core-memory")
    await wait_for(node, "current", ready=True)
    stored = redis.contents(2)["engram:1:default:s1:messages"]
    assert len(stored) == 1 + len(misfortunes)
    metrics = await ask(f"{node.url}/metrics")
    assert "engram_memory_short_term_store_errors_total{" in metrics
    assert 'engram_projection_lag_entries{projection="redis"} 0.0' in metrics


async def test_a_node_without_its_redis_is_ready_and_says_so(node: ServerProcess, redis: RedisServer) -> None:
    redis.kill()
    await say(node, "one")
    await wait_for(node, "Connection", ready=False)

    assert json.loads(await ask(f"{node.url}/ready"))["status"] == "ready"
    assert (await dependency(node))["required"] is False
    assert "one" in await context(node)
    assert node.stop() == 0


async def test_what_is_deleted_leaves_redis_before_it_is_answered_and_its_files_soon(
    node: ServerProcess, redis: RedisServer
) -> None:
    await say(node, "MARKED")
    await ask(f"{node.url}/sessions/s2/core-memory", "PUT", {"fact": "MARKED too", "id": "f1"})

    async def is_there() -> bool:
        return str(redis.contents(2)).count("MARKED") == 2

    await wait_until(is_there, "both are in Redis", within_s=WITHIN_S)
    await ask(f"{node.url}/sessions/s1", "DELETE")
    await ask(f"{node.url}/sessions/s2/core-memory/f1", "DELETE")

    assert "MARKED" not in str(redis.contents(2))

    async def is_forgotten() -> bool:
        return not list(redis.files_with("MARKED"))

    await wait_until(is_forgotten, "its files are written anew", within_s=WITHIN_S)


async def test_passwords_are_in_no_answer_and_no_log(tmp_path: Path, redis: RedisServer) -> None:
    environ = {"REDIS_URL": f"redis://someone:wrong-{PASSWORD}@127.0.0.1:{redis.port}/2"}
    with ServerProcess(tmp_path / "node", find_free_port(), environ) as node:
        await wait_for(node, "AuthenticationError", ready=False)
        told = await ask(f"{node.url}/ready")

        assert node.stop() == 0
    assert "Geheim" not in told + node.log


async def test_an_option_that_is_not_known_stops_the_start(tmp_path: Path) -> None:
    environ = {"REDIS_URL": "redis://:Geheim@localhost/0?socket_timeout=9"}
    node = ServerProcess(tmp_path / "node", find_free_port(), environ)

    with pytest.raises(ServerDiedError, match="exit code 2"):
        await asyncio.to_thread(node.start)

    assert "REDIS_URL (its value is not shown) has the option 'socket_timeout'" in node.log
    assert "Geheim" not in node.log


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    folder = tmp_path / "tls"
    folder.mkdir()
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.mark.thorough
async def test_a_server_behind_tls_is_used_and_its_certificate_checked(tmp_path: Path, certificates: Path) -> None:
    tls_port = find_free_port()
    options = (
        *("--tls-port", str(tls_port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(certificates / "cert.pem"), "--tls-key-file", str(certificates / "key.pem")),
    )
    with RedisServer(tmp_path / "redis", find_free_port(), options=options) as redis:
        url = f"rediss://localhost:{tls_port}/1"
        trusting = {"REDIS_URL": f"{url}?ssl_ca_certs={certificates / 'cert.pem'}"}
        with ServerProcess(tmp_path / "node", find_free_port(), trusting) as node:
            await wait_for(node, "current", ready=True)
            await say(node, "over TLS")
            assert node.stop() == 0
        with ServerProcess(tmp_path / "careful", find_free_port(), {"REDIS_URL": url}) as node:
            await wait_for(node, "certificate", ready=False)
        assert "engram:1:default:s1:messages" in redis.contents(1)
