"""`engram diff`: what changed in a session between two moments; asked of a running node, or read from a stopped one's log."""

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self, TextIO
from urllib.parse import quote, urlencode

import msgspec

from engram.api.as_of import index_among
from engram.api.differences import DifferenceView, Shown, check_order, compare
from engram.cli.progress import Progress
from engram.cli.remote import decoded, stream_from
from engram.cli.stopped import commit_index, fold, open_log
from engram.clock import SystemClock
from engram.config import Config
from engram.events import TENANT_DEFAULT
from engram.foundation import check_embedding_space, make_embedder
from engram.inference.tokens import TokenCounter
from engram.log.consensus.types import Entry
from engram.log.sqlite import SqliteLog
from engram.projections.sqlite_store import PrimaryStore
from engram.recall.lookback import Lookback
from engram.recall.search import Searcher

TEXT_CHARACTERS_MAX = 100
"""How much of a text a line shows; --json shows all of it."""


class Wanted(NamedTuple):
    """What to compare, where, and how to print it."""

    session: str
    first: str
    last: str | None
    query: str | None
    url: str | None
    """None: the data folder of a stopped node."""
    is_json: bool

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Self:
        """Return what the arguments ask for."""
        return cls(
            session=arguments.session,
            first=arguments.first,
            last=arguments.last,
            query=arguments.query,
            url=arguments.url,
            is_json=arguments.json,
        )


class _Unobserved:
    def searched(self, stage: str, seconds: float) -> None:
        """Take note of nothing: nobody measures a command."""


class _Committed:
    """A stopped node's log, as far as it is known to be committed."""

    def __init__(self, log: SqliteLog) -> None:
        self._log = log

    async def read(self, after: int, limit: int) -> Sequence[Entry]:
        """Return the first `limit` committed entries behind the index `after`."""
        return await self._log.read(after, commit_index(self._log), limit)


async def run(config: Config, wanted: Wanted, out: TextIO, progress: Progress) -> int:
    """Print what changed to `out`.

    Raises:
        ConfigError: There is no log, or its vectors are not of the model that is set.
        InvalidError, NotFoundError: A moment is not in the log, or the session was not there.
        RemoteError: The node does not answer, or refuses.
        StorageError, CorruptionError: A node runs, or the disk failed.
    """
    view = await (_stopped(config, wanted, progress) if wanted.url is None else _running(wanted.url, wanted))
    out.write(msgspec.json.encode(view).decode() + "\n" if wanted.is_json else "".join(_lines(view)))
    return 0


async def _running(url: str, wanted: Wanted) -> DifferenceView:
    query = {"from": wanted.first, "to": wanted.last, "query": wanted.query}
    asked = urlencode({name: value for name, value in query.items() if value is not None})
    async with stream_from(url, f"/sessions/{quote(wanted.session, safe='')}/diff?{asked}") as parts:
        data = b"".join([part async for part in parts])
    return decoded(url, data, DifferenceView)


async def _stopped(config: Config, wanted: Wanted, progress: Progress) -> DifferenceView:
    async with open_log(config, read_only=False) as log:
        store = await PrimaryStore.open(config.projections_path)
        try:
            if (waiting := commit_index(log) - store.applied_index) > 0:
                with progress.step("folding the log", waiting) as advance:
                    await fold(log, store, commit_index(log), advance)
            return await _compare(config, wanted, log, store)
        finally:
            await store.close()


async def _compare(config: Config, wanted: Wanted, log: SqliteLog, store: PrimaryStore) -> DifferenceView:
    embedder = await asyncio.to_thread(make_embedder, config, SystemClock())
    tokens = await asyncio.to_thread(TokenCounter)
    await check_embedding_space(store, embedder)
    searcher = Searcher(store, embedder, cache_bytes_max=config.recall_cache_bytes_max, observer=_Unobserved())
    lookback = Lookback(
        store,
        _Committed(log),
        searcher,
        tokens,
        model=embedder.model,
        short_term_count=config.short_term_count,
    )
    applied_index = store.applied_index
    try:
        first = await index_among(lookback, applied_index, "--from", wanted.first)
        last = applied_index if wanted.last is None else await index_among(lookback, applied_index, "--to", wanted.last)
        check_order(("--from", first), ("--to", last))
        return await compare(lookback, wanted.session, TENANT_DEFAULT, first, last, wanted.query)
    finally:
        searcher.close()


def _lines(view: DifferenceView) -> Iterator[str]:
    first, last = _moment(view.from_index, view.from_at), _moment(view.to_index, view.to_at)
    yield f"session {view.session_id}, from {first} to {last}\n"
    yield from _changes(view)
    if view.visibility_before != view.visibility_after:
        yield f"visibility: {view.visibility_before or 'not there'} -> {view.visibility_after}\n"
    was, there = view.counts_before, view.counts_after
    for name in ("messages", "facts", "tokens"):
        yield f"{name}: {0 if was is None else getattr(was, name)} -> {getattr(there, name)}\n"
    if view.context is not None:
        yield f"context for {view.context.query!r}:\n"
        yield from (_shown("+", piece) for piece in view.context.added)
        yield from (_shown("-", piece) for piece in view.context.removed)


def _changes(view: DifferenceView) -> Iterator[str]:
    for message in view.added:
        yield f"+ {message.index:>8} message {message.id} {message.role}: {_short(message.content)}\n"
    for gone in view.deleted:
        yield f"- {gone.index:>8} message {gone.id}\n"
    for got in view.embedded:
        yield f"~ {got.index:>8} vectors of message {got.id} by {got.model}\n"
    for fact in view.pinned:
        yield f"+ {fact.index:>8} fact {fact.id}: {_short(fact.fact)}\n"
    for gone in view.unpinned:
        yield f"- {gone.index:>8} fact {gone.id}\n"


def _moment(index: int, at: str | None) -> str:
    return f"entry {index}" if at is None else f"entry {index} ({at})"


def _shown(sign: str, piece: Shown) -> str:
    return f"{sign} {piece.index:>8} {piece.section}: {piece.id} of session {piece.session_id}\n"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TEXT_CHARACTERS_MAX else f"{line[:TEXT_CHARACTERS_MAX]}..."
