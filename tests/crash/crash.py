"""Kill a server under load, again and again, and look for every message that it acknowledged.

    python -m tests.crash.crash --rounds 20 --seed 7

Eight clients write over HTTP, one by one and in small batches, each into a session of its own. At a moment that the
seed picks, the server is killed (SIGKILL: no handler runs, no buffer is flushed) and started again, now and then
killed once more while it starts. Then:

* every acknowledged message stands exactly once, in its order, among the session's messages and in its context;
* it is found by a search for the one word that only it has, once;
* a write whose answer never came was done once or not at all, and sending it again makes it once.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.connection import Answer, Connection, build_request, session_path
from benchmarks.conversations import Conversations
from tests.server_process import ServerDiedError, ServerProcess, find_free_port

CLIENTS = 8
BATCH_MESSAGES = 5
BATCH_SHARE = 0.2
SEARCHES_MAX = 25
"""Searches a session and round: the newest messages, which a crash endangers most."""

KILL_AFTER_S = (0.05, 1.0)
STARTING_KILL_SHARE = 0.25
STARTING_KILL_AFTER_S = (0.05, 1.0)

ENVIRON = {"SHORT_TERM_COUNT": "100000", "LOG_LEVEL": "warning"}
"""The whole session is its conversation, so a context shows every message."""


class LostError(AssertionError):
    """A promise was broken; the message names session, message and round."""


class Round(NamedTuple):
    """What happened in one round."""

    number: int
    acknowledged: int
    unknown: int
    """Writes whose answer never came."""
    survived: int
    """Of these, those that were done all the same."""
    kills: int
    ready_s: float


@dataclass
class Client:
    """One session, and what its only writer knows about it."""

    session_id: str
    said: Conversations
    texts: dict[str, str] = field(default_factory=dict)
    """Text of every message sent so far, by id."""
    acknowledged: list[str] = field(default_factory=list)
    """Ids in the order of their acknowledgement, which is the order in which they were sent."""
    unknown: list[str] = field(default_factory=list)
    """Ids of the one write whose answer never came."""

    def next_ids(self, count: int) -> list[str]:
        """Make up messages, each with a word that no other has, and return their ids."""
        ids = [f"m{len(self.texts) + number}" for number in range(count)]
        for message_id in ids:
            self.texts[message_id] = f"{self.said.text()} {self.word(message_id)}"
        return ids

    def word(self, message_id: str) -> str:
        """Return the word that only this message has."""
        return f"zq{self.session_id}{message_id}k".replace("-", "x")

    def write(self, ids: Sequence[str]) -> bytes:
        """Return the request that writes these messages."""
        drafts = [{"id": message_id, "role": "user", "content": self.texts[message_id]} for message_id in ids]
        body = drafts[0] if len(drafts) == 1 else {"messages": drafts}
        return build_request("POST", session_path(self.session_id, "/messages"), body)

    def settle(self, ids: Sequence[str]) -> None:
        """Note that these are acknowledged."""
        self.acknowledged += ids
        self.unknown = []


class Drill:
    """A server, its clients, and the rounds they go through."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._random = random.Random(seed)
        self._server = ServerProcess(folder, find_free_port(), ENVIRON)
        self._clients = [Client(f"s-{number}", Conversations(seed + number)) for number in range(CLIENTS)]

    def run(self, rounds: int, done: Callable[[Round], None]) -> None:
        """Go through `rounds` rounds; afterwards the server must end by itself when it is asked to.

        Raises:
            LostError: A promise was broken.
        """
        with self._server:
            for number in range(1, rounds + 1):
                done(self._round(number))
            code = self._server.stop()
            if code != 0:
                raise LostError(f"exit code {code} after SIGTERM")

    def _round(self, number: int) -> Round:
        before = sum(len(client.acknowledged) for client in self._clients)
        asyncio.run(self._write_until_killed())
        acknowledged = sum(len(client.acknowledged) for client in self._clients) - before
        unknown = sum(len(client.unknown) for client in self._clients)
        kills, ready_s = self._restart()
        survived = asyncio.run(self._check_all())
        return Round(number, acknowledged, unknown, survived, kills, ready_s)

    async def _write_until_killed(self) -> None:
        after_s = self._random.uniform(*KILL_AFTER_S)
        asyncio.get_running_loop().call_later(after_s, os.kill, self._server.pid, signal.SIGKILL)
        try:
            async with asyncio.TaskGroup() as group:
                for client in self._clients:
                    group.create_task(self._write(client))
        except* LostError as broken:
            raise broken.exceptions[0] from None

    async def _write(self, client: Client) -> None:
        """Write until the server is gone."""
        with contextlib.suppress(OSError):
            async with Connection.to(self._server.port) as connection:
                while True:
                    ids = client.next_ids(BATCH_MESSAGES if self._random.random() < BATCH_SHARE else 1)
                    client.unknown = ids
                    _expect(await connection.ask(client.write(ids)), {200, 204})
                    client.settle(ids)

    def _restart(self) -> tuple[int, float]:
        """Start the server again, sometimes after one more kill; return the kills and the seconds to ready."""
        self._server.kill()
        kills = 1
        if self._random.random() < STARTING_KILL_SHARE:
            self._server.start_and_kill(self._random.uniform(*STARTING_KILL_AFTER_S))
            kills += 1
        return kills, self._server.start()

    async def _check_all(self) -> int:
        survived = 0
        async with Connection.to(self._server.port) as connection:
            for client in self._clients:
                survived += await _check_outcome(connection, client)
                await _check_context(connection, client)
                await _check_search(connection, client)
        return survived


