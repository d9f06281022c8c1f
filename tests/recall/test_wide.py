"""Scopes too wide to be searched whole: which sessions take part, with a real store and a real LanceDB."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.clock import SystemClock
from engram.commands import Vectors, create_session, delete_session
from engram.events import Chunk
from engram.inference.builtin import BuiltinEmbedder
from engram.projections.lance_feed import LanceFeed, Nearest, Options, Silent
from engram.projections.lance_rows import Scope, Space
from engram.projections.lance_store import LanceHit, LanceStore
from engram.projections.past import Cut
from engram.projections.rows import SessionRow
from engram.projections.sqlite_store import PrimaryStore
from engram.recall.filters import Comparison
from engram.recall.search import Searcher, SearchResult
from engram.recall.wide import NEAREST_ROWS, Chooser
from tests.recall import rows
from tests.recall.stored import AT_MS, AtOnce

LOG_END = 10**6
EAGER = Options(period_s=0.001, retry_s=0.001, retry_max_s=0.002)
QUERY = "Which animal lives with her?"
NEEDLE = "We adopted a kitten and a dog"
HAY = ("The train to Leeds was late", "Invoices are paid in March", "Rain fell on the harbour", "The engine needs oil")
SESSIONS = 8
BOUND = 2 * len(HAY)
SPACE = Space("a-model", 2)
TOWARDS = {SPACE: np.ones(2, np.float32)}


class Stages:
    def searched(self, stage: str, seconds: float) -> None:
        """Note nothing."""


class Counts(Silent):
    """Hears what the feed did, and tells that there is something new to look at."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.news = asyncio.Event()

    def stored(self, rows: int, seconds: float) -> None:
        self.news.set()

    def failed(self, operation: str) -> None:
        self.failures.append(operation)
        self.news.set()


class Scene:
    """A store of one user's sessions with the long-term store behind it."""

    def __init__(self, folder: Path, store: PrimaryStore, embedder: BuiltinEmbedder) -> None:
        self.folder = folder / "lance"
        self.store = store
        self.log = AtOnce(store, rows.TOKENS)
        self.embedder = embedder
        self.counts = Counts()
        self.feed = LanceFeed(
            LanceStore(str(self.folder), model=embedder.model, dimension=embedder.dimension),
            store,
            clock=SystemClock(),
            observer=self.counts,
            log_last_index=LOG_END,
            options=EAGER,
        )
        self.searcher = self.searcher_of(self.feed)

    def searcher_of(self, neighbours: LanceFeed | None, rows_max: int = BOUND) -> Searcher:
        return Searcher(
            self.store,
            self.embedder,
            neighbours,
            cache_bytes_max=1 << 20,
            observer=Stages(),
            scope_rows_max=rows_max,
        )

    async def make(self, session_id: str, texts: Sequence[str]) -> None:
        await self.log.record(
            create_session(session_id=session_id, agent_id=None, user_id="ann", metadata={}, at_ms=AT_MS)
        )
        for place, text in enumerate(texts):
            vector = self.embedder.embed([text])[0].astype("<f2").tobytes()
            chunks = [Chunk(start=0, end=len(text), vector=vector)]
            vectors = Vectors(self.embedder.model, self.embedder.dimension, chunks)
            await self.log.say(f"{session_id}-{place}", text, session_id=session_id, vectors=vectors)

    async def until_fed(self) -> None:
        last = max(session.vectors_index for session in await self.scope())
        async with asyncio.timeout(20):
            while self.feed.status().cursor < last or not self.feed.status().ready:
                self.counts.news.clear()
                await self.counts.news.wait()

    async def scope(self) -> list[SessionRow]:
        return await self.store.scope("default", user_id="ann")

    async def search(self, searcher: Searcher | None = None, **options: object) -> SearchResult:
        scope = await self.scope()
        asked = {"top_k": 3, "now_ms": AT_MS, "explain": True} | options
        return await (searcher or self.searcher).search(scope, QUERY, **asked)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def embedder() -> BuiltinEmbedder:
    return BuiltinEmbedder()


@asynccontextmanager
async def running(folder: Path, embedder: BuiltinEmbedder) -> AsyncIterator[Scene]:
    store = await PrimaryStore.open(folder / "projections.db")
    scene = Scene(folder, store, embedder)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(scene.feed.run())
        try:
            yield scene
        finally:
            task.cancel()
            scene.searcher.close()
    await store.close()


