"""What the words of a query say for each row of a scope: BM25 of the row, its reply, its talk and its episode. Pure.

All statistics (idf, mean lengths) are of the scope: that is worth 3 points of NDCG over statistics of everything.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engram.recall import talk
from engram.recall.index import ASSISTANT, STARTS_EPISODE, SessionIndex

K1 = 1.2
ROW_B = 0.6
EPISODE_B = 0.75
REPLY_LENDS = 0.3
EPISODE_WEIGHT = 1.0

CELLS_MAX = 131_072
"""Counts of terms in turns that are worked on at once: half a megabyte, which stays in the processor's cache."""

Floats = npt.NDArray[np.floating]
Numbers = npt.NDArray[np.integer]


class Frame(NamedTuple):
    """The rows of a scope, one session after the other; arrays of one length but for the episodes' lengths."""

    lengths: Numbers
    flags: npt.NDArray[np.uint8]
    episodes: Numbers
    """Episode of each row."""
    episode_lengths: Numbers
    turns: talk.Turns
    sizes: Sequence[int]
    """Rows of each session."""


class Found(NamedTuple):
    """The postings of a query's terms in a scope: arrays of one length, by session, then term, then row."""

    slots: Numbers
    rows: Numbers
    counts: Floats


def frame(indexes: Sequence[SessionIndex]) -> Frame:
    """Lay the rows of the indexes one after the other."""
    if len(indexes) == 1:
        only = indexes[0]
        return Frame(only.rows.lengths, only.rows.flags, *only.episodes, only.turns, [len(only)])
    rows = [index.rows for index in indexes]
    episodes = [index.episodes for index in indexes]
    firsts = accumulate((len(lengths) for _, lengths in episodes), initial=0)
    return Frame(
        np.concatenate([each.lengths for each in rows]),
        np.concatenate([each.flags for each in rows]),
        np.concatenate([numbers + first for (numbers, _), first in zip(episodes, firsts, strict=False)]),
        np.concatenate([lengths for _, lengths in episodes]),
        talk.Turns(*map(np.concatenate, zip(*(index.turns for index in indexes), strict=True))),
        [len(index) for index in indexes],
    )


def find(indexes: Sequence[SessionIndex], terms: Sequence[int]) -> Found:
    """Return the postings of `terms`, which are distinct, in all of the indexes."""
    query = np.array(terms, np.uint32)
    parts = [index.matches(query) for index in indexes]
    firsts = accumulate((len(index) for index in indexes), initial=0)
    return Found(
        np.concatenate([part.slots for part in parts]),
        np.concatenate([part.rows + np.intp(first) for part, first in zip(parts, firsts, strict=False)]),
        np.concatenate([part.counts for part in parts]).astype(np.float64),
    )


def evidence(found: Found, rows: Frame, term_idf: Floats, assistant_weight: float) -> dict[str, Floats]:
    """Return what adds up to each row's evidence, each in BM25's units."""
    row = row_bm25(found, rows, term_idf, assistant_weight)
    return {
        "row": row,
        "reply": lend_back(row, rows),
        "talk": talk_gain(row, found, rows, term_idf),
        "episode": EPISODE_WEIGHT * episode_bm25(found, rows, len(term_idf)),
    }


def idf(documents: int, holders: Numbers) -> Floats:
    """Return how much a term tells that `holders` of so many documents hold."""
    return np.log(1.0 + (documents - holders + 0.5) / (holders + 0.5))


def saturated(counts: Floats, lengths: Numbers | Floats, mean_length: float, b: float) -> Floats:
    """Return BM25's gain from a term that occurs so often in documents of such lengths."""
    return counts * (K1 + 1.0) / (counts + K1 * (1.0 - b + b * lengths / mean_length))


