"""The recipe: from a query and the indexes of a scope to an order of its messages. Pure.

All statistics (idf, mean lengths, means and deviations of scores) are of the scope: that is worth 3 points of NDCG
over statistics of everything. Each step is one function; the numbers were chosen on development data.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engram.recall import cues
from engram.recall.index import ASKS, ASSISTANT, STARTS_EPISODE, TELLS_TIME, SessionIndex
from engram.recall.terms import query_terms
from engram.recall.times import Span, spans
from engram.recall.vectors import Similarities

K1 = 1.2
ROW_B = 0.6
EPISODE_B = 0.75
ASSISTANT_WEIGHT = 0.5
ASSISTANT_COSTS = 0.2
"""Assistants' long rows hold every word of a question, seldom what the user said of themselves. Both are waived for a
query that asks what the assistant said."""
REPLY_LENDS = 0.3
EPISODE_WEIGHT = 1.0
LEXICAL_WEIGHT = 0.5
DENSE_WEIGHT = 0.5
QUESTION_LENDS = 0.4
SPEAKER_LIFT = 2.0
WHEN_LIFT = 1.0
NEAR_LIFT = 1.0
"""Lifts are in units of a score's deviation: what a query says outright is worth one or two."""
NEAR_MS = 7 * 86_400_000
"""At this distance from a time that the query names the lift is 1/e of the full one."""

QUERY_WORDS_MAX = 256
"""Distinct words of a query that are searched for; a question has a dozen."""

SCORE_MAX = 30.0
"""Fused scores are cut here before they become probabilities, so that these stay below 1."""

Floats = npt.NDArray[np.floating]
Numbers = npt.NDArray[np.integer]
Booleans = npt.NDArray[np.bool_]
Embed = Callable[[Mapping[str, float]], npt.NDArray[np.float32] | None]


class Query(NamedTuple):
    """What a query asks for, as far as no scope is needed to know it."""

    text: str
    terms: Mapping[str, int]
    """Distinct words that are terms, with their terms."""
    asks_when: bool
    asks_assistant: bool
    """Whether it asks what the assistant said."""
    spans: Sequence[Span]
    """Times that it names."""


class Frame(NamedTuple):
    """The rows of a scope, one session after the other; arrays of one length but for the episodes' lengths."""

    lengths: Numbers
    flags: npt.NDArray[np.uint8]
    episodes: Numbers
    """Episode of each row."""
    episode_lengths: Numbers
    sizes: Sequence[int]
    """Rows of each session."""


class Found(NamedTuple):
    """The postings of a query's terms in a scope: arrays of one length, by session, then term, then row."""

    slots: Numbers
    rows: Numbers
    counts: Floats


class Scored(NamedTuple):
    """Every row of a scope with its score, and where that comes from; arrays of one length."""

    rows: Frame
    similarities: Similarities
    evidence: Mapping[str, Floats]
    """BM25 and what it lends, each in its own units."""
    lifts: Mapping[str, Floats | float]
    """What adds up to the scores, in units of a deviation; 0.0: a cue that the query does not give."""
    scores: Floats


class Ranked(NamedTuple):
    """A row that was found."""

    place: int
    """Which of the given indexes it is in."""
    ordinal: int
    score: float
    """Between 0 and 1."""
    similarity: float | None
    """Cosine of query and row; None without vectors."""
    row: int = 0
    """Its place among all rows of the scope."""


def understand(text: str, now_ms: int) -> Query:
    """Read a query; the times that it names are seen from `now_ms`."""
    found = query_terms(text, words_max=QUERY_WORDS_MAX)
    return Query(text, found, cues.asks_when(text), cues.asks_assistant(text), spans(text, now_ms))