@pytest.fixture
async def scene(tmp_path: Path, embedder: BuiltinEmbedder) -> AsyncIterator[Scene]:
    """The oldest of eight sessions has the needle; two of them have room in a search."""
    async with running(tmp_path, embedder) as made:
        await made.make("s0", [*HAY[1:], NEEDLE])
        for number in range(1, SESSIONS):
            await made.make(f"s{number}", HAY)
        await made.until_fed()
        yield made


def told(result: SearchResult) -> tuple[object, ...]:
    explained = result.explained
    assert explained is not None
    return explained.sessions, explained.messages, explained.sessions_left_out, explained.chosen_by


def ids(result: SearchResult) -> list[str]:
    return [hit.message.message_id for hit in result.hits]


async def test_a_needle_in_an_old_session_is_found_by_its_meaning(scene: Scene) -> None:
    found = await scene.search()

    assert ids(found)[0] == "s0-3"
    assert told(found) == (2, BOUND, SESSIONS - 2, "nearest")
    assert found.explained is not None
    assert found.explained.messages_left_out == (SESSIONS - 2) * len(HAY)
    assert found.sessions_left_out == SESSIONS - 2
    assert "choose" in found.explained.took_ms
    assert not found.degraded


async def test_the_same_search_finds_the_same_again(scene: Scene) -> None:
    first, second = await scene.search(explain=False), await scene.search(explain=False)

    assert first == second


async def test_up_to_the_bound_nothing_is_left_out_or_told(scene: Scene) -> None:
    plain, bounded = scene.searcher_of(None), scene.searcher_of(scene.feed, SESSIONS * len(HAY))
    whole = scene.searcher_of(None, 10**9)

    results = [await scene.search(searcher, top_k=50) for searcher in (whole, bounded)]
    for searcher in (plain, bounded, whole):
        searcher.close()

    same = [result._replace(explained=None) for result in results]
    assert same[0] == same[1]
    for result in results:
        document = msgspec.to_builtins(result.explained)
        assert document.keys() == {
            "sessions",
            "messages",
            "filtered_out",
            "beyond_top_k",
            "below_min_score",
            "took_ms",
        }
        assert document["took_ms"].keys() == {"load", "rank", "fetch"}


async def test_without_the_long_term_store_the_latest_are_searched(scene: Scene) -> None:
    searcher = scene.searcher_of(None)

    found = await scene.search(searcher)
    searcher.close()

    assert told(found) == (2, BOUND, SESSIONS - 2, "latest")
    assert {hit.session.session_id for hit in found.hits} <= {"s6", "s7"}


async def test_a_session_that_was_deleted_is_not_found_nor_what_is_new_under_its_id(scene: Scene) -> None:
    """The long-term store still has it: nobody erased it there yet."""
    await scene.log.record(delete_session(session_id="s0", at_ms=AT_MS))
    gone = await scene.search()
    await scene.make("s0", HAY)
    for number in (6, 7):
        await scene.log.say(f"late{number}", "Once more about Leeds", session_id=f"s{number}")

    anew = await scene.search(top_k=50)

    assert "s0-3" not in ids(gone)
    assert NEEDLE not in {hit.message.text for hit in anew.hits}


async def test_a_store_that_breaks_is_passed_over_and_opened_again(scene: Scene) -> None:
    away = scene.folder.with_name("away")
    scene.folder.rename(away)
    scene.folder.write_text("a file where the folder was")

    without = await scene.search()
    scene.folder.unlink()
    away.rename(scene.folder)
    await scene.make("s9", HAY)
    await scene.until_fed()
    found = await scene.search()

    assert told(without) == (2, BOUND, SESSIONS - 2, "latest")
    assert scene.counts.failures[0] == "search"
    assert ids(found)[0] == "s0-3"
    assert told(found)[-1] == "nearest"


async def test_a_filter_for_an_old_session_is_heeded(scene: Scene) -> None:
    searcher = scene.searcher_of(None)

    found = await scene.search(searcher, where=Comparison("session_id", "eq", ["s3"]), top_k=50)
    searcher.close()

    assert [hit.session.session_id for hit in found.hits] == ["s3"] * len(HAY)
    assert told(found) == (2, BOUND, SESSIONS - 2, "latest")