def row_bm25(found: Found, rows: Frame, term_idf: Floats, assistant_weight: float) -> Floats:
    """Step 2: each row's BM25; an assistant's has a weight of its own."""
    gains = saturated(found.counts, rows.lengths[found.rows], _mean(rows.lengths), ROW_B) * term_idf[found.slots]
    scores = _summed(found.rows, gains, len(rows.lengths))
    scores[(rows.flags & ASSISTANT) != 0] *= assistant_weight
    return scores


def lend_back(scores: Floats, rows: Frame) -> Floats:
    """Step 3: what a row lends to the one before it in its episode: the reply vouches for its question.

    Turns of talk lend one another in the next step.
    """
    lent = np.zeros(len(scores))
    lent[:-1] = REPLY_LENDS * scores[1:] * ((rows.flags[1:] & STARTS_EPISODE == 0) & ~rows.turns.answers[1:])
    return lent


def talk_gain(scores: Floats, found: Found, rows: Frame, term_idf: Floats) -> Floats:
    """Step 4: what turns of talk gain or lose as a part of their BM25 is that of all the turns around them together."""
    if not rows.turns.answers.any():
        return np.zeros(len(scores))
    changed = turns_bm25(found, rows, term_idf) - scores
    return talk.TURNS_SHARE * changed * (rows.turns.counts > 1)


def turns_bm25(found: Found, rows: Frame, term_idf: Floats) -> Floats:
    """Return the BM25 of each turn of talk and those around it taken as one document; 0 for all other rows."""
    summed = np.zeros(len(rows.lengths))
    near = talk.near(found.rows, rows.turns)
    if not len(near):
        return summed
    columns = talk.side_by_side(near, rows.turns)
    size = int(columns[-1]) + 1 + talk.TURNS_REACH
    shown = columns - talk.TURNS_REACH
    lengths = np.ones(size - 2 * talk.TURNS_REACH, np.float32)
    lengths[shown] = rows.turns.lengths[near]
    mean_length = _mean(rows.turns.lengths[rows.turns.counts > 1])
    column_of = np.zeros(len(rows.lengths), np.intp)
    column_of[near] = columns
    terms = max(1, CELLS_MAX // size)
    for first in range(0, len(term_idf), terms):
        some_idf = term_idf[first : first + terms, None].astype(np.float32)
        counts = np.zeros((len(some_idf), size), np.float32)
        some = (found.slots >= first) & (found.slots < first + terms)
        counts[found.slots[some] - first, column_of[found.rows[some]]] = found.counts[some]
        counts[:, : talk.TURNS_REACH] = 0.0  # where the postings of rows that are no turns went
        gains = saturated(talk.sums_around(counts), lengths, mean_length, ROW_B)
        gains *= some_idf
        summed[near] += gains.sum(axis=0)[shown]
    return summed


def episode_bm25(found: Found, rows: Frame, terms: int) -> Floats:
    """Step 5: of each row, the BM25 of its whole episode taken as one document."""
    if not len(found.rows):
        return np.zeros(len(rows.lengths))
    episodes = rows.episodes[found.rows]
    begins = np.ones(len(episodes), np.bool_)
    begins[1:] = (episodes[1:] != episodes[:-1]) | (found.slots[1:] != found.slots[:-1])
    starts = np.flatnonzero(begins)
    slots, numbers = found.slots[starts], episodes[starts]
    documents = len(rows.episode_lengths)
    term_idf = idf(documents, np.bincount(slots, minlength=terms))
    counts = np.add.reduceat(found.counts, starts)
    gains = saturated(counts, rows.episode_lengths[numbers], _mean(rows.episode_lengths), EPISODE_B) * term_idf[slots]
    return _summed(numbers, gains, documents)[rows.episodes]


def _mean(lengths: Numbers) -> float:
    return max(int(lengths.sum()) / len(lengths), 1.0)


def _summed(places: Numbers, gains: Floats, size: int) -> Floats:
    """Return the sum of the gains at each place; `bincount` of nothing would be integers."""
    return np.bincount(places, gains, minlength=size).astype(np.float64, copy=False)
