"""The fold of sessions: made by name or by a first write, opened and closed to others, deleted with all they hold."""

from engram.events import SessionCreated, SessionDeleted, VisibilityChanged
from engram.projections.erasures import Kind
from engram.projections.lives import Life, View
from engram.projections.verdicts import Outcome, Verdict


def is_same(life: Life, event: SessionCreated) -> bool:
    """Return whether `event` describes the session as it was made."""
    return (life.agent_id, life.user_id, life.metadata) == (event.agent_id, event.user_id, event.metadata)


def create(view: View, event: SessionCreated) -> Verdict:
    """Begin a session; one that is there already was found to be the same."""
    life = view.find(event)
    if life is not None:
        return Verdict(Outcome.DUPLICATE, life.key)
    life = Life(
        view.log_index, event.tenant, event.session_id, event.at_ms, event.agent_id, event.user_id, event.metadata
    )
    view.lives[event.tenant, event.session_id] = life
    view.touch(life, event)
    return Verdict(Outcome.ACCEPTED, view.log_index)


def change_visibility(view: View, event: VisibilityChanged) -> Verdict:
    """Open or close a session, which begins here when it is unknown."""
    life = view.open(event)
    life.visibility = event.visibility
    view.touch(life, event)
    return Verdict(Outcome.ACCEPTED, view.log_index)


def end(view: View, event: SessionDeleted) -> Verdict:
    """End a session.

    An unknown one is erased too: the long-term store may still hold it when this store was rebuilt from a log that
    the session is gone from.
    """
    life = view.lives.pop((event.tenant, event.session_id), None)
    view.erase(event, Kind.SESSION, "", life)
    if life is None:
        return Verdict(Outcome.UNKNOWN, 0)
    if life.loaded is not None:
        view.ended.append(life)
    return Verdict(Outcome.ACCEPTED, view.log_index)
