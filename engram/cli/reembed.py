"""`engram reembed`: vectors of the model that is set now, for every message."""

import asyncio

from engram.cli.progress import Progress
from engram.cli.rebuild import rebuild_lancedb
from engram.cli.stopped import open_log
from engram.clock import SystemClock
from engram.config import Config
from engram.errors import ConfigError
from engram.foundation import Foundation, make_embedder, open_foundation
from engram.inference.builtin import BuiltinEmbedder
from engram.recall.query_vectors import space_of
from engram.workers.reembedding import InThread, Reembedded, census, reembed

COUNT_MESSAGES = 20_000
"""Counted at a time."""


async def run(config: Config, progress: Progress) -> int:
    """Embed what has no vectors of the model that is set, then write LanceDB anew for it. May be stopped and repeated.

    Returns 1 if the embedder refused some messages; they keep what they had.

    Raises:
        ConfigError: There is no log, or a setting is wrong.
        EmbedderError: The embedder does not work.
        StorageError: A node runs, or a disk failed.
    """
    if config.node_id is not None:
        raise ConfigError("NODE_ID is set: a node of a cluster cannot write alone, so its vectors stay as they are")
    async with open_log(config, read_only=True):
        pass  # there is one, and no node that has it
    async with open_foundation(config, clock=SystemClock()) as foundation:
        progress.say("folding the log")
        await foundation.wait_caught_up()
        result = await _embed(config, foundation, progress)
        await foundation.wait_caught_up()
        progress.say(f"{result.embedded} messages embedded, {result.refused} refused by the embedder")
        await rebuild_lancedb(config, foundation.store, progress)
    return 1 if result.refused else 0


async def _embed(config: Config, foundation: Foundation, progress: Progress) -> Reembedded:
    clock = SystemClock()
    embedder = await asyncio.to_thread(make_embedder, config, clock)
    store = foundation.store
    counts = await store.counts()
    unembedded = counts.pending_embeddings + counts.abandoned_embeddings
    counted = await census(store, COUNT_MESSAGES)
    total = unembedded + sum(number for space, number in counted.items() if space != space_of(embedder))
    with progress.step(f"embedding with {embedder.model}", total) as advance:
        if isinstance(embedder, BuiltinEmbedder):
            return await reembed(store, foundation.recorder, InThread(embedder), advance, clock=clock)
        try:
            return await reembed(store, foundation.recorder, embedder, advance, clock=clock)
        finally:
            await embedder.close()