async def test_the_past_is_searched_by_what_was_latest_then(scene: Scene) -> None:
    oldest = (await scene.scope())[0]
    cut = Cut(oldest.next_ordinal, (), (), frozenset())

    found = await scene.search(cuts={oldest.session_key: cut})

    assert told(found)[-1] == "latest"


class Told:
    """A long-term store that says what it was told to say."""

    space = SPACE

    def __init__(self, *session_ids: str, cursor: int = LOG_END) -> None:
        self.asked: list[tuple[Scope, int]] = []
        self._answer = Nearest([LanceHit(name, "m", 0, LOG_END, 0.5) for name in session_ids], cursor)

    async def nearest(self, vector: npt.NDArray[np.float32], scope: Scope, k: int) -> Nearest:
        self.asked.append((scope, k))
        return self._answer


def sessions_of(*sizes: int, user_id: str | None = "ann") -> list[SessionRow]:
    """Return sessions `s1`, `s2` and so on, the last one the latest."""
    made = [rows.session(key, session_id=f"s{key}") for key in range(1, len(sizes) + 1)]
    return [
        session._replace(message_count=size, user_id=user_id, vectors_index=session.session_key)
        for session, size in zip(made, sizes, strict=True)
    ]


async def names(chooser: Chooser, sessions: Sequence[SessionRow], where: Comparison | None = None) -> list[str]:
    return [session.session_id for session in (await chooser.choose(sessions, TOWARDS, where)).sessions]


async def test_half_of_the_room_is_for_the_nearest_and_the_rest_for_the_latest() -> None:
    sessions = sessions_of(*[10] * 8)

    assert await names(Chooser(Told("s3", "s1", "s3", "s2"), 40), sessions) == ["s1", "s3", "s7", "s8"]


async def test_what_the_store_does_not_hold_yet_comes_before_the_latest() -> None:
    sessions = sessions_of(*[10] * 8)
    sessions[3] = sessions[3]._replace(vectors_index=99)

    assert await names(Chooser(Told("s1", cursor=50), 30), sessions) == ["s1", "s4", "s8"]


async def test_one_session_is_searched_however_long_it_is() -> None:
    assert await names(Chooser(Told("s1"), 40), sessions_of(1000, 10, 10)) == ["s1"]
    assert not Chooser(None, 40).must_choose(sessions_of(1000))
    assert not Chooser(None, 40).must_choose(sessions_of(30, 10))
    assert Chooser(None, 40).must_choose(sessions_of(30, 11))


async def test_the_store_is_asked_about_the_agent_or_user_that_all_have() -> None:
    neighbours = Told()
    chooser = Chooser(neighbours, 10)
    where = Comparison("session_id", "in", ["s1", "s2"])

    await names(chooser, sessions_of(10, 10))
    await names(chooser, sessions_of(10, 10, user_id=None))
    await names(chooser, sessions_of(10, 10, 10), where)

    assert neighbours.asked == [
        (Scope("default", user_id="ann"), NEAREST_ROWS),
        (Scope("default", session_ids=["s1", "s2"]), NEAREST_ROWS),
        (Scope("default", session_ids=["s1", "s2"]), NEAREST_ROWS),
    ]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(1, 100), st.data())
def test_the_bound_holds_and_what_has_room_is_used(sizes: list[int], rows_max: int, data: st.DataObject) -> None:
    sessions = sessions_of(*sizes)
    near = data.draw(st.lists(st.sampled_from([session.session_id for session in sessions])))

    chosen = asyncio.run(Chooser(Told(*near), rows_max).choose(sessions, TOWARDS, None))

    taken = sum(session.message_count for session in chosen.sessions)
    assert taken <= rows_max or len([session for session in chosen.sessions if session.message_count]) == 1
    assert taken + chosen.messages_left_out == sum(sizes)
    assert len(chosen.sessions) + chosen.sessions_left_out == len(sizes)
    left = [session for session in sessions if session not in chosen.sessions]
    assert all(taken + session.message_count > rows_max for session in left)
    assert [session.session_key for session in chosen.sessions] == sorted(s.session_key for s in chosen.sessions)
