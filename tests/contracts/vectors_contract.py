"""What a store of vectors promises, wherever they are kept: the same events in, the same neighbours out."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pytest

from engram.events import Chunk, Event, MessageAppended, MessageEmbedded
from engram.projections.lance_rows import Scope
from tests.projections.embedded import DIMENSION, MODEL, as_query, vector
from tests.projections.histories import created, deleted, ended, said

ALL = Scope("default")


class Neighbour(NamedTuple):
    """A chunk that a vector is near to."""

    session_id: str
    message_id: str
    chunk: int
    log_index: int
    """The entry that gave it its vector."""
    similarity: float
    """Cosine."""


class Vectors(Protocol):
    """A store, with the log that it is fed from in front of it."""

    async def write(self, *events: Event) -> None:
        """Let one entry of `events` be applied, and everything that it forgets be erased; reads see it then."""

    async def nearest(self, query: npt.NDArray[np.float32], scope: Scope, k: int) -> Sequence[Neighbour]:
        """Return the `k` chunks of `scope` nearest to `query`, the nearest first."""


def embedded(
    message_id: str, *seeds: int, source_index: int = 0, session_id: str = "s", model: str = MODEL
) -> MessageEmbedded:
    """Give a message a vector for each of `seeds`."""
    chunks = [Chunk(start=place, end=place + 1, vector=vector(seed)) for place, seed in enumerate(seeds)]
    return MessageEmbedded(
        session_id=session_id,
        at_ms=2,
        message_id=message_id,
        source_index=source_index,
        model=model,
        dimension=DIMENSION,
        chunks=chunks,
    )


class VectorsContract:
    """Tests of `Vectors`; a class that inherits it says which, with a fixture `vectors`."""

    async def ids(self, vectors: Vectors, scope: Scope = ALL) -> list[tuple[str, str]]:
        found = await vectors.nearest(as_query(1), scope, 100)
        return sorted((each.session_id, each.message_id) for each in found)

    async def test_where_nothing_is_nothing_is_near(self, vectors: Vectors) -> None:
        await vectors.write(said("m1"))

        assert list(await vectors.nearest(as_query(1), ALL, 5)) == []

    async def test_the_nearest_comes_first_with_its_cosine(self, vectors: Vectors) -> None:
        for seed in range(1, 30):
            await vectors.write(said(f"m{seed}"), embedded(f"m{seed}", seed))

        found = await vectors.nearest(as_query(7), ALL, 5)

        cosines = {f"m{seed}": float(as_query(seed) @ as_query(7)) for seed in range(1, 30)}
        wanted = sorted(cosines, key=lambda message_id: -cosines[message_id])[:5]
        assert [each.message_id for each in found] == wanted
        assert [each.similarity for each in found] == pytest.approx([cosines[each] for each in wanted], abs=2e-3)
        assert found[0].log_index == 7

    async def test_every_chunk_of_a_message_is_found(self, vectors: Vectors) -> None:
        await vectors.write(said("m1"), embedded("m1", 3, 9))

        for chunk, seed in enumerate((3, 9)):
            (nearest,) = await vectors.nearest(as_query(seed), ALL, 1)
            assert (nearest.message_id, nearest.chunk) == ("m1", chunk)
            assert nearest.similarity == pytest.approx(1, abs=2e-3)

    async def test_vectors_may_come_later_than_their_message(self, vectors: Vectors) -> None:
        await vectors.write(said("m1"))
        await vectors.write(said("m2"), embedded("m2", 2))
        await vectors.write(embedded("m1", 5, source_index=1))

        (nearest,) = await vectors.nearest(as_query(5), ALL, 1)

        assert (nearest.message_id, nearest.log_index) == ("m1", 3)

    async def test_new_vectors_take_the_place_of_old_ones(self, vectors: Vectors) -> None:
        await vectors.write(said("m1"), embedded("m1", 3, 4, 5))
        await vectors.write(embedded("m1", 9, source_index=1))

        (nearest,) = await vectors.nearest(as_query(3), ALL, 10)

        assert (nearest.chunk, nearest.log_index) == (0, 2)
        assert nearest.similarity == pytest.approx(float(as_query(9) @ as_query(3)), abs=2e-3)

    async def test_the_same_message_again_changes_nothing(self, vectors: Vectors) -> None:
        await vectors.write(said("m1"), embedded("m1", 3))
        before = await vectors.nearest(as_query(3), ALL, 10)
        await vectors.write(said("m1"), embedded("m1", 3))
        await vectors.write(said("m1", "another text"), embedded("m1", 4))

        assert await vectors.nearest(as_query(3), ALL, 10) == before

    async def test_a_scope_sees_its_own_only(self, vectors: Vectors) -> None:
        await vectors.write(created("a", agent_id="x", user_id="u"))
        await vectors.write(created("o'clock", agent_id="x"))
        for session_id in ("a", "o'clock", "c"):
            await vectors.write(said("m", session_id=session_id), embedded("m", 1, session_id=session_id))
        await vectors.write(
            MessageAppended(session_id="a", at_ms=1, tenant="other", message_id="m9", role="user", text="x", tokens=1)
        )

        assert await self.ids(vectors, Scope("default", session_ids=["o'clock"])) == [("o'clock", "m")]
        assert await self.ids(vectors, Scope("default", session_ids=[])) == []
        assert await self.ids(vectors, Scope("default", agent_id="x")) == [("a", "m"), ("o'clock", "m")]
        assert await self.ids(vectors, Scope("default", user_id="u")) == [("a", "m")]
        assert await self.ids(vectors, Scope("other")) == []
        assert len(await self.ids(vectors)) == 3

    async def test_vectors_of_another_model_are_not_compared(self, vectors: Vectors) -> None:
        await vectors.write(said("m1"), embedded("m1", 3))
        await vectors.write(said("m2"), embedded("m2", 3, model="another"))

        assert await self.ids(vectors) == [("s", "m1")]

    async def test_a_deleted_message_is_gone(self, vectors: Vectors) -> None:
        for number in range(3):
            await vectors.write(said(f"m{number}"), embedded(f"m{number}", number, number + 10))
        await vectors.write(deleted("m1"))

        assert await self.ids(vectors) == [("s", "m0"), ("s", "m0"), ("s", "m2"), ("s", "m2")]

    async def test_vectors_of_what_was_deleted_do_not_come_back(self, vectors: Vectors) -> None:
        await vectors.write(said("m1"))
        await vectors.write(said("m2"), embedded("m2", 2))
        await vectors.write(deleted("m1"))
        await vectors.write(embedded("m1", 5, source_index=1))

        assert await self.ids(vectors) == [("s", "m2")]

    async def test_a_session_that_ended_leaves_the_others(self, vectors: Vectors) -> None:
        for session_id in ("s", "t"):
            await vectors.write(said("m1", session_id=session_id), embedded("m1", 3, session_id=session_id))
        await vectors.write(ended("s"))

        assert await self.ids(vectors) == [("t", "m1")]

    async def test_a_session_that_begins_again_has_nothing_of_its_earlier_life(self, vectors: Vectors) -> None:
        await vectors.write(said("m1"), embedded("m1", 3))
        await vectors.write(ended("s"))
        await vectors.write(said("m1"), embedded("m1", 4))
        await vectors.write(embedded("m1", 3, source_index=1))

        (nearest,) = await vectors.nearest(as_query(4), ALL, 10)

        assert nearest.log_index == 3
        assert nearest.similarity == pytest.approx(1, abs=2e-3)
