"""Which embedder a node uses, and the move of its memory from one to another while it serves.

The log says which one it is: the model that made its newest vectors. So a move begins with the first vectors of the new
model, and every node, and every later leader, finds it there: nothing else has to be agreed on. Until the last message
is moved the node searches with both, each on the messages that it has read itself.

What is left to be moved is counted in the read models, over and over while a move is under way, so a crash or another
leader loses nothing.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Final, Protocol

from engram.clock import Clock
from engram.errors import ConfigError, ConflictError, NotReadyError, TimedOutError, UnavailableError
from engram.inference.choice import Move
from engram.inference.embedder import RemoteEmbedder
from engram.projections.lance_rows import Space
from engram.recall.query_vectors import Embedder, is_local, is_remote, space_of
from engram.workers import reembedding
from engram.workers.batches import Observer
from engram.workers.embedding import OUTAGE_BACKOFF_MAX_S, OUTAGE_BACKOFF_S, Records
from engram.workers.reembedding import ASIDE, InThread, Reembedding

LOOK_S: Final = 0.25
"""How often a node that does not lead looks whose vectors the newest are: one query that reads one row."""

CENSUS_S: Final = 1.0
CENSUS_SHARE: Final = 0.05
"""While messages are moved they are counted once a second, but in this part of the time at most."""

CENSUS_MESSAGES: Final = 1_000
"""Counted in one hop into the store's thread: some milliseconds."""

STALLED_CENSUSES: Final = 60
"""After so many that found the same, what is left is taken for what the new embedder refuses."""


_log = logging.getLogger(__name__)


class Reads(reembedding.Reads, reembedding.Census, Protocol):
    """The part of the primary store that is read."""

    @property
    def applied_index(self) -> int:
        """Index of the last log entry that reads see."""

    async def embedding_space(self) -> Space | None:
        """Return whose the newest vectors are; None when there are none."""


class Source(Protocol):
    """Where embedders come from."""

    async def make(self, space: Space) -> Embedder:
        """Return an embedder whose vectors are of `space`.

        Raises:
            ConfigError: There is none, as the node is set up.
        """

    async def note(self, space: Space) -> None:
        """Keep in mind, durably, that the embedder of `space` is used whatever the settings say."""

    async def close(self, embedder: Embedder) -> None:
        """Let go of an embedder."""


class Node(Protocol):
    """What the rest of the node does about it."""

    def use(self, target: Embedder, others: Sequence[Embedder], *, lacks: bool) -> None:
        """Embed new messages by `target`, and queries by all of them; `lacks`: somebody else has read messages, too."""

    def moved(self, space: Space) -> None:
        """Hear that all is moved to `space`, so that the long-term store can follow."""


