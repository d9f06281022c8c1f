"""`engram reembed --url`: moving a running node, or its whole cluster, to another embedder, begun and watched over HTTP."""

import argparse
import asyncio
from typing import Final, NamedTuple

import aiohttp

from engram.api.reembedding import PATH, MoveView
from engram.cli.progress import Progress
from engram.cli.remote import CONNECT_S, RemoteError, decoded, refusal
from engram.inference.choice import OWN

POLL_S: Final = 0.5

ANSWER_S: Final = 60.0
"""The embedder is tried out before the answer comes."""

AWAY_S: Final = 30.0
"""A node that is started anew goes on with a move: it is waited for so long."""


class Wanted(NamedTuple):
    """What the command line names; no embedder: only to watch."""

    url: str | None
    embedder: str | None
    model: str | None
    dimension: int | None
    base_url: str | None

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "Wanted":
        """Return what the arguments say."""
        return cls(arguments.url, arguments.embedder, arguments.model, arguments.dimension, arguments.base_url)

    def means(self, move: MoveView) -> bool:
        """Return whether the move that is under way is the one that is wanted."""
        own = OWN.get(self.embedder or "")
        if own is not None:
            return own == (move.model, move.dimension)
        return self.model == move.model and self.dimension in {None, move.dimension}

    def body(self) -> dict[str, str | int]:
        """Return what is sent."""
        named = {"embedder": self.embedder, "model": self.model, "dimension": self.dimension, "base_url": self.base_url}
        return {name: value for name, value in named.items() if value is not None}


async def run(wanted: Wanted, progress: Progress) -> int:
    """Begin a move, unless that one is under way, and show it until it is done; return 1 if messages were refused.

    Raises:
        RemoteError: No node answers, or it refuses.
    """
    timeout = aiohttp.ClientTimeout(total=ANSWER_S, connect=CONNECT_S)
    async with aiohttp.ClientSession(timeout=timeout) as client:
        url = wanted.url or ""
        try:
            if wanted.embedder is not None:
                url = await _begin(client, wanted, progress)
            move = await _look(client, url)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _silent(url, error) from None
        if move.state == "none" and wanted.embedder is None:
            progress.say(f"nothing is being moved: {move.model} is in use")
            return 0
        if move.state == "running":
            move = await _watched(client, url, move, progress)
    progress.say(f"{move.done} of {move.total} messages have vectors of {move.model}, {move.refused} were refused")
    return 1 if move.refused else 0


async def _begin(client: aiohttp.ClientSession, wanted: Wanted, progress: Progress) -> str:
    """Begin the move; return where the node is that leads it."""
    async with client.post(f"{wanted.url}{PATH}", json=wanted.body()) as answer:
        data = await answer.read()
        leader = str(answer.url.origin())
        if answer.ok:
            return leader
        refused = refusal(leader, answer.status, data)
    if "(reembedding_running)" not in str(refused):
        raise refused
    move = await _look(client, leader)
    if not wanted.means(move):
        raise refused
    progress.say("that move is under way")
    return leader


async def _watched(client: aiohttp.ClientSession, url: str, move: MoveView, progress: Progress) -> MoveView:
    """Show how far the move is until it is over; its messages stay moved whoever stops watching."""
    told = None
    with progress.step(f"moving to {move.model}", move.total) as advance:
        advance(move.done)
        while move.state == "running":
            await asyncio.sleep(POLL_S)
            now = await _patiently(client, url)
            advance(now.done - move.done)
            move = now
            if move.error != told:
                told = move.error
                progress.say(f"it pauses: {told}" if told else "it goes on")
    return move


async def _patiently(client: aiohttp.ClientSession, url: str) -> MoveView:
    loop = asyncio.get_running_loop()
    until_s = loop.time() + AWAY_S
    while True:
        try:
            return await _look(client, url)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if loop.time() >= until_s:
                raise _silent(url, error) from None
        await asyncio.sleep(POLL_S)


async def _look(client: aiohttp.ClientSession, url: str) -> MoveView:
    async with client.get(url + PATH) as answer:
        data = await answer.read()
        if not answer.ok:
            raise refusal(url, answer.status, data)
    return decoded(url, data, MoveView)


def _silent(url: str, error: Exception) -> RemoteError:
    return RemoteError(f"no node answers at {url}{PATH}: {str(error) or type(error).__name__}")
