"""The recipe: from a query and the indexes of a scope to an order of its messages. Pure.

What the words say is in `evidence`; here vectors and cues join it. Means and deviations are of the scope, too. Each step
is one function; the numbers were chosen on development data.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engram.recall import cues, talk
from engram.recall.evidence import Frame, evidence, find, frame, idf
from engram.recall.index import ASKS, ASSISTANT, STARTS_EPISODE, TELLS_TIME, SessionIndex
from engram.recall.spaces import Towards, by_space, common_scale
from engram.recall.terms import query_terms
from engram.recall.times import Span, spans
from engram.recall.vectors import Similarities, none_known

ASSISTANT_WEIGHT = 0.5
ASSISTANT_COSTS = 0.2
"""Assistants' long rows hold every word of a question, seldom what the user said of themselves. Both are waived for a
query that asks what the assistant said."""
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
Embed = Callable[[Mapping[str, float]], Towards | npt.NDArray[np.float32] | None]


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


def dense(indexes: Sequence[SessionIndex], vectors: Towards, rows: int) -> Similarities:
    """Step 6: each row's cosine with the query's vector by the row's own maker; nothing is known without one."""
    towards = {space: vector for space, vector in vectors.items() if vector.any()}
    if not towards:
        return none_known(rows)
    parts = [index.similarities(towards) for index in indexes]
    if len(parts) == 1:
        return parts[0]
    return Similarities(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def standardized(scores: Floats) -> Floats:
    """Return scores with mean 0 and deviation 1; zeros when they are all the same."""
    centred = scores - scores.sum(dtype=np.float64) / len(scores)
    deviation = math.sqrt(float(centred @ centred) / len(scores))
    return centred / deviation if deviation > 1e-9 else np.zeros(len(scores))  # noqa: PLR2004 - rounding, not a deviation


def fused(lexical: Floats, similarities: Similarities) -> tuple[Floats, Floats]:
    """Step 7: both in units of their deviation, half each. A row without a vector is taken for an average one."""
    known = similarities.known
    vectors = np.count_nonzero(known)
    if not vectors:
        return LEXICAL_WEIGHT * standardized(lexical), np.zeros(len(lexical))
    nearness_of = common_scale(similarities)
    # Where nothing is known the nearness is 0, so the sum is that of the known ones.
    filled = np.where(known, nearness_of, nearness_of.sum(dtype=np.float64) / vectors)
    return LEXICAL_WEIGHT * standardized(lexical), DENSE_WEIGHT * standardized(filled)


def talk_meaning(semantic: Floats, turns: talk.Turns) -> Floats:
    """Step 8: a part of what a turn of talk means is the mean of the turns around it."""
    if not turns.answers.any():
        return semantic
    means = talk.around(semantic, turns.answers) / turns.counts
    return semantic + talk.TURNS_SHARE * (means - semantic)


def lend_on(scores: Floats, flags: npt.NDArray[np.uint8]) -> Floats:
    """Step 9: what a row that asks lends to the next one of its episode, unless an assistant says that."""
    lent = np.zeros(len(scores))
    takes = ((flags[:-1] & ASKS) != 0) & ((flags[1:] & (ASSISTANT | STARTS_EPISODE)) == 0)
    lent[1:] = QUESTION_LENDS * np.maximum(scores[:-1], 0.0) * takes
    return lent


def speaker_lift(indexes: Sequence[SessionIndex], query: str) -> Floats | float:
    """Step 10: lift the rows of the one speaker that the query names."""
    names = cues.named(query, {name for index in indexes for name in index.speakers})
    if len(names) != 1:
        return 0.0
    (name,) = names
    return SPEAKER_LIFT * np.concatenate([index.spoken_by(name) for index in indexes])


def when_lift(query: Query, flags: npt.NDArray[np.uint8]) -> Floats | float:
    """Step 11: lift rows that tell a time when one is asked for."""
    return WHEN_LIFT * ((flags & TELLS_TIME) != 0) if query.asks_when else 0.0


def near_lift(indexes: Sequence[SessionIndex], query: Query) -> Floats | float:
    """Step 12: lift rows near a time that the query names."""
    if not query.spans:
        return 0.0
    return NEAR_LIFT * nearness(np.concatenate([index.rows.whens_ms for index in indexes]), query.spans)


def assistant_cost(query: Query, flags: npt.NDArray[np.uint8]) -> Floats | float:
    """Step 13: an assistant's rows come after others that fit as well, unless the assistant is asked about."""
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

    `embed` turns the query's words, each with its idf in this scope, into a vector of each maker; None: without vectors. Of all
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
    vectors = by_space(embed({word: float(term_idf[slot_of[term]]) for word, term in query.terms.items()}))

    words = evidence(found, rows, term_idf, 1.0 if query.asks_assistant else ASSISTANT_WEIGHT)
    similarities = dense(indexes, vectors, len(rows.lengths))
    lexical, semantic = fused(sum(words.values(), np.zeros(len(rows.lengths))), similarities)
    semantic = talk_meaning(semantic, rows.turns)
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
    return Scored(rows, similarities, words, lifts, scores)


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
