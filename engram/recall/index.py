"""The recall index of one session: what a search needs to know of its messages, in flat arrays.

A row is a message, in order of ordinals. An index holds no text: terms are hashes, vectors are bytes with one scale
each, and speakers' names go when the session goes. Forgetting one message means building the index afresh.

Belongs to one thread at a time. Folding in any number of steps gives the same index as folding at once.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engram.projections.lance_rows import Space
from engram.projections.rows import MessageRow, RecallDelta, VectorRow
from engram.recall import blob, cues, talk
from engram.recall.columns import Column
from engram.recall.postings import Matches, Postings, Sealed, no_postings
from engram.recall.spaces import SpaceVectors, Towards, by_space
from engram.recall.terms import counted, date_terms, words
from engram.recall.vectors import Chunks, Similarities

EPISODE_GAP_MS = 30 * 60 * 1000
"""A longer pause between two messages ends an episode."""

EPISODE_ROWS_MAX = 64
"""A longer episode is cut, so that a client that never pauses has episodes too."""

SPEAKERS_MAX = 1000
"""Later speakers of a session stay unnamed: nobody can ask for their rows by name."""

FLOAT16_BYTES = 2

OVERHEAD_BYTES = 4096
"""Memory of an index without rows: about twenty small objects."""

ASSISTANT, ASKS, TELLS_TIME, STARTS_EPISODE, PERSON = 1, 2, 4, 8, 16
"""Bits of a row's flags."""

Uint32s = npt.NDArray[np.uint32]
Numbers = npt.NDArray[np.integer]


class Rows(NamedTuple):
    """What is known of each row; arrays of one length."""

    ordinals: Uint32s
    whens_ms: npt.NDArray[np.int64]
    lengths: Uint32s
    """Terms, repeats included."""
    flags: npt.NDArray[np.uint8]
    speakers: npt.NDArray[np.uint16]
    """Places in the list of names; SPEAKERS_MAX: a nameless one."""


class Episodes(NamedTuple):
    """Runs of rows that belong together."""

    numbers: Numbers
    """Of each row: its episode, counted from 0."""
    lengths: Numbers
    """Of each episode: its terms, repeats included."""