class Embedders:
    """The embedders of a node: the target, which embeds what is new, and those of what is not moved yet."""

    def __init__(
        self,
        reads: Reads,
        recorder: Records,
        source: Source,
        node: Node,
        target: Embedder,
        *,
        leads: Callable[[], bool],
        observer: Observer,
        clock: Clock,
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._reads = reads
        self._recorder = recorder
        self._source = source
        self._node = node
        self.target = target
        self._others: dict[Space, Embedder] = {}
        self._unknown: set[Space] = set()
        """Spaces of which this node has no embedder: said once."""
        self._leads = leads
        self._observer = observer
        self._clock = clock
        self._rng = rng
        self._sleep = sleep
        self._starting = asyncio.Lock()
        self._counting = asyncio.Lock()
        self._changed = asyncio.Event()
        """The target is another one."""
        self._idle = asyncio.Event()
        """Nothing is embedded by the target that was."""
        self._idle.set()
        self._looked_at_index = -1
        """Up to here it is known whose the newest vectors are."""
        self._counts: Mapping[Space, int] = {}
        self._counted_s = float("-inf")
        self._stalled = 0
        self._has_moved = False
        self._refused = 0
        self._is_new = False
        """The target has just been named: what another one gave up may be to its taste."""
        self._is_spent = False
        """The last pass moved nothing more."""
        self._error: str | None = None

    @property
    def space(self) -> Space:
        """What the target's vectors can be compared with."""
        return space_of(self.target)

    @property
    def others(self) -> Sequence[Embedder]:
        """The embedders of what is not moved yet."""
        return list(self._others.values())

    def status(self) -> Move:
        """Return how far a move is, as last counted."""
        total, left = sum(self._counts.values()), self._left()
        return Move(
            state="running" if self._is_under_way() else "done" if self._has_moved else "none",
            model=self.space.model,
            dimension=self.space.dimension,
            others=tuple(sorted({space.model for space in self._counts if space != self.space})),
            done=total - left,
            total=total,
            refused=self._refused,
            error=self._error,
        )

    async def current(self) -> Move:
        """Return how far a move is, counted within the last seconds."""
        if self._is_stale():
            await self.count()
        return self.status()

    async def run(self) -> None:
        """Follow what the log says, for ever; every node does."""
        while True:
            await self.look()
            await self._sleep(LOOK_S)

    async def look(self) -> None:
        """Use the embedder of the newest vectors, unless this node leads and says itself which it is; count."""
        applied_index = self._reads.applied_index
        if not self._leads() and applied_index != self._looked_at_index:
            await self.adopt()
            self._looked_at_index = applied_index
        if self._is_census_due():
            await self.count()

    async def adopt(self) -> bool:
        """Use the embedder of the newest vectors; return False if this node cannot have it."""
        async with self._starting:
            space = await self._reads.embedding_space()
            if space is None or space == self.space:
                return True
            embedder = None if space in self._unknown else await self._made(space)
            if embedder is None:
                self._tell()
                return False
            await self._source.note(space)
            _log.info("the log says that memory moves to another embedder", extra=space._asdict())
            await self._switch(embedder)
            return True

    async def check(self, space: Space) -> None:
        """Refuse a move to `space` that cannot begin now.

        Raises:
            ConflictError: A move is under way, or `space` is in use already.
            NotReadyError: This node leads, but has not folded all that the leaders before it wrote.
        """
        if not self._leads():
            raise NotReadyError("it is not known here yet which embedder is in use: retry in a moment")
        await self.count()
        status = self.status()
        if status.state == "running":
            raise ConflictError(
                f"memory is being moved to {_named(self.space)}: {status.done} of {status.total} messages are; wait "
                "until it is done",
                code="reembedding_running",
            )
        if space == self.space:
            raise ConflictError(f"{_named(space)} is in use already", code="embedder_in_use")

    async def start(self, target: Embedder) -> Move:
        """Begin to move all memory to `target`; return when its first vectors are in the log.

        When it fails, `target` is let go of, and everything is as it was.

        Raises:
            ConflictError: A move is under way, or the target is in use already.
            EmbedderError: It does not work.
            UnavailableError, TimedOutError: The log does not take its vectors now.
        """
        async with self._starting:
            try:
                await self.check(space_of(target))
            except (ConflictError, NotReadyError):
                await self._source.close(target)
                raise
            before = self.target
            await self._source.note(space_of(target))
            await self._switch(target)
            try:
                await self._idle.wait()
                await self._reembedding(target).embed_some()
            except (UnavailableError, TimedOutError):
                await self._source.note(space_of(before))
                await self._switch(before)
                raise
            self._is_new = True
            await self.count()
            return self.status()

    async def work(self, serve: Callable[[RemoteEmbedder], Coroutine[Any, Any, None]]) -> None:
        """Embed by the target what waits, by `serve`, and what is to be moved; for ever, while this node leads."""
        self._is_spent, self._refused = False, 0
        while True:
            self._changed.clear()
            target = self.target
            self._idle.clear()
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(serve(embeds(target))), group.create_task(self._move(target))]
                    await self._changed.wait()
                    for task in tasks:
                        task.cancel()
            finally:
                self._idle.set()

    async def _move(self, target: Embedder) -> None:
        async with self._starting:
            pass  # whoever begins the move records its first vectors alone: they show whether it can begin
        outages = 0
        while True:
            if not self._is_new and not self._is_under_way():
                await self._sleep(LOOK_S)
                continue
            moving = self._reembedding(target)
            try:
                await moving.embed_others()
                if self._is_new:
                    await self._reembedding(target).embed_abandoned()
            except (UnavailableError, TimedOutError) as error:
                outages += 1
                if self._error is None:
                    _log.warning("moving to another embedder pauses: %s", error)
                self._error = str(error)
                doubled_s = min(OUTAGE_BACKOFF_MAX_S, OUTAGE_BACKOFF_S * 2.0 ** min(outages - 1, 10))
                await self._sleep(doubled_s * (0.5 + self._rng.random()))
                continue
            self._is_new = False
            outages, self._error = 0, None
            refused, is_spent = len(moving.refused), moving.embedded == 0
            await self.count()
            if is_spent and refused:
                _log.warning("messages stay with their vectors: refused", extra={"refused": refused})
                self._node.moved(self.space)
            # The long-term store has heard of it before anybody reads that the move is over.
            if target is self.target:
                self._refused, self._is_spent = refused, is_spent

    def _reembedding(self, target: Embedder) -> Reembedding:
        return Reembedding(
            self._reads, self._recorder, embeds(target), self._tally, clock=self._clock, observer=self._observer,
            pace=ASIDE, sleep=self._sleep,
        )  # fmt: skip

    def _tally(self, messages: int) -> None:
        """Hear of messages that were dealt with; they are counted where they are stored."""

    async def _switch(self, target: Embedder) -> None:
        before = self.target
        self.target = target
        self._others[space_of(before)] = before
        kept = self._others.pop(space_of(target), None)
        if kept is not None and kept is not target:
            await self._source.close(kept)
        self._is_spent, self._refused, self._error, self._stalled = False, 0, None, 0
        self._counted_s = float("-inf")
        self._has_moved = True
        self._tell()
        self._changed.set()

    def _tell(self) -> None:
        self._node.use(self.target, self.others, lacks=bool(self._unknown))

    def _is_census_due(self) -> bool:
        if self._counted_s == float("-inf"):
            return True
        return bool(self._left() or self._others or self._unknown) and self._is_stale()

    def _is_stale(self) -> bool:
        return self._clock.monotonic_s() >= self._counted_s + CENSUS_S

    async def count(self) -> None:
        """Count whose vectors the messages have; use embedders of all of them, and of nobody else."""
        async with self._counting:
            started_s = self._clock.monotonic_s()
            counts = await reembedding.census(self._reads, CENSUS_MESSAGES)
            took_s = self._clock.monotonic_s() - started_s
            await self._keep(counts.keys() - {self.space})  # before anybody is told of them
            self._counted_s = self._clock.monotonic_s() + took_s / CENSUS_SHARE
            self._stalled = self._stalled + 1 if counts == self._counts else 0
            self._counts = counts
            if not self._left() or self._stalled == STALLED_CENSUSES:
                self._node.moved(self.space)

    async def _keep(self, spaces: Collection[Space]) -> None:
        found_out = len(self._unknown)
        self._unknown.intersection_update(spaces)
        gone = [space for space in self._others if space not in spaces]
        new = [space for space in sorted(spaces) if space not in self._others and space not in self._unknown]
        dropped = [self._others.pop(space) for space in gone]
        for space in new:
            embedder = await self._made(space)
            if embedder is not None:
                self._others[space] = embedder
        if dropped or new or len(self._unknown) < found_out:
            self._has_moved = True
            self._tell()
        for embedder in dropped:
            await self._source.close(embedder)

    async def _made(self, space: Space) -> Embedder | None:
        try:
            return await self._source.make(space)
        except ConfigError as error:
            self._unknown.add(space)
            _log.error("messages with vectors of %s are found by words only: %s", _named(space), error)
            return None

    def _is_under_way(self) -> bool:
        """Whether there are messages to move that the target has not refused."""
        return self._left() > (self._refused if self._is_spent else 0)

    def _left(self) -> int:
        return sum(number for space, number in self._counts.items() if space != self.space)


def embeds(embedder: Embedder) -> RemoteEmbedder:
    """Return an embedder as one that is waited for."""
    if is_remote(embedder):
        return embedder
    assert is_local(embedder), "an embedder is one or the other"
    return InThread(embedder)


def _named(space: Space) -> str:
    return f"{space.model} with {space.dimension} dimensions"