async def _check_outcome(connection: Connection, client: Client) -> int:
    """Compare the session's messages with what was acknowledged; send again what is unknown; return what survived."""
    stored = await _stored(connection, client)
    lost = [message_id for message_id in client.acknowledged if message_id not in stored]
    if lost:
        raise LostError(f"{client.session_id}: acknowledged and gone: {lost[:10]} of {len(client.acknowledged)}")
    tail = stored[len(client.acknowledged) :]
    if stored != client.acknowledged + tail or tail not in ([], client.unknown):
        raise LostError(f"{client.session_id}: order broken, doubled or torn: {stored[-10:]}, sent {client.unknown}")
    if client.unknown:
        _expect(await connection.ask(client.write(client.unknown)), {200, 204})
        client.settle(client.unknown)
        if await _stored(connection, client) != client.acknowledged:
            raise LostError(f"{client.session_id}: sending {tail} again did not make it stand once")
    return len(tail)


async def _stored(connection: Connection, client: Client) -> list[str]:
    """Return the ids of the session's messages in order, having compared their texts."""
    ids: list[str] = []
    cursor = ""
    while True:
        path = session_path(client.session_id, f"/messages?order=asc&limit=200{cursor}")
        answer = await connection.ask(build_request("GET", path))
        if answer.status == 404 and not client.acknowledged:
            return []
        page = msgspec.json.decode(_expect(answer, {200}).body)
        for message in page["messages"]:
            if message["content"] != client.texts.get(message["id"]):
                raise LostError(f"{client.session_id}: {message['id']} holds another text")
            ids.append(message["id"])
        if page["next_cursor"] is None:
            return ids
        cursor = f"&cursor={quote(page['next_cursor'])}"


async def _check_context(connection: Connection, client: Client) -> None:
    path = session_path(client.session_id, "/context?max_tokens=1000000&long_term_top_k=200")
    context = msgspec.json.decode(_expect(await connection.ask(build_request("GET", path)), {200}).body)["context"]
    words = context.split()
    seen = {word: words.count(word) for word in map(client.word, client.acknowledged[-SEARCHES_MAX:])}
    wrong = {word: count for word, count in seen.items() if count != 1}
    if wrong:
        raise LostError(f"{client.session_id}: not once in the context: {wrong}")
    if sum(word.startswith("zq") for word in set(words)) != len(client.acknowledged):
        raise LostError(f"{client.session_id}: the context does not show all {len(client.acknowledged)} messages")


async def _check_search(connection: Connection, client: Client) -> None:
    path = session_path(client.session_id, "/search")
    for message_id in client.acknowledged[-SEARCHES_MAX:]:
        request = build_request("POST", path, {"query": client.word(message_id), "top_k": 200})
        hits = msgspec.json.decode(_expect(await connection.ask(request), {200}).body)["results"]
        found = [hit["id"] for hit in hits]
        if found.count(message_id) != 1:
            raise LostError(f"{client.session_id}: {message_id} is {found.count(message_id)} times among its hits")


def _expect(answer: Answer, statuses: set[int]) -> Answer:
    if answer.status not in statuses:
        raise LostError(f"{answer.status}: {answer.body[:500].decode(errors='replace')}")
    return answer


def main(arguments: Sequence[str]) -> int:
    """Run the drill and print a table; the exit code is 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="crash", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args(arguments)
    console = Console()
    table = Table("round", "acknowledged", "unknown", "of these done", "kills", "ready again after s")
    verdict = "every acknowledged message is there, once"
    with tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"seed {options.seed}", total=options.rounds)

        def note(done: Round) -> None:
            table.add_row(*map(str, done[:5]), f"{done.ready_s:.2f}")
            progress.advance(task)

        try:
            Drill(Path(folder), options.seed).run(options.rounds, note)
        except (LostError, ServerDiedError) as error:
            verdict = f"BROKEN: {error}"
    console.print(table)
    console.print(verdict, markup=False)
    console.print(f"replay: make crash ROUNDS={options.rounds} ARGS='--seed {options.seed}'", markup=False)
    return int(verdict.startswith("BROKEN"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