class SessionIndex:
    """Postings, vectors, and the few facts that ranking needs of each row."""

    def __init__(self, rows: Rows, postings: Sealed, chunks: Mapping[Space, Chunks], speakers: Sequence[str]) -> None:
        self._ordinals = Column(rows.ordinals)
        self._whens_ms = Column(rows.whens_ms)
        self._lengths = Column(rows.lengths)
        self._flags = Column(rows.flags)
        self._speaker_numbers = Column(rows.speakers)
        self._postings = Postings(postings)
        self._vectors = SpaceVectors(chunks)
        self._speakers = {name: number for number, name in enumerate(speakers)}
        self._episodes: Episodes | None = None
        self._turns: talk.Turns | None = None

    def __len__(self) -> int:
        return len(self._ordinals)

    @classmethod
    def empty(cls) -> "SessionIndex":
        """Return the index of a session without messages."""
        rows = Rows(
            np.empty(0, np.uint32),
            np.empty(0, np.int64),
            np.empty(0, np.uint32),
            np.empty(0, np.uint8),
            np.empty(0, np.uint16),
        )
        return cls(rows, no_postings(), {}, [])

    @classmethod
    def from_bytes(cls, data: bytes) -> "SessionIndex":
        """Return the index that `to_bytes` was called on, as views of `data`.

        Raises:
            BlobError: `data` is damaged or of another version; build the index from its messages.
        """
        arrays, names = blob.unpack(data)
        return cls(
            Rows(*(arrays[name] for name in Rows._fields)),
            Sealed(*(arrays[f"postings_{name}"] for name in Sealed._fields)),
            _chunks_of(arrays),
            names,
        )

    def to_bytes(self) -> bytes:
        """Return the whole index; the tail of the postings is sealed on the way, which changes no answer."""
        sealed = self._postings.seal()
        arrays = self.rows._asdict()
        arrays |= {f"postings_{name}": array for name, array in sealed._asdict().items()}
        for (model, dimension), chunks in self._vectors.parts.items():
            arrays |= {f"chunks_{name}:{dimension}:{model}": array for name, array in chunks._asdict().items()}
        return blob.pack(arrays, list(self._speakers))

    @property
    def rows(self) -> Rows:
        """What is known of each row; not to be written to, and stale after the next fold."""
        return Rows(
            self._ordinals.array,
            self._whens_ms.array,
            self._lengths.array,
            self._flags.array,
            self._speaker_numbers.array,
        )

    @property
    def chunks(self) -> Mapping[Space, Chunks]:
        """The vectors, by who made them; not to be written to, and stale after the next fold."""
        return self._vectors.parts

    @property
    def next_ordinal(self) -> int:
        """One more than the last row's ordinal; earlier messages are not folded again."""
        return int(self._ordinals.array[-1]) + 1 if len(self) else 0

    @property
    def speakers(self) -> Collection[str]:
        """Who speaks, lower-case; "" stands for all who have neither a name nor a role that one asks for."""
        return self._speakers.keys()

    @property
    def size_bytes(self) -> int:
        """Memory held, without the bytes that a reopened index is a view of: they count as its arrays."""
        columns = (self._ordinals, self._whens_ms, self._lengths, self._flags, self._speaker_numbers)
        held = sum(column.size_bytes for column in columns)
        names = sum(100 + 4 * len(name) for name in self._speakers)
        episodes = 0 if self._episodes is None else self._episodes.numbers.nbytes + self._episodes.lengths.nbytes
        turns = 0 if self._turns is None else sum(array.nbytes for array in self._turns)
        return OVERHEAD_BYTES + held + names + episodes + turns + self._postings.size_bytes + self._vectors.size_bytes

    @property
    def episodes(self) -> Episodes:
        """The episodes of the rows as they are now."""
        if self._episodes is None:
            starts = (self._flags.array & STARTS_EPISODE) != 0
            numbers = np.cumsum(starts, dtype=np.int32) - np.int32(1)
            lengths = np.bincount(numbers, self._lengths.array).astype(np.int64)
            self._episodes = Episodes(numbers, lengths)
        return self._episodes

    @property
    def turns(self) -> talk.Turns:
        """The turns of talk among the rows as they are now."""
        if self._turns is None:
            self._turns = turns_of(self.rows)
        return self._turns

    def ordinal(self, row: int) -> int:
        """Return the ordinal of the message at a row."""
        return int(self._ordinals.array[row])

    def matches(self, query: Uint32s) -> Matches:
        """Return the postings of the terms of `query`, which are distinct."""
        return self._postings.matches(query)

    def similarities(self, query: Towards | npt.NDArray[np.float32]) -> Similarities:
        """Return each row's best cosine with the query's vector by the row's own maker."""
        return self._vectors.similarities(by_space(query), len(self))

    def spoken_by(self, name: str) -> npt.NDArray[np.bool_]:
        """Return which rows a speaker of `speakers` said; none for another name."""
        rows: npt.NDArray[np.bool_] = self._speaker_numbers.array == self._speakers.get(name, SPEAKERS_MAX + 1)
        return rows

    def fold(self, delta: RecallDelta) -> None:
        """Take in messages, in order of ordinals, and vectors of messages. What is there already changes nothing."""
        known = self.next_ordinal
        fresh = [message for message in delta.messages if message.ordinal >= known]
        if fresh:
            self._append(fresh)
        if delta.vectors:
            self._give_vectors(delta.vectors)

    def _append(self, messages: Sequence[MessageRow]) -> None:
        row = len(self)
        found_terms: list[int] = []
        found_rows: list[int] = []
        found_counts: list[int] = []
        lengths, flags, speakers = [], self._episode_starts(messages), []
        for number, message in enumerate(messages):
            text = message.text if message.name is None else f"{message.name}: {message.text}"
            found = words(text)
            row_terms = counted(found, date_terms(message.when_ms))
            found_terms.extend(row_terms.counts)
            found_counts.extend(row_terms.counts.values())
            found_rows.extend([row + number] * len(row_terms.counts))
            lengths.append(row_terms.length)
            flags[number] |= _flags(message, found)
            speakers.append(self._speaker_number(cues.speaker(message.name, message.text, message.role)))
        self._postings.add(found_terms, found_rows, found_counts)
        self._ordinals.extend([message.ordinal for message in messages])
        self._whens_ms.extend([message.when_ms for message in messages])
        self._lengths.extend(lengths)
        self._flags.extend(flags)
        self._speaker_numbers.extend(speakers)
        self._episodes = None
        self._turns = None

    def _episode_starts(self, messages: Sequence[MessageRow]) -> list[int]:
        """Return STARTS_EPISODE or 0 for each of the messages that come after the last row."""
        flags = []
        last_ms = int(self._whens_ms.array[-1]) if len(self) else None
        run = self._last_run()
        for message in messages:
            pauses = last_ms is None or abs(message.when_ms - last_ms) > EPISODE_GAP_MS
            starts = pauses or run >= EPISODE_ROWS_MAX
            run = 1 if starts else run + 1
            last_ms = message.when_ms
            flags.append(STARTS_EPISODE if starts else 0)
        return flags

    def _last_run(self) -> int:
        """Return how many rows the last episode has."""
        recent = self._flags.array[-EPISODE_ROWS_MAX:]
        starts = np.flatnonzero(recent & STARTS_EPISODE)
        return len(recent) - int(starts[-1]) if len(starts) else 0

    def _speaker_number(self, name: str) -> int:
        number = self._speakers.get(name)
        if number is not None:
            return number
        if len(self._speakers) >= SPEAKERS_MAX:
            return SPEAKERS_MAX
        return self._speakers.setdefault(name, len(self._speakers))

    def _give_vectors(self, vectors: Sequence[VectorRow]) -> None:
        latest = {vector.ordinal: space_of(vector) for vector in vectors}
        for space, ordinals, table in tables(
            vector for vector in vectors if space_of(vector) == latest[vector.ordinal]
        ):
            places = self._ordinals.array.searchsorted(ordinals)
            there = np.zeros(len(ordinals), np.bool_)
            inside = places < len(self)
            there[inside] = self._ordinals.array[places[inside]] == ordinals[inside]
            self._vectors.replace(space, table[there], places[there])


