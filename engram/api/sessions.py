"""Sessions: made by name or on the first write, listed, looked at, opened, forgotten."""

from hashlib import sha256
from uuid import UUID

import msgspec

from engram import commands
from engram.api.calls import Call
from engram.api.cursors import read_cursor, write_cursor
from engram.api.erasure import wait_erased
from engram.api.replies import Reply, say
from engram.api.schemas import NewSession, SessionList, SessionMade, VisibilityWanted
from engram.api.verdicts import first_index
from engram.api.views import view_session
from engram.errors import NotFoundError
from engram.projections.rows import SessionRow

IDEMPOTENCY_KEY = "Idempotency-Key"

_new_session = msgspec.json.Decoder(NewSession)
_visibility_wanted = msgspec.json.Decoder(VisibilityWanted)


async def create_session(call: Call) -> Reply:
    """Make a session; without a name it gets one."""
    wanted = await call.body_if_any(_new_session) or NewSession()
    keyed = _session_of_key(call)
    session_id = wanted.session_id if wanted.session_id is not None else keyed or call.services.new_id()
    recorder = call.services.recorder
    receipt = await recorder.record(
        commands.create_session(
            session_id=session_id,
            agent_id=wanted.agent_id,
            user_id=wanted.user_id,
            metadata=wanted.metadata or {},
            at_ms=recorder.stamp_ms(),
        )
    )
    index = first_index("session", session_id, receipt.verdicts[0])
    if call.wants_representation():
        return say(view_session(await find_session(call, session_id)), log_index=index)
    return say(SessionMade(session_id=session_id), log_index=index)


async def list_sessions(call: Call) -> Reply:
    """List sessions in order of their making."""
    agent_id, user_id, limit = call.text("agent_id"), call.text("user_id"), call.whole("limit")
    of = ("sessions", call.tenant, agent_id, user_id)
    cursor = call.text("cursor")
    rows = await call.services.reads.sessions(
        tenant=call.tenant,
        agent_id=agent_id,
        user_id=user_id,
        after=None if cursor is None else read_cursor(cursor, of),
        limit=limit + 1,
    )
    more = write_cursor(rows[limit - 1].session_key, of) if len(rows) > limit else None
    return say(SessionList(sessions=[view_session(row) for row in rows[:limit]], next_cursor=more))


async def get_session(call: Call) -> Reply:
    """Return what a session is and holds."""
    row = await find_session(call, call.segments[0])
    return say(view_session(row if call.past is None else await call.past.reads.whole_session(row)))


async def delete_session(call: Call) -> Reply:
    """Forget a session: answered when its text is gone from the log and the projections."""
    recorder = call.services.recorder
    receipt = await recorder.record(commands.delete_session(session_id=call.segments[0], at_ms=recorder.stamp_ms()))
    await wait_erased(call.services, receipt.log_index)
    return Reply(log_index=receipt.log_index)


async def put_visibility(call: Call) -> Reply:
    """Open a session to the shared knowledge, or close it."""
    wanted = await call.body(_visibility_wanted)
    session_id = call.segments[0]
    recorder = call.services.recorder
    receipt = await recorder.record(
        commands.change_visibility(session_id=session_id, visibility=wanted.visibility, at_ms=recorder.stamp_ms())
    )
    index = first_index("session", session_id, receipt.verdicts[0])
    if call.wants_representation():
        return say(view_session(await find_session(call, session_id)), log_index=index)
    return Reply(log_index=index)


async def find_session(call: Call, session_id: str) -> SessionRow:
    """Return a session.

    Raises:
        NotFoundError: It is unknown.
    """
    row = await call.reads.session(session_id, call.tenant)
    if row is None:
        raise NotFoundError("session", session_id)
    return row


def _session_of_key(call: Call) -> str | None:
    key = call.request.headers.get(IDEMPOTENCY_KEY)
    if key is None:
        return None
    commands.check_id(IDEMPOTENCY_KEY, key)
    # The same key must lead to the same session on every node and after every restart, so the id is a function of it.
    return str(UUID(bytes=sha256(f"{call.tenant}\0{key}".encode()).digest()[:16], version=5))
