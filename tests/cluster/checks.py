"""What must hold when all is over, whatever happened: nothing lost, nothing twice, and every node says the same."""

import asyncio
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from benchmarks.connection import Answer, Connection, build_request, session_path
from engram.projections.sqlite_store import PrimaryStore
from tests.cluster.asking import AnswerError, told
from tests.cluster.workload import Workload, Writer

PAGE_S_MAX = 30.0


class Stored(NamedTuple):
    """A message as a node gives it."""

    message_id: str
    content: str


class Findings(NamedTuple):
    """What is wrong, one line for each case; all empty is what must be."""

    lost: list[str]
    """Acknowledged and not there."""
    duplicates: list[str]
    """There more than once, whether acknowledged or not."""
    disordered: list[str]
    """Acknowledged in another order than it stands in."""
    altered: list[str]
    """With another text, or never sent."""

    def __add__(self, other: tuple[Any, ...]) -> "Findings":
        assert isinstance(other, Findings)
        return Findings(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


NOTHING_WRONG = Findings([], [], [], [])


def compare(place: str, acknowledged: Sequence[str], sent: Mapping[str, str], stored: Sequence[Stored]) -> Findings:
    """Compare one session on one node, called `place`, with what its writer knows.

    What was sent and never acknowledged may be there once, or not.
    """
    times = Counter(message.message_id for message in stored)
    promised = set(acknowledged)
    kept = [message.message_id for message in stored if message.message_id in promised]
    in_order = [message_id for message_id in acknowledged if times[message_id]]
    return Findings(
        lost=[f"{place}/{message_id}" for message_id in acknowledged if not times[message_id]],
        duplicates=[f"{place}/{message_id}, {count} times" for message_id, count in times.items() if count > 1],
        disordered=_disorder(place, in_order, list(dict.fromkeys(kept))),
        altered=[
            f"{place}/{message.message_id}" for message in stored if sent.get(message.message_id) != message.content
        ],
    )


def _disorder(place: str, wanted: Sequence[str], found: Sequence[str]) -> list[str]:
    wrong = [(want, there) for want, there in zip(wanted, found, strict=True) if want != there]
    return [
        f"{place}: {there} stands where {want} should, and {len(wrong)} are out of place" for want, there in wrong[:1]
    ]


async def check_nodes(ports: Mapping[int, int], workload: Workload) -> tuple[Findings, list[str]]:
    """Read every session from every node, and compare; also return which nodes could not be read, and why."""
    async with asyncio.TaskGroup() as group:
        checks = [group.create_task(_check_node(node_id, port, workload.writers)) for node_id, port in ports.items()]
    findings, unread = NOTHING_WRONG, []
    for check in checks:
        outcome = check.result()
        if isinstance(outcome, Findings):
            findings += outcome
        else:
            unread.append(outcome)
    return findings, unread


async def _check_node(node_id: int, port: int, writers: Sequence[Writer]) -> Findings | str:
    findings = NOTHING_WRONG
    try:
        async with Connection.to(port) as connection:
            for writer in writers:
                stored = await _stored(connection, writer)
                acknowledged = [message_id for done in writer.acknowledged for message_id in done.ids]
                findings += compare(f"node {node_id}: {writer.session_id}", acknowledged, writer.sent, stored)
    except (OSError, AnswerError) as error:
        return f"node {node_id} cannot be read: {type(error).__name__} {error}"
    return findings


async def _stored(connection: Connection, writer: Writer) -> list[Stored]:
    """Return a session's messages, oldest first."""
    latest = max((done.log_index for done in writer.acknowledged), default=0)
    stored: list[Stored] = []
    cursor = ""
    while True:
        path = session_path(writer.session_id, f"/messages?order=asc&limit=200&min_index={latest}{cursor}")
        answer = await _get(connection, path)
        if answer.status == 404:
            return []
        page = msgspec.json.decode(answer.body)
        stored += [Stored(message["id"], message["content"]) for message in page["messages"]]
        if page["next_cursor"] is None:
            return stored
        cursor = f"&cursor={quote(page['next_cursor'])}"


async def _get(connection: Connection, path: str) -> Answer:
    async with asyncio.timeout(PAGE_S_MAX):
        answer = await connection.ask(build_request("GET", path))
    if answer.status not in {200, 404}:
        raise AnswerError(f"GET {path}: {told(answer)}")
    return answer


async def digests(folders: Mapping[int, Path], scratch: Path, *, index: int) -> dict[int, dict[str, str]]:
    """Return the digest of each read model of each node, none of which runs; their files stay as they are.

    Raises:
        AnswerError: A node has not folded the entry at `index`: its read models are of another time.
    """
    return {node_id: await _digest(folder, scratch / f"node-{node_id}", index) for node_id, folder in folders.items()}


async def _digest(folder: Path, scratch: Path, index: int) -> dict[str, str]:
    await asyncio.to_thread(_copy, folder, scratch)
    try:
        store = await PrimaryStore.open(scratch / "projections.db")
        try:
            if store.applied_index < index:
                raise AnswerError(f"{folder} has folded entry {store.applied_index}, and entry {index} is committed")
            return await store.digest()
        finally:
            await store.close()
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch)


def _copy(folder: Path, scratch: Path) -> None:
    scratch.mkdir(parents=True)
    for path in folder.glob("projections.db*"):
        shutil.copy(path, scratch)


def differing(found: Mapping[int, Mapping[str, str]]) -> list[str]:
    """Return which read models differ, and between which nodes."""
    (first, wanted), *others = sorted(found.items())
    return [
        f"{model}: node {node_id} is not like node {first}"
        for node_id, models in others
        for model in sorted({*wanted, *models})
        if models.get(model) != wanted.get(model)
    ]
