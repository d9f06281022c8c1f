"""What clients said about messages (role, name, metadata), read once for the filters that ask for it.

What a message was labelled with never changes, so what was read stays true until the message is deleted. Sessions in use
are kept within a bound of bytes, the least recently used one goes first. Belongs to the loop.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np

from engram.events import Scalar
from engram.projections.rows import LabelRow, SessionRow
from engram.recall.filters import Labels

LABELS_BYTES_MAX: Final = 16 * 1024 * 1024
"""About 60 000 messages with two keys each. Reading them again takes some 5 us a message."""

PAGE_ROWS: Final = 4096
"""Messages that are read at once: some 20 ms in which other reads wait."""

ROW_BYTES: Final = 48
KEY_BYTES: Final = 110
"""Roughly what a message and each of its keys take."""

NONE_READ: Final = Labels(np.empty(0, np.uint32), (), (), ())


class Reads(Protocol):
    """The part of the primary store that labels are read from."""

    async def labels(self, session_key: int, *, first: int, limit: int) -> list[LabelRow]:
        """Return the labels of messages with ordinals from `first` on, in their order."""


class _Known(NamedTuple):
    labels: Labels
    next_ordinal: int
    deletions: int
    size_bytes: int


class LabelCache:
    """Labels by session key."""

    def __init__(self, reads: Reads, *, bytes_max: int = LABELS_BYTES_MAX) -> None:
        self._reads = reads
        self._bytes_max = bytes_max
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Memory that the labels hold, roughly."""
        return self._size_bytes

    async def of(self, session: SessionRow) -> Labels:
        """Return the labels of every message that the row says is there, and maybe of later ones."""
        known = self._known.get(session.session_key)
        if known is None or known.deletions < session.deletions:
            known = _Known(NONE_READ, 0, session.deletions, 0)
        if known.next_ordinal < session.next_ordinal:
            known = await self._caught_up(known, session)
        self._keep(session.session_key, known)
        return known.labels

    def clear(self) -> None:
        """Keep none of them."""
        self._known.clear()
        self._size_bytes = 0

    async def _caught_up(self, known: _Known, session: SessionRow) -> _Known:
        added: list[LabelRow] = []
        first = known.next_ordinal
        while first < session.next_ordinal:
            page = await self._reads.labels(session.session_key, first=first, limit=PAGE_ROWS)
            added += page
            if len(page) < PAGE_ROWS:
                break
            first = page[-1].ordinal + 1
        behind = added[-1].ordinal + 1 if added else 0
        return _Known(
            _joined(known.labels, added),
            max(session.next_ordinal, behind),
            known.deletions,
            known.size_bytes + sum(map(_size_bytes, added)),
        )

    def _keep(self, session_key: int, known: _Known) -> None:
        self._drop(session_key)
        self._known[session_key] = known
        self._size_bytes += known.size_bytes
        while self._size_bytes > self._bytes_max and len(self._known) > 1:
            self._drop(next(iter(self._known)))

    def _drop(self, session_key: int) -> None:
        known = self._known.pop(session_key, None)
        if known is not None:
            self._size_bytes -= known.size_bytes


def _joined(labels: Labels, added: Sequence[LabelRow]) -> Labels:
    """Return new labels: a search may still be looking at the old ones, in its own thread."""
    metadata: Sequence[Mapping[str, Scalar]] = [row.metadata for row in added]
    return Labels(
        np.concatenate([labels.ordinals, np.array([row.ordinal for row in added], np.uint32)]),
        [*labels.roles, *(row.role for row in added)],
        [*labels.names, *(row.name for row in added)],
        [*labels.metadata, *metadata],
    )


def _size_bytes(row: LabelRow) -> int:
    texts = sum(len(value) for value in row.metadata.values() if isinstance(value, str))
    return ROW_BYTES + KEY_BYTES * len(row.metadata) + texts
