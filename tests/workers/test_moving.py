"""Moving memory from one embedder to another, on the real read models: what goes wrong, and who follows."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engram.commands import MessageDraft, Vectors, abandon_work, append_messages
from engram.errors import ConfigError, ConflictError, NotReadyError
from engram.events import Chunk
from engram.inference.embedder import EmbedderError, Matrix, RemoteEmbedder
from engram.projections.lance_rows import Space
from engram.recall.query_vectors import Embedder, space_of
from engram.recorder import Recorder
from engram.workers.moving import STALLED_CENSUSES, Embedders
from tests.api.node import Node, running_node
from tests.cluster.waiting import wait_until
from tests.workers.memory import Clock

OLD, NEW, THIRD = Space("old", 4), Space("new", 6), Space("third", 4)


class Near:
    """A model in this process."""

    def __init__(self, space: Space) -> None:
        self.model, self.dimension = space

    def embed(self, texts: Sequence[str]) -> Matrix:
        return np.full((len(texts), self.dimension), 1 / np.sqrt(self.dimension), np.float32)

    def embed_query(self, weights: Mapping[str, float]) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = self.embed([""])[0]
        return vector


class Far:
    """A model far away: it refuses texts with `poison` in them, and after `works` requests is away for some."""

    chunk_bytes_max = None

    def __init__(self, space: Space, *, poison: str = "\0", away: int = 0, works: int = 0) -> None:
        self.model, self.dimension = space
        self.asked: list[str] = []
        self._near = Near(space)
        self._poison, self._away, self._works = poison, away, works

    async def embed(self, texts: Sequence[str]) -> Matrix:
        self.asked += texts
        self._works -= 1
        if self._works < 0 and self._away:
            self._away -= 1
            raise EmbedderError("the embedder cannot be reached", permanent=False)
        if any(self._poison in text for text in texts):
            raise EmbedderError("it refuses the request", permanent=True)
        return self._near.embed(texts)


class Around:
    """The rest of a node: notes what it is told, and has an embedder of every space but the third."""

    def __init__(self) -> None:
        self.used: list[tuple[Space, list[Space]]] = []
        self.noted: list[Space] = []
        self.closed: list[Space] = []
        self.long_term: Space | None = None
        self.lacks = False

    async def make(self, space: Space) -> Embedder:
        if space == THIRD:
            raise ConfigError("the model 'third' needs OPENAI_API_KEY or OPENAI_BASE_URL")
        return Near(space)

    async def note(self, space: Space) -> None:
        self.noted.append(space)

    async def close(self, embedder: Embedder) -> None:
        self.closed.append(space_of(embedder))

    def use(self, target: Embedder, others: Sequence[Embedder], *, lacks: bool) -> None:
        self.lacks = lacks
        self.used.append((space_of(target), [space_of(other) for other in others]))

    def moved(self, space: Space) -> None:
        self.long_term = space


def draft(message_id: str, text: str) -> MessageDraft:
    return MessageDraft(message_id, "user", text, None, None, {}, tokens=1)


class Silent:
    def embedded(self, model: str, seconds: float) -> None:
        pass


class Scene:
    def __init__(self, node: Node, recorder: Recorder) -> None:
        self.node, self.recorder = node, recorder
        self.around = Around()

    def embedders(self, target: Embedder, *, leads: bool = True) -> Embedders:
        return Embedders(
            self.node.store, self.recorder, self.around, self.around, target,
            leads=lambda: leads, observer=Silent(), clock=Clock(), rng=random.Random(1), sleep=at_once,
        )  # fmt: skip

    async def write(self, texts: Sequence[str], space: Space) -> None:
        """Add messages with vectors of `space`."""
        drafts = [draft(f"{space.model}-{number}", text) for number, text in enumerate(texts)]
        rows = Near(space).embed(texts).astype("<f2")
        vectors = [Vectors(*space, [Chunk(start=0, end=1, vector=row.tobytes())]) for row in rows]
        await self.recorder.record(append_messages(session_id="s", drafts=drafts, vectors=vectors, at_ms=1))

    async def census(self) -> Mapping[Space, int]:
        return (await self.node.store.census(after=0, limit=1000)).messages


async def at_once(seconds: float) -> None:
    await asyncio.sleep(0)


async def never(embedder: RemoteEmbedder) -> None:
    """Embed nothing that waits."""
    await asyncio.Event().wait()


@asynccontextmanager
async def working(embedders: Embedders) -> AsyncIterator[None]:
    task = asyncio.get_running_loop().create_task(embedders.work(never))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until_over(embedders: Embedders) -> None:
    async def is_over() -> bool:
        return embedders.status().state != "running"

    await wait_until(is_over, "the move is over", within_s=20, every_s=0.001)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running_node(tmp_path) as node:
        yield Scene(node, node.services().recorder)


def texts(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


async def test_all_is_moved_and_only_then_the_old_embedder_is_let_go_of(scene: Scene) -> None:
    await scene.write(texts(300), OLD)
    target = Far(NEW)
    embedders = scene.embedders(Near(OLD))

    async with working(embedders):
        began = await embedders.start(target)
        await until_over(embedders)
    done = embedders.status()

    assert (began.state, began.done, began.total, began.others) == ("running", 128, 300, ("old",))
    assert (done.state, done.done, done.total, done.others, done.refused) == ("done", 300, 300, (), 0)
    assert await scene.census() == {NEW: 300}
    assert scene.around.noted == [NEW]
    assert scene.around.used == [(NEW, [OLD]), (NEW, [])]
    assert scene.around.closed == [OLD]
    assert scene.around.long_term == NEW
    assert sorted(target.asked) == sorted(["Is anybody there?"] * target.asked.count("Is anybody there?") + texts(300))


async def test_a_move_while_one_runs_and_one_to_where_it_is_are_refused(scene: Scene) -> None:
    await scene.write(texts(300), OLD)
    embedders = scene.embedders(Near(OLD))

    with pytest.raises(ConflictError, match="old with 4 dimensions is in use already") as same:
        await embedders.start(Near(OLD))
    await embedders.start(Far(NEW))
    with pytest.raises(ConflictError, match="128 of 300 messages are") as second:
        await embedders.start(Far(THIRD))

    assert (same.value.code, second.value.code) == ("embedder_in_use", "reembedding_running")
    assert embedders.space == NEW
    assert scene.around.closed == [OLD, THIRD]


async def test_who_does_not_know_yet_what_is_in_use_begins_no_move(scene: Scene) -> None:
    embedders = scene.embedders(Near(OLD), leads=False)

    with pytest.raises(NotReadyError, match="not known here yet which embedder is in use"):
        await embedders.start(Far(NEW))

    assert (embedders.space, scene.around.closed, scene.around.noted) == (OLD, [NEW], [])


async def test_an_embedder_that_fails_on_the_first_batch_leaves_all_as_it_was(scene: Scene) -> None:
    await scene.write(texts(3), OLD)
    embedders = scene.embedders(Near(OLD))

    with pytest.raises(EmbedderError, match="cannot be reached"):
        await embedders.start(Far(NEW, away=9))
    await embedders.look()

    assert embedders.space == OLD
    assert await scene.census() == {OLD: 3}
    assert scene.around.noted == [NEW, OLD]
    assert scene.around.used[-1] == (OLD, [])
    assert embedders.status().state != "running"


async def test_an_outage_in_the_middle_is_told_and_waited_for(scene: Scene) -> None:
    await scene.write(texts(300), OLD)
    embedders = scene.embedders(Near(OLD))
    told: set[str | None] = set()

    async with working(embedders):
        await embedders.start(Far(NEW, away=50, works=1))

        async def is_over() -> bool:
            told.add(embedders.status().error)
            return embedders.status().state != "running"

        await wait_until(is_over, "the move is over", within_s=20, every_s=0.001)

    assert "the embedder cannot be reached" in told
    assert embedders.status().error is None
    assert await scene.census() == {NEW: 300}


async def test_what_the_new_embedder_refuses_keeps_what_it_had_and_who_has_read_it(scene: Scene) -> None:
    await scene.write([*texts(3), "poison"], OLD)
    embedders = scene.embedders(Near(OLD))

    async with working(embedders):
        await embedders.start(Far(NEW, poison="poison"))
        await until_over(embedders)
    await embedders.look()
    status = embedders.status()

    assert (status.state, status.done, status.total, status.refused) == ("done", 3, 4, 1)
    assert await scene.census() == {NEW: 3, OLD: 1}
    assert scene.around.used[-1] == (NEW, [OLD])
    assert scene.around.long_term == NEW


async def test_what_the_old_embedder_gave_up_is_tried_again(scene: Scene) -> None:
    await scene.write(texts(2), OLD)
    await scene.recorder.record(append_messages(session_id="s", drafts=[draft("odd", "odd")], vectors=[None], at_ms=1))
    await scene.recorder.record(
        abandon_work(
            tenant="default", session_id="s", message_id="odd", work="embedding", error="refused", attempts=5, at_ms=1
        )
    )
    embedders = scene.embedders(Near(OLD))

    async def is_there() -> bool:
        return await scene.census() == {NEW: 3}

    async with working(embedders):
        await embedders.start(Far(NEW))
        await wait_until(is_there, "all have vectors", within_s=20, every_s=0.001)

    assert (await scene.node.store.counts()).abandoned_embeddings == 0


async def test_who_does_not_lead_follows_the_newest_vectors(scene: Scene) -> None:
    await scene.write(texts(3), OLD)
    follower = scene.embedders(Near(OLD), leads=False)
    await follower.look()
    before = follower.status()
    await scene.write(texts(2), NEW)

    await follower.look()
    status = follower.status()

    assert (before.state, before.model, before.total) == ("none", "old", 3)
    assert (status.state, status.model, status.done, status.total) == ("running", "new", 2, 5)
    assert scene.around.noted == [NEW]
    assert scene.around.used[-1] == (NEW, [OLD])


async def test_who_leads_is_not_misled_by_late_vectors_of_the_old_embedder(scene: Scene) -> None:
    await scene.write(texts(300), OLD)
    embedders = scene.embedders(Near(OLD))
    await embedders.start(Far(NEW))
    await scene.recorder.record(
        append_messages(
            session_id="s",
            drafts=[draft("late", "late")],
            vectors=[Vectors(*OLD, [Chunk(start=0, end=1, vector=bytes(2 * OLD.dimension))])],
            at_ms=1,
        )
    )

    await embedders.look()
    async with working(embedders):
        await until_over(embedders)

    assert embedders.space == NEW
    assert await scene.census() == {NEW: 301}


async def test_the_next_leader_goes_on_where_the_last_one_was(scene: Scene) -> None:
    await scene.write(texts(300), OLD)
    await scene.embedders(Near(OLD)).start(Far(NEW))
    following = scene.embedders(Near(OLD))

    await following.adopt()
    await following.look()
    halfway = following.status()
    async with working(following):
        await until_over(following)

    assert (halfway.state, halfway.done, halfway.total) == ("running", 128, 300)
    assert await scene.census() == {NEW: 300}


async def test_vectors_of_an_embedder_that_this_node_cannot_have_stop_nothing(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.write(texts(2), OLD)
    await scene.write(texts(1), THIRD)
    follower = scene.embedders(Near(OLD), leads=False)

    for _ in range(3):
        await follower.look()

    assert (follower.space, scene.around.lacks) == (OLD, True)
    assert not await follower.adopt()
    assert caplog.text.count("messages with vectors of third with 4 dimensions are found by words only") == 1


async def test_a_move_of_which_nothing_is_heard_any_more_does_not_keep_the_long_term_store(scene: Scene) -> None:
    await scene.write(texts(2), OLD)
    await scene.write(texts(1), NEW)
    follower = scene.embedders(Near(NEW), leads=False)

    await follower.look()
    early = scene.around.long_term
    for _ in range(STALLED_CENSUSES + 1):
        await follower.count()

    assert early is None
    assert scene.around.long_term == NEW


async def test_without_a_message_the_new_embedder_is_used_from_the_next_one_on(scene: Scene) -> None:
    embedders = scene.embedders(Near(OLD))

    status = await embedders.start(Far(NEW))

    assert (status.state, status.model, status.total) == ("done", "new", 0)
    assert scene.around.noted == [NEW]
    assert scene.around.used[0] == (NEW, [OLD])
