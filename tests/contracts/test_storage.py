from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from engram.log.changes import Append
from engram.log.consensus.types import ConfState, Entry, HardState
from engram.log.sqlite import SqliteLog
from engram.log.storage import MemoryStorage, Storage
from tests.contracts.storage_contract import StorageContract, Written
from tests.log.logs import opened


class InMemory:
    def __init__(self) -> None:
        self._storage = MemoryStorage()

    @property
    def storage(self) -> Storage:
        return self._storage

    async def append(self, entries: Sequence[Entry]) -> None:
        self._storage.append(entries)

    async def set_hard_state(self, hard_state: HardState) -> None:
        self._storage.set_hard_state(hard_state)

    async def make_snapshot(self, index: int, members: ConfState) -> None:
        self._storage.create_snapshot(index, b"", members)

    async def compact(self, index: int, members: ConfState) -> None:
        await self.make_snapshot(index, members)
        self._storage.compact(index)


class OnDisk:
    def __init__(self, log: SqliteLog) -> None:
        self._log = log

    @property
    def storage(self) -> Storage:
        return self._log

    async def append(self, entries: Sequence[Entry]) -> None:
        await self._log.append([Append(entries=entries)])

    async def set_hard_state(self, hard_state: HardState) -> None:
        await self._log.append([Append(hard_state=hard_state)])

    async def make_snapshot(self, index: int, members: ConfState) -> None:
        await self._log.move_base(index, members, {})

    async def compact(self, index: int, members: ConfState) -> None:
        await self.make_snapshot(index, members)
        self._log.trim(index)


class TestMemoryStorage(StorageContract):
    @pytest.fixture
    def written(self) -> Written:
        return InMemory()


class TestSqliteLog(StorageContract):
    @pytest.fixture
    async def written(self, tmp_path: Path) -> AsyncIterator[Written]:
        async with opened(tmp_path / "raft.db", window_bytes_max=0) as log:
            yield OnDisk(log)
