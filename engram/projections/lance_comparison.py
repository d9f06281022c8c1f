"""Does LanceDB hold what the primary store says? Every row is compared, a stretch of the log at a time; nothing is changed."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from engram.projections.comparison import Difference
from engram.projections.lance_rows import EmbeddedRow, Kept, kept_of
from engram.projections.lance_store import LanceStore

ROWS: Final = 1_000
"""Rows of a stretch: a few MB with their texts and vectors."""

TRIES: Final = 5
"""How often a stretch that differs is looked at again on a running node, which writes and forgets beside this."""

END: Final = 2**63 - 1


class Source(Protocol):
    """The part of the primary store that is read."""

    async def embedded_after(self, cursor: int, limit: int) -> Sequence[EmbeddedRow]:
        """Return rows whose vectors the log gave behind the index `cursor`, in log order, and whole entries."""


class Pair(NamedTuple):
    """A row as it is in LanceDB, and as it should be; None where there is none."""

    there: Kept | None
    wanted: Kept | None


class Stretch(NamedTuple):
    """What lies between two log indexes, up to where LanceDB was fed."""

    end: int | None
    """None: there is no more."""
    rows: int
    pair: Pair | None
    """The first difference."""


async def differences(
    lance: LanceStore,
    source: Source,
    wait: Callable[[], Awaitable[None]] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> AsyncIterator[Difference]:
    """Yield the first difference, if there is one; `progress` hears how many more rows are equal.

    On a running node `wait` returns when LanceDB had the time to follow; a difference counts if it stays. None: nobody
    writes.

    Raises:
        LanceError: LanceDB failed.
    """
    after: int | None = 0
    while after is not None:
        stretch = await _look(lance, source, after)
        for _ in range(TRIES if wait is not None else 0):
            if stretch.pair is None:
                break
            assert wait is not None
            await wait()
            stretch = await _look(lance, source, after)
        if stretch.pair is not None:
            yield _named(stretch.pair)
            return
        progress(stretch.rows)
        after = stretch.end


async def _look(lance: LanceStore, source: Source, after: int) -> Stretch:
    cursor = lance.cursor
    rows = await source.embedded_after(after, ROWS)
    end = rows[-1].log_index if len(rows) >= ROWS else None
    there = await lance.kept(after, min(END if end is None else end, cursor))
    wanted = [kept_of(row) for row in rows if row.log_index <= cursor and lance.space.holds(row)]
    return Stretch(None if end is None or end >= cursor else end, len(rows), _first_pair(there, wanted))


def _first_pair(there: Sequence[Kept], wanted: Sequence[Kept]) -> Pair | None:
    by_key, should = _by_key(there), _by_key(wanted)
    for key in sorted(by_key.keys() | should.keys()):
        pair = Pair(by_key.get(key), should.get(key))
        if pair.there != pair.wanted:
            return pair
    return Pair(there[0], there[0]) if len(there) != len(by_key) else None


def _by_key(rows: Sequence[Kept]) -> Mapping[tuple[int, str, str, str, int], Kept]:
    return {(row.log_index, row.tenant, row.session_id, row.message_id, row.chunk): row for row in rows}


def _named(pair: Pair) -> Difference:
    row = pair.wanted or pair.there
    assert row is not None
    if pair.there is None:
        what = "is missing"
    elif pair.wanted is None:
        what = "is there, but the read models do not have it"
    else:
        names = [name for name, one, two in zip(Kept._fields, pair.there, pair.wanted, strict=True) if one != two]
        what = f"{', '.join(names)} differ" if len(names) > 1 else f"{names[0]} differs" if names else "is there twice"
    key = f"message {row.message_id}, chunk {row.chunk}"
    return Difference("lancedb", "memories", row.session_id, key, row.log_index, what)
