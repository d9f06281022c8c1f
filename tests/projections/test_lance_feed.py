import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engram.errors import ConfigError
from engram.projections.lance_feed import LanceFeed, Options, rebuild
from engram.projections.lance_rows import Scope, Space
from engram.projections.lance_store import LanceStore
from tests.projections.embedded import DIMENSION, LOG_END, Rows, as_query, files_with, found_ids, row, store_at

ALL = Scope("default")
EAGER = Options(period_s=0.001, batch_rows_max=10, retry_s=0.001, retry_max_s=0.002)


class HandClock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    def monotonic_s(self) -> float:
        return self.seconds


class Counts:
    """An observer that counts, and tells that there is something new to look at."""

    def __init__(self, news: asyncio.Event) -> None:
        self.batches: list[int] = []
        self.optimized_times = 0
        self.failures: list[str] = []
        self.retries = 0
        self._news = news

    def stored(self, rows: int, seconds: float) -> None:
        self.batches.append(rows)
        self._news.set()

    def optimized(self, seconds: float) -> None:
        self.optimized_times += 1
        self._news.set()

    def failed(self, operation: str) -> None:
        self.failures.append(operation)
        self._news.set()

    def retried(self) -> None:
        self.retries += 1


class Bench:
    """A feed over rows, in a folder, with everything a test looks at."""

    def __init__(self, folder: Path, rows: Rows, options: Options) -> None:
        self.folder = folder
        self.rows = rows
        self.clock = HandClock()
        self.news = rows.read
        self.counts = Counts(self.news)
        self.store = store_at(folder)
        self.feed = LanceFeed(
            self.store, rows, clock=self.clock, observer=self.counts, log_last_index=LOG_END, options=options
        )

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Return once `is_so`, which the feed brings about by itself."""
        async with asyncio.timeout(20):
            while not is_so():
                self.news.clear()
                await self.news.wait()

    async def until_fed(self) -> None:
        def is_fed() -> bool:
            status = self.feed.status()
            return status.cursor >= self.rows.rows[-1].log_index and not status.lag_rows

        await self.until(is_fed)


@asynccontextmanager
async def running(folder: Path, rows: Rows, options: Options = EAGER) -> AsyncIterator[Bench]:
    bench = Bench(folder, rows, options)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.feed.run())
        try:
            yield bench
        finally:
            task.cancel()


async def stored_ids(folder: Path) -> list[str]:
    store = store_at(folder)
    await store.open(log_last_index=LOG_END)
    found = await found_ids(store, ALL)
    await store.stop()
    return found


async def test_rows_reach_the_store_in_batches(tmp_path: Path) -> None:
    async with running(tmp_path, Rows([row(index) for index in range(1, 26)])) as bench:
        await bench.until_fed()

    assert bench.counts.batches == [10, 10, 5]
    assert len(await stored_ids(tmp_path)) == 25


async def test_rows_that_come_later_are_fed_too(tmp_path: Path) -> None:
    async with running(tmp_path, Rows([row(1)])) as bench:
        await bench.until_fed()
        bench.rows.rows.append(row(2))
        await bench.until_fed()

    assert await stored_ids(tmp_path) == ["m1", "m2"]


async def test_an_entry_larger_than_a_batch_goes_in_whole(tmp_path: Path) -> None:
    large = [row(1, message_id=f"m{number:02}") for number in range(25)]

    async with running(tmp_path, Rows([*large, row(2)])) as bench:
        await bench.until_fed()

    assert bench.counts.batches == [25, 1]


async def test_forgetting_waits_until_no_file_holds_the_text(tmp_path: Path) -> None:
    async with running(tmp_path, Rows([row(1, "MARKER-4711"), row(2)])) as bench:
        await bench.until_fed()
        assert files_with(tmp_path, "MARKER-4711")
        del bench.rows.rows[0]

        await bench.feed.forget("s1", "default", "m1", 5)

        assert files_with(tmp_path, "MARKER-4711") == []
        assert await found_ids(bench.store, ALL) == ["m2"]


async def test_a_row_read_before_its_deletion_is_forgotten_all_the_same(tmp_path: Path) -> None:
    rows = Rows([row(1, "MARKER-4711")])
    async with asyncio.TaskGroup() as tasks, running(tmp_path, rows) as bench:

        def delete() -> None:
            # The read under way sees the row; the deletion and its erasure come before the write.
            rows.before_read = lambda: None
            erasing.set_result(tasks.create_task(bench.feed.forget("s1", "default", "m1", 5)))

        erasing: asyncio.Future[asyncio.Task[None]] = asyncio.get_running_loop().create_future()
        rows.before_read = delete
        task = await erasing
        await task

        assert files_with(tmp_path, "MARKER-4711") == []
        assert await bench.store.count() == 0


async def test_many_erasures_share_the_work(tmp_path: Path) -> None:
    async with running(tmp_path, Rows([row(index, session_id=f"s{index}") for index in range(1, 101)])) as bench:
        await bench.until_fed()
        async with asyncio.TaskGroup() as tasks:
            for index in range(1, 100):
                tasks.create_task(bench.feed.forget(f"s{index}", "default", None, LOG_END))

        assert await found_ids(bench.store, ALL) == ["m100"]
        assert bench.feed.status().waiting_erasures == 0


async def test_a_caller_that_gives_up_does_not_stop_the_feed(tmp_path: Path) -> None:
    async with running(tmp_path, Rows([row(1), row(2)])) as bench:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await bench.feed.forget("s1", "default", "m1", 5)
        await bench.until_fed()
        await bench.feed.forget("s1", "default", "m2", 5)

    assert bench.counts.failures == []


async def test_an_unwritable_folder_is_reported_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")

    async with running(blocked / "lance", Rows([row(1)])) as bench:
        await bench.until(lambda: len(bench.counts.failures) > 2)
        failing = bench.feed.status()
        blocked.unlink()
        await bench.until_fed()
        await bench.until(lambda: bench.feed.status().last_error is None)

    assert set(bench.counts.failures) == {"open"}
    assert bench.counts.retries == len(bench.counts.failures)
    assert failing.last_error is not None
    assert failing.last_error.startswith("open: ")
    assert not failing.ready
    assert bench.feed.status().ready
    assert any(record.levelno == logging.WARNING for record in caplog.records)


async def test_a_table_that_vanishes_under_way_is_built_again(tmp_path: Path) -> None:
    async with running(tmp_path / "lance", Rows([row(index) for index in range(1, 6)])) as bench:
        await bench.until_fed()
        (tmp_path / "lance").rename(tmp_path / "away")
        (tmp_path / "lance").write_text("a file where the folder was")
        bench.rows.rows.append(row(6))
        await bench.until(lambda: len(bench.counts.failures) > 2)
        (tmp_path / "lance").unlink()
        await bench.until_fed()

    assert "write" in bench.counts.failures
    assert await stored_ids(tmp_path / "lance") == [f"m{index}" for index in range(1, 7)]


async def test_an_erasure_outlasts_a_failure(tmp_path: Path) -> None:
    async with running(tmp_path / "lance", Rows([row(1, "MARKER-4711"), row(2)])) as bench:
        await bench.until_fed()
        (tmp_path / "lance").rename(tmp_path / "away")
        (tmp_path / "lance").write_text("a file where the folder was")
        async with asyncio.TaskGroup() as tasks:
            erasing = tasks.create_task(bench.feed.forget("s1", "default", "m1", 5))
            await bench.until(lambda: len(bench.counts.failures) > 2)
            assert not erasing.done()
            (tmp_path / "lance").unlink()
            (tmp_path / "away").rename(tmp_path / "lance")

        assert "forget" in bench.counts.failures
        assert files_with(tmp_path, "MARKER-4711") == []


async def test_another_model_stops_the_feed(tmp_path: Path) -> None:
    other = LanceStore(str(tmp_path), model="model-b", dimension=8)
    await other.open(log_last_index=LOG_END)
    await other.add([row(1)._replace(model="model-b")])
    await other.stop()

    with pytest.raises(ConfigError, match="engram reembed"):
        await Bench(tmp_path, Rows([row(1)]), EAGER).feed.run()


async def test_a_table_of_another_model_is_gone_on_with_until_all_is_moved(tmp_path: Path) -> None:
    first = store_at(tmp_path)
    await first.open(log_last_index=LOG_END)
    await first.add([row(1), row(2)])
    await first.stop()
    follows = LanceStore(str(tmp_path), model="model-b", dimension=DIMENSION, takes_other=True)
    rows = Rows([row(2), row(3)._replace(model="model-b")])
    feed = LanceFeed(
        follows, rows, clock=HandClock(), observer=Counts(rows.read), log_last_index=LOG_END, options=EAGER
    )

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(feed.run())
        async with asyncio.timeout(20):
            while feed.status().cursor < 3:
                rows.read.clear()
                await rows.read.wait()
            before = feed.space
            feed.become(Space("model-b", DIMENSION))
            while feed.space == before or feed.is_refilling:
                rows.read.clear()
                await rows.read.wait()
        task.cancel()

    assert before == Space("model-a", DIMENSION)
    after = LanceStore(str(tmp_path), model="model-b", dimension=DIMENSION)
    await after.open(log_last_index=LOG_END)
    assert await found_ids(after, ALL) == ["m3"]
    await after.stop()


async def test_to_become_what_it_is_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, Rows([row(1)])) as bench:
        await bench.until_fed()
        bench.feed.become(bench.feed.space)
        bench.rows.rows.append(row(2))
        await bench.until_fed()

    assert bench.counts.batches == [1, 1]


async def test_files_are_merged_after_so_many_writes(tmp_path: Path) -> None:
    options = EAGER._replace(batch_rows_max=1, optimize_adds=5)

    async with running(tmp_path, Rows([row(index) for index in range(1, 13)]), options) as bench:
        await bench.until_fed()
        await bench.until(lambda: bench.counts.optimized_times >= 2)

    assert bench.counts.optimized_times == 2


async def test_files_are_merged_after_a_while_if_there_is_something_to_merge(tmp_path: Path) -> None:
    async with running(tmp_path, Rows([row(1)])) as bench:
        await bench.until_fed()
        assert bench.counts.optimized_times == 0

        bench.clock.seconds += 30
        await bench.until(lambda: bench.counts.optimized_times == 1)
        bench.clock.seconds += 3000
        bench.rows.before_read = reads = CountReads()
        await bench.until(lambda: reads.times > 3)

    assert bench.counts.optimized_times == 1


class CountReads:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


async def test_a_rebuild_writes_everything_anew_and_tells_how_far_it_is(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    await store.open(log_last_index=LOG_END)
    await store.add([row(900, message_id="gone")])
    progress: list[int] = []

    total = await rebuild(store, Rows([row(index) for index in range(1, 26)]), progress.append, batch_rows=10)

    assert (total, progress) == (25, [10, 10, 5])
    assert [hit.message_id for hit in await store.search(as_query(7), ALL, 1)] == ["m7"]
    assert await store.count() == 25
    await store.stop()


async def test_the_nearest_rows_come_with_how_far_the_store_has_come(tmp_path: Path) -> None:
    async with running(tmp_path, Rows([row(1), row(2), row(3)])) as bench:
        assert await bench.feed.nearest(as_query(2), ALL, 1) is None
        await bench.until_fed()

        found = await bench.feed.nearest(as_query(2), ALL, 1)

        assert found is not None
        assert [hit.message_id for hit in found.hits] == ["m2"]
        assert found.cursor == 3
        assert await bench.feed.nearest(as_query(2)[:4], ALL, 1) is None

    assert await bench.feed.nearest(as_query(2), ALL, 1) is None
    assert bench.counts.failures == []


async def test_a_search_that_fails_makes_the_feed_open_the_store_again(tmp_path: Path) -> None:
    async with running(tmp_path / "lance", Rows([row(1)])) as bench:
        await bench.until_fed()
        (tmp_path / "lance").rename(tmp_path / "away")
        (tmp_path / "lance").write_text("a file where the folder was")

        assert await bench.feed.nearest(as_query(1), ALL, 1) is None

        await bench.until(lambda: bool(bench.counts.failures))
        (tmp_path / "lance").unlink()
        (tmp_path / "away").rename(tmp_path / "lance")
        bench.rows.rows.append(row(2))
        await bench.until_fed()
        assert bench.counts.failures[0] == "search"
        assert await bench.feed.nearest(as_query(1), ALL, 1) is not None
