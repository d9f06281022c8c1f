"""Copies wait for what was deleted before them, and are few at a time."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from engram.errors import NotReadyError, OverloadedError
from engram.moving import copying
from engram.moving.backup_format import Head
from engram.moving.copying import COPIES_MAX, Copier
from engram.projections.eraser import Eraser
from tests.projections.histories import Entry, History, MemoryLog, deleted, entries_of, open_store, said

HEAD = Head(engram="0", created_at_ms=1, store_id="a-store", cluster_id="", node_id=1)
SECRET = "the vault opens with 4711"


class Log(MemoryLog):
    """A log whose rewrites are counted."""

    rewrites = 0

    @property
    def applied_index(self) -> int:
        return len(self.committed)

    async def rewrite(self, payloads: Mapping[int, bytes]) -> None:
        self.rewrites += 1
        await super().rewrite(payloads)


@asynccontextmanager
async def copier_of(history: History, folder: Path) -> AsyncIterator[tuple[Copier, Eraser]]:
    """Give what copies a log of `history`, of which nothing was erased yet, and what erases."""
    entries: Sequence[Entry] = entries_of(history)
    log, store = Log(entries), await open_store(folder)
    await store.apply(entries)
    eraser = Eraser(log, store, None)
    try:
        yield Copier(log, store, eraser, lambda: HEAD), eraser
    finally:
        await store.close()


async def collect(copier: Copier) -> bytes:
    return b"".join([part async for part in copier.backup()])


async def test_a_copy_begins_when_what_was_deleted_before_is_erased(tmp_path: Path) -> None:
    history = [said("m1", SECRET), said("m2", "hello"), deleted("m1")]

    async with copier_of(history, tmp_path) as (copier, eraser), asyncio.TaskGroup() as group:
        copy = group.create_task(collect(copier))
        await asyncio.sleep(0)
        assert not copy.done()
        await eraser.clean_log()

    assert SECRET.encode() not in copy.result()
    assert b"hello" in copy.result()


async def test_a_copy_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "CLEAN_S", 0.01)

    async with copier_of([said("m1", SECRET), deleted("m1")], tmp_path) as (copier, _):
        with pytest.raises(NotReadyError, match=r"not erased from the log within 0\.01 s"):
            await collect(copier)


async def test_only_a_few_copies_are_made_at_a_time(tmp_path: Path) -> None:
    async with copier_of([said("m1")], tmp_path) as (copier, _):
        under_way = [copier.backup() for _ in range(COPIES_MAX)]
        for copy in under_way:
            await anext(copy)
        with pytest.raises(OverloadedError, match="2 copies of the log are under way"):
            await collect(copier)

        async with aclosing(under_way[0]):
            pass  # its client has gone
        assert await collect(copier)

        await under_way[1].aclose()
