"""Forgetting reaches Redis, what it has on its disk included, and also when it was away."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drills.subjects import Subject
from tests.drills.test_forgetting import Node
from tests.redis_server import HAS_REDIS, RedisServer
from tests.server_process import ServerProcess, find_free_port

pytestmark = pytest.mark.skipif(not HAS_REDIS, reason="NOT CHECKED: there is no redis-server")

FORGOTTEN_S_MAX = 25.0
"""Redis follows when it is there; its files are written anew soon afterwards."""


class Scene:
    """A node with a Redis that keeps an append-only file and snapshots."""

    def __init__(self, node: Node, redis: RedisServer) -> None:
        self.node = node
        self.redis = redis

    def has_in_memory(self, subject: Subject) -> bool:
        return any(subject.marker in str(entry) for entry in self.redis.contents().items())

    def has_on_disk(self, subject: Subject) -> bool:
        return next(self.redis.files_with(subject.marker), None) is not None

    def wait(self, holds: Callable[[], bool]) -> None:
        deadline_s = time.perf_counter() + FORGOTTEN_S_MAX
        while not self._holds(holds):
            assert time.perf_counter() < deadline_s, self.node.ask("GET", "/ready")

    def _holds(self, holds: Callable[[], bool]) -> bool:
        try:
            return holds()
        except FileNotFoundError:  # Redis has just put another file in its place
            return False

    def hear(self, *subjects: Subject) -> None:
        """Let subjects speak until Redis has it all, in memory, in its append-only file and in a snapshot."""
        for subject in subjects:
            self.node.hear(subject)
        for subject in subjects:
            self.wait(lambda heard=subject: self.has_in_memory(heard))  # type: ignore[misc]
        assert all(subject.marker.encode() in self.redis.save_copy() for subject in subjects)
        assert {path.suffix for path in self.redis.files_with(subjects[0].marker)} >= {".rdb", ".aof"}


@pytest.fixture
def scene(tmp_path: Path, free_port: int) -> Iterator[Scene]:
    with (
        RedisServer(tmp_path / "redis", find_free_port(), appendonly=True, save="3600 1") as redis,
        ServerProcess(tmp_path, free_port, {"REDIS_URL": redis.url}) as server,
    ):
        yield Scene(Node(server, tmp_path / "data"), redis)


@pytest.fixture
def doomed() -> Subject:
    return Subject("doomed", random.Random(3))


@pytest.fixture
def kept() -> Subject:
    return Subject("kept", random.Random(4))


def test_a_deleted_session_is_neither_in_redis_nor_in_its_files(scene: Scene, doomed: Subject, kept: Subject) -> None:
    scene.hear(doomed, kept)

    scene.node.ask("DELETE", f"/sessions/{doomed.session_id}")
    assert not scene.has_in_memory(doomed)
    scene.wait(lambda: not scene.has_on_disk(doomed))

    assert scene.has_in_memory(kept)
    assert scene.has_on_disk(kept)
    scene.redis.kill()
    scene.redis.start()
    assert not scene.has_in_memory(doomed)


def test_a_deleted_message_and_an_unpinned_fact_leave_redis_and_its_files(
    scene: Scene, kept: Subject, doomed: Subject
) -> None:
    session = f"/sessions/{kept.session_id}"
    scene.node.hear(kept)
    scene.node.ask("POST", f"{session}/messages", {"id": "secret", "role": "user", "content": doomed.marker})
    scene.node.ask("PUT", f"{session}/core-memory", {"id": "secret", "fact": f"a fact about {doomed.marker}"})
    scene.wait(lambda: str(scene.redis.contents()).count(doomed.marker) >= 2)
    scene.redis.save_copy()

    scene.node.ask("DELETE", f"{session}/messages/secret")
    scene.node.ask("DELETE", f"{session}/core-memory/secret")
    assert not scene.has_in_memory(doomed)
    scene.wait(lambda: not scene.has_on_disk(doomed))

    assert scene.has_in_memory(kept)


@pytest.mark.thorough
def test_a_redis_that_was_away_forgets_when_it_is_back(scene: Scene, doomed: Subject, kept: Subject) -> None:
    scene.hear(doomed, kept)
    scene.redis.kill()

    scene.node.ask("DELETE", f"/sessions/{doomed.session_id}")
    assert not scene.node.finds(doomed)
    scene.redis.start()

    scene.wait(lambda: not scene.has_in_memory(doomed) and not scene.has_on_disk(doomed))
    assert scene.has_in_memory(kept)


@pytest.mark.thorough
def test_a_redis_that_was_restored_to_before_the_deletion_forgets_again(
    scene: Scene, doomed: Subject, kept: Subject
) -> None:
    scene.hear(doomed, kept)
    older = scene.redis.save_copy()
    scene.node.ask("DELETE", f"/sessions/{doomed.session_id}")
    scene.wait(lambda: not scene.has_on_disk(doomed))

    scene.redis.restore(older)

    scene.wait(lambda: not scene.has_in_memory(doomed) and not scene.has_on_disk(doomed))
    scene.wait(lambda: scene.has_in_memory(kept))
