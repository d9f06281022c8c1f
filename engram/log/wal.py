"""SQLite's write-ahead log, read before SQLite does: where it ends, and whether it may end there.

SQLite ends its recovery at the first frame that does not fit the checksum, as after a crash in the middle of writing
it. A bit that flipped in a frame that was durable looks the same to it, and all that stands behind is gone, without a
word. It can be told apart: each commit is durable before the next transaction writes its first frame. So a frame that
goes on from a commit proves that this commit, and all before it, was durable; and what a `Mark` speaks of was.

The format is that of https://www.sqlite.org/fileformat2.html#walformat, which is stable. Checksums go on from frame to
frame, and are linear, modulo 2**32: what a frame adds to them does not depend on those before.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Sum = tuple[int, int]

HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
_HEADER = struct.Struct(">8I")
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
"""The order of bytes in which checksums are computed; that of all numbers in the file is the network's."""
_PAGE_BYTES_MIN, _PAGE_BYTES_MAX = 512, 65536
_HEADER_WORDS = 6
_PAGES_WORD = 1
_MASK = 0xFFFFFFFF
_CHUNK_FRAMES = 128


class Bytes(Protocol):
    """A file that can be read."""

    def read(self, amount_bytes: int, offset: int) -> bytes:
        """Return what is there, less at the end of the file."""


class Place(NamedTuple):
    """A place in a write-ahead log: behind so many frames, of the generation that `salts` names."""

    salts: Sum
    frames: int
    total: Sum
    """The checksum there."""


class Ending(NamedTuple):
    """Where SQLite's recovery ends."""

    salts: Sum | None
    """None when SQLite takes nothing from the file."""
    frames: int
    """How many frames it takes: up to the last commit."""
    damage: str = ""
    """Why it must not end there; empty when it may."""

    @property
    def starts_over(self) -> bool:
        """Whether SQLite begins at the first frame, perhaps under the salts of frames that are there.

        It takes them over from a header even if it does not believe it. So there must be no frames.
        """
        return self.frames == 0


class _Header(NamedTuple):
    order: str
    page_bytes: int
    salts: Sum
    total: Sum


class _Frame(NamedTuple):
    number: int
    page: int
    database_pages: int
    """Not 0 in the last frame of a transaction, the commit."""
    pages_word: int
    """The same, in the order of bytes of the checksum."""
    salts: Sum
    total: Sum
    adds: Sum


class _Sums(NamedTuple):
    """How the words of a frame, each multiplied by its weight, and the checksum before it make the one behind it."""

    weights: NDArray[np.uint32]
    carry: tuple[Sum, Sum]

    def after(self, total: Sum, adds: Sum) -> Sum:
        (a, b), (c, d) = self.carry
        return (a * total[0] + b * total[1] + adds[0]) & _MASK, (c * total[0] + d * total[1] + adds[1]) & _MASK

    def follows(self, total: Sum, frame: _Frame) -> bool:
        return self.after(total, frame.adds) == frame.total


def examine(wal: Bytes, database: Bytes, mark: Place | None) -> Ending:
    """Return where SQLite will end its reading of `wal`, and whether that can be the end of what was durable.

    `mark` is a place up to which it was.
    """
    header = _header(wal)
    if header is None:
        return Ending(None, 0, _lost_with_the_header(wal, database))
    sums = _sums(header.page_bytes)
    frames = _frames(wal, header.order, header.page_bytes)
    total, committed, broken = header.total, 0, None
    at_mark = total
    for frame in frames:
        if frame.salts != header.salts or not sums.follows(total, frame):
            broken = frame
            break
        total = frame.total
        if frame.database_pages:
            committed = frame.number
        if mark is not None and frame.number == mark.frames:
            at_mark = total
    bad = committed + 1 if broken is None else broken.number
    damage = f"frame {bad} is not as it was written, and what it belongs to was durable"
    if mark is not None and mark.salts == header.salts and (committed < mark.frames or at_mark != mark.total):
        return Ending(header.salts, committed, damage)
    if broken is not None and _goes_on(frames, broken, total, header.salts, sums):
        return Ending(header.salts, committed, damage)
    return Ending(header.salts, committed)


def _goes_on(frames: Iterator[_Frame], broken: _Frame, total: Sum, salts: Sum, sums: _Sums) -> bool:
    """Return whether a frame behind `broken` goes on from a commit, which then was durable.

    Whether a frame is a commit is believed only where its checksum fits: of one that was torn some words are older.
    """
    got = sums.after(total, broken.adds)
    before, is_commit = broken, _was_commit(broken, got, sums)
    for frame in frames:
        is_ours = frame.salts == salts
        goes_on = is_ours and sums.follows(before.total, frame)
        if not goes_on and is_ours and before is broken and sums.follows(got, frame):
            goes_on, is_commit = True, broken.database_pages != 0  # the bit is in the checksum of `broken`
        if goes_on and is_commit:
            return True
        before, is_commit = frame, goes_on and frame.database_pages != 0
    return False


