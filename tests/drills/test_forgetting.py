"""Forgetting is real: what was deleted is in no file of the node, seen from outside."""

import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.drills.subjects import MESSAGES, Subject, places
from tests.server_process import ServerProcess

LONG_TERM_S_MAX = 25.0
"""The long-term store follows at its own pace: a second for rows, less than one for an erasure."""


class Node:
    """A server and its files."""

    def __init__(self, server: ServerProcess, data: Path) -> None:
        self.server = server
        self.data = data

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Send a request and return the answer's JSON, None without a body.

        Raises:
            urllib.error.HTTPError: The answer is an error.
        """
        request = urllib.request.Request(
            f"{self.server.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    def hear(self, subject: Subject) -> None:
        """Take all that a subject has to say, in every form in which it can be said."""
        messages = f"/sessions/{subject.session_id}/messages"
        for number in range(MESSAGES // 2):
            self.ask("POST", messages, subject.message(number))
        self.ask("POST", messages, {"messages": [subject.message(number) for number in range(MESSAGES // 2, MESSAGES)]})
        self.ask("PUT", f"/sessions/{subject.session_id}/core-memory", {"fact": f"a fact about {subject.marker}"})
        self.search(subject)
        self.ask("GET", f"/sessions/{subject.session_id}/context?query=number+7")

    def search(self, subject: Subject) -> list[Any]:
        """Return what a search of the subject's session finds."""
        found = self.ask("POST", f"/sessions/{subject.session_id}/search", {"query": "said number", "top_k": 5})
        hits: list[Any] = found["results"]
        return hits

    def places(self, marker: str) -> set[str]:
        """Return the folders and files, relative to the data folder's top, that hold `marker`."""
        return places(self.data, marker)

    def wait_for_long_term(self, marker: str, *, is_there: bool) -> None:
        """Wait until the long-term store's files hold `marker`, or do not."""
        deadline_s = time.perf_counter() + LONG_TERM_S_MAX
        while ("lancedb" in self.places(marker)) is not is_there:
            assert time.perf_counter() < deadline_s, self.ask("GET", "/ready")

    def finds(self, subject: Subject) -> bool:
        """Return whether a search of the subject's session finds something."""
        try:
            return bool(self.search(subject))
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return False


@pytest.fixture
def node(tmp_path: Path, free_port: int) -> Iterator[Node]:
    with ServerProcess(tmp_path, free_port) as server:
        yield Node(server, tmp_path / "data")


@pytest.fixture
def doomed() -> Subject:
    return Subject("doomed", random.Random(1))


@pytest.fixture
def kept() -> Subject:
    return Subject("kept", random.Random(2))


def test_a_deleted_session_is_in_no_file(node: Node, doomed: Subject, kept: Subject) -> None:
    node.hear(doomed)
    node.hear(kept)
    node.wait_for_long_term(doomed.marker, is_there=True)
    before = node.places(doomed.marker)

    node.ask("DELETE", f"/sessions/{doomed.session_id}")
    right_after = node.places(doomed.marker)
    node.wait_for_long_term(doomed.marker, is_there=False)

    assert {"raft", "lancedb"} <= before
    assert right_after <= {"lancedb"}
    assert not node.finds(doomed)
    assert node.finds(kept)
    assert doomed.marker not in node.server.log
    assert node.server.stop() == 0
    assert node.places(doomed.marker) == set()
    assert node.places(kept.marker) >= {"raft", "projections.db", "lancedb"}


@pytest.mark.thorough
def test_it_stays_forgotten_when_everything_is_built_again(node: Node, doomed: Subject, kept: Subject) -> None:
    node.hear(doomed)
    node.hear(kept)
    node.ask("DELETE", f"/sessions/{doomed.session_id}")
    node.server.stop()
    (node.data / "projections.db").unlink()

    node.server.start()
    node.wait_for_long_term(doomed.marker, is_there=False)

    assert not node.finds(doomed)
    assert node.finds(kept)
    assert node.places(doomed.marker) == set()


def test_a_deleted_message_is_in_no_file_and_its_neighbours_stay(node: Node, kept: Subject, doomed: Subject) -> None:
    node.hear(kept)
    said = {"id": "secret", "role": "user", "content": f"my secret is {doomed.marker}"}
    node.ask("POST", f"/sessions/{kept.session_id}/messages", {"messages": [said, {**kept.message(0), "id": "next"}]})
    node.wait_for_long_term(doomed.marker, is_there=True)

    node.ask("DELETE", f"/sessions/{kept.session_id}/messages/secret")
    right_after = node.places(doomed.marker)
    node.wait_for_long_term(doomed.marker, is_there=False)

    assert right_after <= {"lancedb"}
    assert node.ask("GET", f"/sessions/{kept.session_id}/messages/next")["content"] == said_by(kept)
    node.server.stop()
    assert node.places(doomed.marker) == set()


def said_by(subject: Subject) -> str:
    content: str = subject.message(0)["content"]
    return content


@pytest.mark.thorough
def test_a_crash_right_after_the_deletion_does_not_save_it(node: Node, doomed: Subject, kept: Subject) -> None:
    node.hear(doomed)
    node.hear(kept)
    node.wait_for_long_term(doomed.marker, is_there=True)

    node.ask("DELETE", f"/sessions/{doomed.session_id}")
    node.server.kill()
    node.server.start()
    node.wait_for_long_term(doomed.marker, is_there=False)

    assert not node.finds(doomed)
    assert node.finds(kept)
    assert node.places(doomed.marker) == set()