def frame(indexes: Sequence[SessionIndex]) -> Frame:
    """Lay the rows of the indexes one after the other."""
    if len(indexes) == 1:
        only = indexes[0]
        return Frame(only.rows.lengths, only.rows.flags, *only.episodes, [len(only)])
    rows = [index.rows for index in indexes]
    episodes = [index.episodes for index in indexes]
    firsts = accumulate((len(lengths) for _, lengths in episodes), initial=0)
    return Frame(
        np.concatenate([each.lengths for each in rows]),
        np.concatenate([each.flags for each in rows]),
        np.concatenate([numbers + first for (numbers, _), first in zip(episodes, firsts, strict=False)]),
        np.concatenate([lengths for _, lengths in episodes]),
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


def idf(documents: int, holders: Numbers) -> Floats:
    """Return how much a term tells that `holders` of so many documents hold."""
    return np.log(1.0 + (documents - holders + 0.5) / (holders + 0.5))


def saturated(counts: Floats, lengths: Numbers, mean_length: float, b: float) -> Floats:
    """Return BM25's gain from a term that occurs so often in documents of such lengths."""
    return counts * (K1 + 1.0) / (counts + K1 * (1.0 - b + b * lengths / mean_length))


def row_bm25(found: Found, rows: Frame, term_idf: Floats, assistant_weight: float) -> Floats:
    """Step 2: each row's BM25; an assistant's has a weight of its own."""
    gains = saturated(found.counts, rows.lengths[found.rows], _mean_length(rows.lengths), ROW_B) * term_idf[found.slots]
    scores = _summed(found.rows, gains, len(rows.lengths))
    scores[(rows.flags & ASSISTANT) != 0] *= assistant_weight
    return scores


def lend_back(scores: Floats, flags: npt.NDArray[np.uint8]) -> Floats:
    """Step 3: what a row lends to the one before it in its episode: the reply vouches for its question."""
    lent = np.zeros(len(scores))
    lent[:-1] = REPLY_LENDS * scores[1:] * ((flags[1:] & STARTS_EPISODE) == 0)
    return lent


def episode_bm25(found: Found, rows: Frame, terms: int) -> Floats:
    """Step 4: of each row, the BM25 of its whole episode taken as one document."""
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
    gains = (
        saturated(counts, rows.episode_lengths[numbers], _mean_length(rows.episode_lengths), EPISODE_B)
        * term_idf[slots]
    )
    return _summed(numbers, gains, documents)[rows.episodes]


def _mean_length(lengths: Numbers) -> float:
    return max(int(lengths.sum()) / len(lengths), 1.0)


def _summed(places: Numbers, gains: Floats, size: int) -> Floats:
    """Return the sum of the gains at each place; `bincount` of nothing would be integers."""
    return np.bincount(places, gains, minlength=size).astype(np.float64, copy=False)


def dense(indexes: Sequence[SessionIndex], vector: npt.NDArray[np.float32] | None, rows: int) -> Similarities:
    """Step 5: each row's cosine with the query's vector; nothing is known without one."""
    if vector is None or not vector.any():
        return Similarities(np.zeros(rows, np.float32), np.zeros(rows, np.bool_))
    parts = [index.similarities(vector) for index in indexes]
    if len(parts) == 1:
        return parts[0]
    return Similarities(
        np.concatenate([part.cosines for part in parts]), np.concatenate([part.known for part in parts])
    )


def standardized(scores: Floats) -> Floats:
    """Return scores with mean 0 and deviation 1; zeros when they are all the same."""
    centred = scores - scores.sum(dtype=np.float64) / len(scores)
    deviation = math.sqrt(float(centred @ centred) / len(scores))
    return centred / deviation if deviation > 1e-9 else np.zeros(len(scores))  # noqa: PLR2004 - rounding, not a deviation


def fused(lexical: Floats, similarities: Similarities) -> tuple[Floats, Floats]:
    """Step 6: both in units of their deviation, half each. A row without a vector is taken for an average one."""
    cosines, known = similarities
    vectors = np.count_nonzero(known)
    if not vectors:
        return LEXICAL_WEIGHT * standardized(lexical), np.zeros(len(lexical))
    # Where nothing is known the cosine is 0, so the sum is that of the known ones.
    filled = np.where(known, cosines, cosines.sum(dtype=np.float64) / vectors)
    return LEXICAL_WEIGHT * standardized(lexical), DENSE_WEIGHT * standardized(filled)


def lend_on(scores: Floats, flags: npt.NDArray[np.uint8]) -> Floats:
    """Step 7: what a row that asks lends to the next one of its episode, unless an assistant says that."""
    lent = np.zeros(len(scores))
    takes = ((flags[:-1] & ASKS) != 0) & ((flags[1:] & (ASSISTANT | STARTS_EPISODE)) == 0)
    lent[1:] = QUESTION_LENDS * np.maximum(scores[:-1], 0.0) * takes
    return lent


def speaker_lift(indexes: Sequence[SessionIndex], query: str) -> Floats | float:
    """Step 8: lift the rows of the one speaker that the query names."""
    names = cues.named(query, {name for index in indexes for name in index.speakers})
    if len(names) != 1:
        return 0.0
    (name,) = names
    return SPEAKER_LIFT * np.concatenate([index.spoken_by(name) for index in indexes])


def when_lift(query: Query, flags: npt.NDArray[np.uint8]) -> Floats | float:
    """Step 9: lift rows that tell a time when one is asked for."""
    return WHEN_LIFT * ((flags & TELLS_TIME) != 0) if query.asks_when else 0.0


def near_lift(indexes: Sequence[SessionIndex], query: Query) -> Floats | float:
    """Step 9: lift rows near a time that the query names."""
    if not query.spans:
        return 0.0
    return NEAR_LIFT * nearness(np.concatenate([index.rows.whens_ms for index in indexes]), query.spans)


def assistant_cost(query: Query, flags: npt.NDArray[np.uint8]) -> Floats | float:
    """Step 10: an assistant's rows come after others that fit as well, unless the assistant is asked about."""
    return 0.0 if query.asks_assistant else -ASSISTANT_COSTS * ((flags & ASSISTANT) != 0)


def nearness(whens_ms: npt.NDArray[np.int64], named: Sequence[Span]) -> Floats:
    """Return 1 inside a span, falling with the distance to the nearest one."""
    whens = whens_ms.astype(np.float64)
    distance = np.full(len(whens), np.inf)
    for span in named:
        outside = np.maximum(np.maximum(span.start_ms - whens, whens - span.end_ms), 0.0)
        np.minimum(distance, outside, out=distance)
    return np.exp(-distance / NEAR_MS)


def best(scores: Floats, top_k: int) -> Numbers:
    """Return the places of the `top_k` highest scores, best first, later rows first among equals."""
    if top_k < len(scores):
        least = np.partition(scores, len(scores) - top_k)[len(scores) - top_k]
        places = np.flatnonzero(scores >= least)
    else:
        places = np.arange(len(scores))
    return places[np.lexsort((-places, -scores[places]))][:top_k]


def rank(
    indexes: Sequence[SessionIndex], query: Query, embed: Embed, top_k: int, among: Booleans | None = None
) -> list[Ranked]:
    """Return the best `top_k` rows of all the indexes, best first.

    `embed` turns the query's words, each with its idf in this scope, into a vector; None: without vectors. Of all
    rows only those that `among` marks are returned, but every row counts in the statistics.
    """
    places = [place for place, index in enumerate(indexes) if len(index)]
    if not places or top_k <= 0:
        return []
    indexes = [indexes[place] for place in places]
    ranked = hits(indexes, scored(indexes, query, embed), top_k, among)
    return [row._replace(place=places[row.place]) for row in ranked]


def scored(indexes: Sequence[SessionIndex], query: Query, embed: Embed) -> Scored:
    """Return what the recipe says of every row of the indexes, of which each has rows."""
    rows = frame(indexes)
    slot_of = {term: slot for slot, term in enumerate(dict.fromkeys(query.terms.values()))}
    found = find(indexes, list(slot_of))
    term_idf = idf(len(rows.lengths), np.bincount(found.slots, minlength=len(slot_of)))
    vector = embed({word: float(term_idf[slot_of[term]]) for word, term in query.terms.items()})

    row = row_bm25(found, rows, term_idf, 1.0 if query.asks_assistant else ASSISTANT_WEIGHT)
    evidence = {"row": row, "reply": lend_back(row, rows.flags), "episode": episode_bm25(found, rows, len(slot_of))}
    similarities = dense(indexes, vector, len(rows.lengths))
    lexical, semantic = fused(evidence["row"] + evidence["reply"] + EPISODE_WEIGHT * evidence["episode"], similarities)
    lifts: dict[str, Floats | float] = {
        "lexical": lexical,
        "dense": semantic,
        "asked": lend_on(lexical + semantic, rows.flags),
        "speaker": speaker_lift(indexes, query.text),
        "when": when_lift(query, rows.flags),
        "near": near_lift(indexes, query),
        "assistant": assistant_cost(query, rows.flags),
    }
    scores: Floats = np.zeros(len(rows.lengths))
    for lift in lifts.values():
        scores += lift
    return Scored(rows, similarities, evidence, lifts, scores)


def hits(indexes: Sequence[SessionIndex], scope: Scored, top_k: int, among: Booleans | None = None) -> list[Ranked]:
    """Return the best `top_k` rows of those that `among` marks (None: of all), best first."""
    if among is None:
        places = best(scope.scores, top_k)
    else:
        marked = np.flatnonzero(among)
        places = marked[best(scope.scores[marked], top_k)]
    starts = np.cumsum([0, *scope.rows.sizes])
    sessions = starts.searchsorted(places, side="right") - 1
    chances = 1.0 / (1.0 + np.exp(-np.clip(scope.scores[places], -SCORE_MAX, SCORE_MAX)))
    ranked = []
    for place, session, chance in zip(places.tolist(), sessions.tolist(), chances.tolist(), strict=True):
        ordinal = indexes[session].ordinal(place - int(starts[session]))
        cosine = float(scope.similarities.cosines[place]) if scope.similarities.known[place] else None
        ranked.append(Ranked(session, ordinal, chance, cosine, place))
    return ranked