def _was_commit(frame: _Frame, got: Sum, sums: _Sums) -> bool:
    """Return whether `frame`, whose checksum would be `got`, is at most one bit away from one that ends a transaction."""
    if got == frame.total:
        return frame.database_pages != 0
    missing = (frame.total[0] - got[0]) & _MASK, (frame.total[1] - got[1]) & _MASK
    for change in [(sign << bit) & _MASK for bit in range(32) for sign in (1, -1)]:
        made = sums.weights * np.uint32(change)
        for word in np.flatnonzero((made[0] == missing[0]) & (made[1] == missing[1])):
            written = frame.pages_word + (change if word == _PAGES_WORD else 0)
            return written & _MASK != 0
    return False


def _lost_with_the_header(wal: Bytes, database: Bytes) -> str:
    """Return what is wrong with a log whose header is damaged; nothing if all that it holds is in the database too.

    SQLite takes nothing from it. After a crash that is right: a header is written anew only when the database has
    everything, and no frame is written before the header is durable.
    """
    (page_bytes,) = struct.unpack(">H", database.read(18, 0)[16:].ljust(2, b"\0"))
    page_bytes = _PAGE_BYTES_MAX if page_bytes == 1 else page_bytes
    if not _is_page_size(page_bytes):
        return ""
    sums = _sums(page_bytes)
    # Which order it is was in the header: in the wrong one no frame goes on from another.
    committed = [_committed_pages(_frames(wal, order, page_bytes), sums) for order in _MAGIC.values()]
    for page, number in max(committed, key=lambda pages: max(pages.values(), default=0)).items():
        place = HEADER_BYTES + (number - 1) * (FRAME_HEADER_BYTES + page_bytes) + FRAME_HEADER_BYTES
        if wal.read(page_bytes, place) != database.read(page_bytes, (page - 1) * page_bytes):
            return f"its header is damaged, and frame {number} is not in the database"
    return ""


def _committed_pages(frames: Iterator[_Frame], sums: _Sums) -> dict[int, int]:
    """Return the newest frame of each page, of those that go on from the first one."""
    committed: dict[int, int] = {}
    pending: dict[int, int] = {}
    last: _Frame | None = None
    for frame in frames:
        if last is not None and (frame.salts != last.salts or not sums.follows(last.total, frame)):
            break
        last = frame
        pending[frame.page] = frame.number
        if frame.database_pages:
            committed.update(pending)
            committed = {page: number for page, number in committed.items() if page <= frame.database_pages}
            pending.clear()
    return committed


def _header(wal: Bytes) -> _Header | None:
    data = wal.read(HEADER_BYTES, 0)
    if len(data) < HEADER_BYTES:
        return None
    magic, _, page_bytes, _, salt, other_salt, total, other_total = _HEADER.unpack(data)
    order = _MAGIC.get(magic)
    if order is None or not _is_page_size(page_bytes):
        return None
    found: Sum = (0, 0)
    for first, second in struct.iter_unpack(f"{order}II", data[:24]):
        found = _step(found, first, second)
    if found != (total, other_total):
        return None
    return _Header(order, page_bytes, (salt, other_salt), found)


def _is_page_size(page_bytes: int) -> bool:
    return _PAGE_BYTES_MIN <= page_bytes <= _PAGE_BYTES_MAX and page_bytes & (page_bytes - 1) == 0


def _frames(wal: Bytes, order: str, page_bytes: int) -> Iterator[_Frame]:
    """Yield all frames that are there as a whole, whatever they hold."""
    frame_bytes = FRAME_HEADER_BYTES + page_bytes
    weights = _sums(page_bytes).weights
    number = 0
    while True:
        data = wal.read(_CHUNK_FRAMES * frame_bytes, HEADER_BYTES + number * frame_bytes)
        amount = len(data) // frame_bytes
        if amount == 0:
            return
        words = np.frombuffer(data, f"{order}u4", amount * frame_bytes // 4).reshape(amount, -1).astype(np.uint32)
        adds = np.stack([(words * weight).sum(axis=1, dtype=np.uint32) for weight in weights], axis=1)
        for at in range(amount):
            page, pages, *rest = struct.unpack_from(">6I", data, at * frame_bytes)
            number += 1
            adds_here = int(adds[at, 0]), int(adds[at, 1])
            yield _Frame(
                number, page, pages, int(words[at, _PAGES_WORD]), (rest[0], rest[1]), (rest[2], rest[3]), adds_here
            )


@lru_cache(maxsize=8)
def _sums(page_bytes: int) -> _Sums:
    """Return the weights of a frame's words, which are Fibonacci's numbers; its salts and checksum weigh nothing."""
    pairs = 1 + page_bytes // 8
    (a, b), (c, d) = (1, 0), (0, 1)
    weights = np.zeros((2, 2 * pairs), np.uint32)
    for pair in reversed(range(pairs)):
        weights[:, 2 * pair] = (a + b) & _MASK, (c + d) & _MASK
        weights[:, 2 * pair + 1] = b, d
        (a, b), (c, d) = ((a + b) & _MASK, (a + 2 * b) & _MASK), ((c + d) & _MASK, (c + 2 * d) & _MASK)
    unweighed = np.zeros((2, _HEADER_WORDS - 2), np.uint32)
    return _Sums(np.concatenate([weights[:, :2], unweighed, weights[:, 2:]], axis=1), ((a, b), (c, d)))


def _step(total: Sum, first: int, second: int) -> Sum:
    begun = (total[0] + first + total[1]) & _MASK
    return begun, (total[1] + second + begun) & _MASK
