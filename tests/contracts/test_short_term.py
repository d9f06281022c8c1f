from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engram.events import Event
from engram.projections.rows import FactRow
from engram.projections.sqlite_reads import Conversation
from engram.projections.sqlite_store import PrimaryStore
from tests.contracts.short_term_contract import ShortTerm, ShortTermContract
from tests.projections.redis_scene import Scene, needs_redis, primary_in
from tests.redis_server import RedisServer
from tests.server_process import find_free_port


class Embedded:
    """The primary store itself."""

    def __init__(self, primary: PrimaryStore, scene: Scene) -> None:
        self._primary = primary
        self._scene = scene

    async def write(self, *events: Event) -> None:
        await self._scene.write(*events)

    async def conversation(self, session_id: str, tenant: str, limit: int) -> Conversation | None:
        return await self._primary.conversation(session_id, tenant, limit)

    async def core(self, session_id: str, tenant: str) -> list[FactRow] | None:
        return await self._primary.core(session_id, tenant)


class InRedis:
    """Redis alone: where it would not be asked, the test fails."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    async def write(self, *events: Event) -> None:
        await self._scene.write(*events)
        await self._scene.settle()

    async def conversation(self, session_id: str, tenant: str, limit: int) -> Conversation | None:
        assert self._scene.is_trusted(session_id)
        known = await self._scene.memory.conversation(session_id, tenant, limit)
        assert not self._scene.failures.operations
        return known

    async def core(self, session_id: str, tenant: str) -> list[FactRow] | None:
        assert self._scene.is_trusted(session_id)
        return await self._scene.memory.core(session_id, tenant)


class WhileRedisIsAway(Embedded):
    """What readers are told when there is no server."""

    async def conversation(self, session_id: str, tenant: str, limit: int) -> Conversation | None:
        return await self._scene.memory.conversation(session_id, tenant, limit)

    async def core(self, session_id: str, tenant: str) -> list[FactRow] | None:
        return await self._scene.memory.core(session_id, tenant)


class TestEmbedded(ShortTermContract):
    @pytest.fixture
    async def memory(self, tmp_path: Path) -> AsyncIterator[ShortTerm]:
        async with primary_in(tmp_path / "primary") as primary:
            yield Embedded(primary, Scene(primary, "redis://127.0.0.1:1"))


@needs_redis
class TestRedis(ShortTermContract):
    @pytest.fixture
    async def memory(self, tmp_path: Path) -> AsyncIterator[ShortTerm]:
        with RedisServer(tmp_path / "redis", find_free_port()) as server:
            async with (
                primary_in(tmp_path / "primary") as primary,
                Scene(primary, server.url, window=20).fed() as scene,
            ):
                yield InRedis(scene)


class TestRedisAway(ShortTermContract):
    @pytest.fixture
    async def memory(self, tmp_path: Path) -> AsyncIterator[ShortTerm]:
        async with primary_in(tmp_path / "primary") as primary:
            scene = Scene(primary, f"redis://127.0.0.1:{find_free_port()}")
            async with scene.running():
                yield WhileRedisIsAway(primary, scene)
