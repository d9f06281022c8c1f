"""What must hold when all is over: nothing lost, nothing twice, and every store says what the log says."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lancedb

from engram.projections.sqlite_store import PrimaryStore
from tests.projection_drill.expectations import Expected, wrong_facts, wrong_messages
from tests.projection_drill.readings import Readings, differing, facts_path, messages_path, read_everything
from tests.projection_drill.scene import NodeProcess, Scene, aside, copy_files
from tests.redis_server import RedisServer
from tests.server_process import find_free_port

EXAMPLES = 5
"""How many cases of one kind are told."""
ROWS_READ = 4096


async def judge(scene: Scene, seed: str) -> int:
    """Look for everything that is wrong and add it to the scene's problems; return how many reads were compared.

    The clients must have finished. The node is stopped meanwhile, and runs again afterwards.
    """
    sessions = [client.expected for client in scene.clients.all]
    await scene.wait_settled()
    hits = await aside(lambda: _hits(scene.redis))
    found = await read_everything(scene.node.port, sessions, seed)
    if await aside(lambda: _hits(scene.redis)) < hits + len(sessions):
        scene.problems.append("Redis is current, and nobody asked it for a session")
    scene.problems += _cut(_unlike_expected(sessions, found))
    without_redis = await _read_without_redis(scene, sessions, seed)
    scene.problems += [f"without Redis, {line}" for line in _cut(differing(found, without_redis))]
    await scene.wait_settled()
    async with scene.node_stopped():
        told = await aside(lambda: scene.node.command("verify"))
        if told.code != 0:
            scene.problems.append(f"the verification ended with {told.code}: {told.text[-1000:]}")
        wanted = await _fresh_fold(scene, sessions, seed)
        scene.problems += _cut(differing(wanted, found))
        scene.problems += _cut(await _long_term_differences(scene))
    return len(found)


async def _read_without_redis(scene: Scene, sessions: Sequence[Expected], seed: str) -> Readings:
    async with scene.redis_held() as redis:
        await aside(redis.stop)
        return await read_everything(scene.node.port, sessions, seed)


def _hits(redis: RedisServer) -> int:
    """Return how many keys were asked for and found since the server started."""
    with redis.client() as client:
        return int(client.info("stats")["keyspace_hits"])


async def _fresh_fold(scene: Scene, sessions: Sequence[Expected], seed: str) -> Readings:
    """Return what a node reads that has the log alone."""
    folder = scene.folder / "fresh"
    await aside(lambda: shutil.rmtree(folder, ignore_errors=True))
    await aside(lambda: copy_files(scene.node.data / "raft", "*", folder / "data" / "raft"))
    fresh = NodeProcess(folder, find_free_port(), {**scene.environ, "REDIS_URL": ""})
    try:
        await aside(fresh.start)
        return await read_everything(fresh.port, sessions, seed)
    finally:
        await aside(fresh.kill)


def _unlike_expected(sessions: Sequence[Expected], found: Readings) -> list[str]:
    """Return what of the acknowledged writes is not there, or not once."""
    wrong: list[str] = []
    for expected in sessions:
        messages, facts = found[messages_path(expected.session_id)], found[facts_path(expected.session_id)]
        if not expected.is_there:
            if messages is not None or facts != 404:
                wrong.append(f"{expected.session_id} is deleted, and there")
            continue
        complaints = (wrong_messages(expected, messages or []), wrong_facts(expected, facts))
        wrong += [f"{expected.session_id}: {complaint}" for complaint in complaints if complaint]
    return wrong


async def _long_term_differences(scene: Scene) -> list[str]:
    """Return how LanceDB's rows differ from those of the read models, neither of which is in use."""
    scratch = scene.folder / "scratch"
    await aside(lambda: copy_files(scene.node.data, "projections.db*", scratch))
    store = await PrimaryStore.open(scratch / "projections.db")
    try:
        wanted: list[tuple[Any, ...]] = []
        cursor = 0
        while rows := await store.embedded_after(cursor, ROWS_READ):
            wanted += [(row.session_id, row.message_id, row.chunk, row.log_index, row.text) for row in rows]
            cursor = rows[-1].log_index
    finally:
        await store.close()
    there = await aside(lambda: _long_term_rows(scene.node.data / "lancedb"))
    missing, stray = set(wanted) - set(there), set(there) - set(wanted)
    twice = len(there) - len(set(there))
    lines = [f"LanceDB lacks {row[:4]}, and {len(missing)} rows in all" for row in sorted(missing)[:1]]
    lines += [f"LanceDB has {row[:4]}, which nobody wrote, and {len(stray)} such rows" for row in sorted(stray)[:1]]
    return lines + ([f"LanceDB has {twice} rows twice"] if twice else [])


def _long_term_rows(folder: Path) -> list[tuple[Any, ...]]:
    table = lancedb.connect(str(folder)).open_table("memories")
    columns = ["session_id", "message_id", "chunk", "log_index", "text"]
    found = table.search().select(columns).to_arrow().to_pydict()
    return list(zip(*(found[name] for name in columns), strict=True))


def _cut(lines: Sequence[str]) -> list[str]:
    more = [f"and {len(lines) - EXAMPLES} more"] if len(lines) > EXAMPLES else []
    return [*lines[:EXAMPLES], *more]
