"""Why a search found what it found: what each stage said of each hit, and what became of the rest of the scope. Pure.

Asked for with `explain`; without it none of this is computed.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from engram.recall.index import SessionIndex
from engram.recall.rank import Embed, Query, Ranked, Scored, hits, scored

DIGITS: Final = 6
"""Behind the point: more says nothing, and makes an answer hard to read."""

ChosenBy = Literal["nearest", "latest"]

Booleans = npt.NDArray[np.bool_]


class HitExplained(Struct, frozen=True, kw_only=True):
    """Why a hit stands where it does."""

    rank: Annotated[int, Meta(ge=1, description="1: the best of the rows that fit the filter")]
    similarity: Annotated[float, Meta(description="cosine of query and text; null without vectors")] | None
    evidence: Annotated[
        Mapping[str, float],
        Meta(
            description="BM25 of the message (`row`), what its reply lends it (`reply`), what it gains or loses by the turns "
            "of `talk` around it, BM25 of its `episode`"
        ),
    ]
    lifts: Annotated[
        Mapping[str, float],
        Meta(
            description="what each stage adds to `total`, in deviations: the fused `lexical` and `dense` scores, then "
            "the cues, 0 where the query or the message gives none"
        ),
    ]
    total: Annotated[float, Meta(description="their sum; `score` is its logistic")]


class ScopeExplained(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was searched, and what became of it."""

    sessions: Annotated[int, Meta(ge=0, description="searched together; all statistics are of them")]
    messages: Annotated[int, Meta(ge=0, description="that they hold")]
    filtered_out: Annotated[int, Meta(ge=0, description="messages that do not fit the filter")]
    beyond_top_k: Annotated[int, Meta(ge=0, description="messages that fit it, but are not among the best")]
    below_min_score: Annotated[int, Meta(ge=0, description="of the best, those left out for their score")]
    took_ms: Annotated[
        Mapping[str, float],
        Meta(
            description="`embed` by a remote embedder, `choose` of sessions, `load` of indexes, `filter`, `rank`, "
            "`fetch` of texts"
        ),
    ]
    sessions_left_out: Annotated[int, Meta(ge=0, description="not searched, as the scope is too wide")] = 0
    messages_left_out: Annotated[int, Meta(ge=0, description="that these hold")] = 0
    chosen_by: (
        Annotated[
            ChosenBy,
            Meta(description="what the others were chosen by: `nearest` messages, then `latest`; or `latest` alone"),
        ]
        | None
    ) = None


def rank_and_explain(
    indexes: Sequence[SessionIndex], query: Query, embed: Embed, top_k: int, among: Booleans | None
) -> tuple[list[Ranked], list[HitExplained]]:
    """Return what `rank` returns, and for each row of it why it is there."""
    places = [place for place, index in enumerate(indexes) if len(index)]
    if not places or top_k <= 0:
        return [], []
    there = [indexes[place] for place in places]
    scope = scored(there, query, embed)
    ranked = hits(there, scope, top_k, among)
    explained = [_explained(number, row, scope) for number, row in enumerate(ranked, start=1)]
    return [row._replace(place=places[row.place]) for row in ranked], explained


def _explained(number: int, row: Ranked, scope: Scored) -> HitExplained:
    return HitExplained(
        rank=number,
        similarity=row.similarity,
        evidence={name: _rounded(scores[row.row]) for name, scores in scope.evidence.items()},
        lifts={
            name: _rounded(lift if isinstance(lift, float) else lift[row.row]) for name, lift in scope.lifts.items()
        },
        total=_rounded(scope.scores[row.row]),
    )


def _rounded(number: float) -> float:
    return round(float(number), DIGITS) + 0.0  # -0.0 would only make a reader wonder
