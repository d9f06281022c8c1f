"""Scopes that are too wide to be searched whole: which of their sessions take part.

Half of the room goes to the sessions with the messages nearest to the query, which the long-term store finds among all
of the scope. The rest goes to those that it does not hold yet, and then to the latest. Where it cannot say, the latest
have all of the room. The same state and the same answer of the store choose the same sessions.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from engram.projections.lance_feed import Nearest
from engram.projections.lance_rows import Scope, Space
from engram.projections.rows import SessionRow
from engram.recall.explanation import ChosenBy
from engram.recall.filters import Condition, may_hold
from engram.recall.spaces import Towards

SCOPE_ROWS_MAX: Final = 200_000
"""Messages of several sessions that are searched together: all of them are in memory at once, about 1 KB each.

Up to here searching all of them costs less than asking LanceDB which to search (benchmarks/README.md, `bench_wide.py`).
"""

NEAREST_ROWS: Final = 1_000
"""The long-term store is asked for so many: five times what a search can return, as one session has many of them."""

NEAREST_SHARE: Final = 0.5


class Neighbours(Protocol):
    """The long-term store."""

    @property
    def space(self) -> Space:
        """Whose vectors it holds."""

    async def nearest(self, vector: npt.NDArray[np.float32], scope: Scope, k: int) -> Nearest | None:
        """Return the `k` chunks of `scope` nearest to `vector`, best first; None when it cannot say."""


class Chosen(NamedTuple):
    """The sessions of a scope that are searched."""

    sessions: Sequence[SessionRow]
    """In the order in which they were given."""
    sessions_left_out: int = 0
    messages_left_out: int = 0
    by: ChosenBy | None = None
    """None: nothing had to be chosen."""


class Chooser:
    """Chooses sessions of at most `rows_max` messages, but always one session, however long it is."""

    def __init__(self, neighbours: Neighbours | None, rows_max: int) -> None:
        self._neighbours = neighbours
        self._rows_max = rows_max

    def must_choose(self, sessions: Sequence[SessionRow]) -> bool:
        """Return whether not all of `sessions` can be searched together."""
        return len(sessions) > 1 and _rows(sessions) > self._rows_max

    async def choose(self, sessions: Sequence[SessionRow], vectors: Towards, where: Condition | None) -> Chosen:
        """Return which of `sessions` to search.

        `vectors` are the query's; without one by the maker of what the store holds only the latest are chosen. Sessions of which no message can fit `where` have
        what room is left, for the statistics.
        """
        fitting = [session for session in sessions if where is None or may_hold(where, session)]
        nearest = await self._nearest(sessions, fitting, vectors)
        order = self._order(fitting, nearest)
        fits = {session.session_key for session in fitting}
        order += _latest_first(session for session in sessions if session.session_key not in fits)
        keys = _filled(order, self._rows_max)
        taken = [session for session in sessions if session.session_key in keys]
        return Chosen(
            taken,
            len(sessions) - len(taken),
            _rows(sessions) - _rows(taken),
            "latest" if nearest is None else "nearest",
        )

    async def _nearest(
        self, sessions: Sequence[SessionRow], fitting: Sequence[SessionRow], vectors: Towards
    ) -> Nearest | None:
        vector = None if self._neighbours is None else vectors.get(self._neighbours.space)
        if self._neighbours is None or vector is None or not vector.any() or not fitting:
            return None
        return await self._neighbours.nearest(vector, _scope(sessions, fitting), NEAREST_ROWS)

    def _order(self, sessions: Sequence[SessionRow], nearest: Nearest | None) -> list[SessionRow]:
        """Return the sessions, those first that should take part first; the nearest ones more than once."""
        latest = _latest_first(sessions)
        if nearest is None:
            return latest
        first = list(_filled(_found(sessions, nearest), int(NEAREST_SHARE * self._rows_max)).values())
        not_held = [session for session in latest if session.vectors_index > nearest.cursor]
        return first + not_held + latest


def _found(sessions: Sequence[SessionRow], nearest: Nearest) -> list[SessionRow]:
    """Return the sessions of the hits, in their order. What an earlier session of the same id said is passed over."""
    by_id = {session.session_id: session for session in sessions}
    hits = ((by_id.get(hit.session_id), hit.log_index) for hit in nearest.hits)
    return [session for session, log_index in hits if session is not None and log_index >= session.session_key]


def _filled(order: Iterable[SessionRow], rows_max: int) -> dict[int, SessionRow]:
    """Return, by their keys, the first of the sessions that have room together; the very first one always has."""
    filled: dict[int, SessionRow] = {}
    room = rows_max
    for session in order:
        if session.session_key not in filled and (session.message_count <= room or not filled):
            filled[session.session_key] = session
            room -= session.message_count
    return filled


def _latest_first(sessions: Iterable[SessionRow]) -> list[SessionRow]:
    return sorted(sessions, key=lambda session: (session.updated_index, session.session_key), reverse=True)


def _rows(sessions: Iterable[SessionRow]) -> int:
    return sum(session.message_count for session in sessions)


def _scope(sessions: Sequence[SessionRow], fitting: Sequence[SessionRow]) -> Scope:
    """Return where the long-term store has to look: by agent or user, which is shorter than a list of sessions."""
    tenant = sessions[0].tenant
    agents = {session.agent_id for session in sessions}
    users = {session.user_id for session in sessions}
    agent_id = agents.pop() if len(agents) == 1 else None
    user_id = users.pop() if len(users) == 1 else None
    if len(fitting) < len(sessions) or (agent_id is None and user_id is None):
        return Scope(tenant, session_ids=[session.session_id for session in fitting])
    return Scope(tenant, agent_id=agent_id, user_id=user_id)
