"""What is done to the projections: one function is one fault, at a moment that its caller picks."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.waiting import pause
from tests.projection_drill.scene import Scene, aside, copy_files, delete_files, delete_tree
from tests.redis_server import RedisServer

REDIS_AWAY_S = (0.0, 2.0)
PAUSE_S = (0.5, 3.0)
PROJECTIONS = "projections.db*"
DUMP_ALL = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  found[#found + 1] = key
  found[#found + 1] = redis.call('DUMP', key)
end
return found
"""
"""A script, so that it is all of one moment."""
OLDER_SHARE = 0.5
"""Of the deaths of the node: those whose files are kept, to be put back later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to hurt a projection."""

    play: Callable[[Scene], Coroutine[Any, Any, None]]
    of_redis: bool = False
    """It leaves the node alone, and so can come at the same time as one that does not."""


async def kill_node(scene: Scene) -> None:
    """`kill -9`, and a start on what is there."""
    async with scene.node_killed():
        await _keep_older(scene)


async def stop_node(scene: Scene) -> None:
    """SIGTERM, and a start."""
    async with scene.node_stopped():
        await _keep_older(scene)


async def delete_projections(scene: Scene) -> None:
    """The read models' file is gone after a kill."""
    async with scene.node_killed():
        await aside(lambda: delete_files(scene.node.data, PROJECTIONS))


async def put_back_projections(scene: Scene) -> None:
    """The read models' file is an older one after a kill, so that the other stores are ahead of it."""
    async with scene.node_killed():
        older = scene.older_projections
        if older is None:
            await _keep_older(scene, always=True)
            return
        await aside(lambda: delete_files(scene.node.data, PROJECTIONS))
        await aside(lambda: _put_back(older, scene.node.data))


async def damage_projections(scene: Scene) -> None:
    """One bit of the read models' file flips while the node is dead: a verification finds it, or it says nothing.

    SQLite has no checksums, so a flipped letter would be served as it is. That is what the verification is for.
    """
    async with scene.node_killed():
        path = scene.node.data / "projections.db"
        place = scene.rng.randrange(max(1, path.stat().st_size)) if path.exists() else 0
        bit = scene.rng.randrange(8)
        await aside(lambda: _flip(path, place, bit))
        found = await aside(lambda: scene.node.command("verify"))
        scene.note("flipped bits that mattered", float(found.code != 0))
        if found.code != 0:
            mended = await aside(lambda: scene.node.command("rebuild", "projections"))
            if mended.code != 0:
                scene.problems.append(f"engram rebuild projections ended with {mended.code}: {mended.text[-500:]}")


async def delete_lance_while_stopped(scene: Scene) -> None:
    """LanceDB's folder is gone after a kill."""
    async with scene.node_killed():
        await aside(lambda: delete_tree(scene.node.data / "lancedb"))


async def delete_lance_while_running(scene: Scene) -> None:
    """LanceDB's folder goes while the node writes into it."""
    await aside(lambda: delete_tree(scene.node.data / "lancedb"))


async def kill_redis(scene: Scene) -> None:
    """`kill -9`, and after a while a start: on its append-only file, or on an old snapshot or nothing."""
    async with scene.redis_held() as redis:
        await aside(redis.kill)
        await pause(scene.rng.uniform(*REDIS_AWAY_S))
        scene.exchange_redis(appendonly=scene.rng.random() < 0.5)


async def stop_redis(scene: Scene) -> None:
    """SIGTERM, and after a while a start."""
    async with scene.redis_held() as redis:
        await aside(redis.stop)
        await pause(scene.rng.uniform(*REDIS_AWAY_S))


async def flush_redis(scene: Scene) -> None:
    """FLUSHALL."""
    async with scene.redis_held() as redis:
        await aside(redis.flush)


async def put_back_redis(scene: Scene) -> None:
    """It is killed, and starts on a snapshot of an earlier moment."""
    async with scene.redis_held() as redis:
        older, newer = scene.older_redis, await aside(redis.save_copy)
        scene.older_redis = newer
        if older is None:
            await pause(scene.rng.uniform(*REDIS_AWAY_S))
            older = newer
        await aside(lambda: redis.restore(older))


async def turn_back_redis(scene: Scene) -> None:
    """It holds what it held at an earlier moment, and no connection breaks: a replica that was behind took over."""
    async with scene.redis_held() as redis:
        older = scene.older_keys
        scene.older_keys = await aside(lambda: _dump(redis))
        if older is not None:
            await aside(lambda: _load(redis, older))


async def exchange_redis(scene: Scene) -> None:
    """Another server, empty, answers at its address."""
    async with scene.redis_held() as redis:
        await aside(redis.kill)
        await aside(redis.erase)


async def pause_redis(scene: Scene) -> None:
    """SIGSTOP for seconds: connections stay open and nothing answers."""
    async with scene.redis_held() as redis:
        redis.pause()
        try:
            await pause(scene.rng.uniform(*PAUSE_S))
        finally:
            redis.resume()


FAULTS: Mapping[str, Fault] = {
    "kill-node": Fault(play=kill_node),
    "stop-node": Fault(play=stop_node),
    "delete-projections": Fault(play=delete_projections),
    "older-projections": Fault(play=put_back_projections),
    "damaged-projections": Fault(play=damage_projections),
    "delete-lancedb": Fault(play=delete_lance_while_stopped),
    "delete-lancedb-running": Fault(play=delete_lance_while_running),
    "kill-redis": Fault(play=kill_redis, of_redis=True),
    "stop-redis": Fault(play=stop_redis, of_redis=True),
    "flush-redis": Fault(play=flush_redis, of_redis=True),
    "older-redis": Fault(play=put_back_redis, of_redis=True),
    "older-redis-running": Fault(play=turn_back_redis, of_redis=True),
    "other-redis": Fault(play=exchange_redis, of_redis=True),
    "pause-redis": Fault(play=pause_redis, of_redis=True),
}


async def _keep_older(scene: Scene, *, always: bool = False) -> None:
    if always or scene.rng.random() < OLDER_SHARE:
        target = scene.folder / "older"
        await aside(lambda: copy_files(scene.node.data, PROJECTIONS, target))
        scene.older_projections = target


def _dump(redis: RedisServer) -> dict[bytes, bytes]:
    with redis.client() as client:
        found: list[bytes] = client.eval(DUMP_ALL, 0)
    return dict(zip(found[::2], found[1::2], strict=True))


def _load(redis: RedisServer, keys: Mapping[bytes, bytes]) -> None:
    """Put these keys in the place of all others, in one step."""
    with redis.client() as client, client.pipeline(transaction=True) as step:
        step.flushall()
        for key, value in keys.items():
            step.restore(key, 0, value)
        step.execute()


def _put_back(source: Path, target: Path) -> None:
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())


def _flip(path: Path, place: int, bit: int) -> None:
    if path.exists():
        content = bytearray(path.read_bytes())
        content[place] ^= 1 << bit
        path.write_bytes(content)