class Table(NamedTuple):
    """Vectors of one maker, a line each."""

    space: Space
    ordinals: Uint32s
    """Of the messages that they were made of."""
    vectors: npt.NDArray[np.float32]


def space_of(vector: VectorRow) -> Space:
    """Return what a vector can be compared with."""
    return Space(vector.model, len(vector.vector) // FLOAT16_BYTES)


def tables(vectors: Iterable[VectorRow]) -> Iterator[Table]:
    """Yield the vectors of each maker, those of one in the order given."""
    for space, own in groupby(sorted(vectors, key=space_of), key=space_of):
        rows = list(own)
        halves = np.frombuffer(b"".join(row.vector for row in rows), "<f2")
        ordinals = np.array([row.ordinal for row in rows], np.uint32)
        yield Table(space, ordinals, halves.reshape(len(rows), space.dimension).astype(np.float32))


def _chunks_of(arrays: blob.Arrays) -> dict[Space, Chunks]:
    """Return the vectors of a blob, by who made them."""
    first = f"chunks_{Chunks._fields[0]}:"
    found = {}
    for name in arrays:
        if name.startswith(first):
            space = name.removeprefix(first)
            dimension, _, model = space.partition(":")
            chunks = Chunks(*(arrays[f"chunks_{field}:{space}"] for field in Chunks._fields))
            found[Space(model, int(dimension))] = chunks
    return found


def turns_of(rows: Rows) -> talk.Turns:
    """Return the turns of talk among these rows."""
    person, starts = (rows.flags & PERSON) != 0, (rows.flags & STARTS_EPISODE) != 0
    return talk.turns_of(person, starts, rows.speakers, rows.lengths)


def _flags(message: MessageRow, found: Collection[str]) -> int:
    return (
        (ASSISTANT if message.role == "assistant" else PERSON if message.role == "user" else 0)
        | (ASKS if cues.asks(message.text) else 0)
        | (TELLS_TIME if cues.tells_time(found) else 0)
    )
