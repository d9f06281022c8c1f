"""Messages: appended one by one or as an atomic batch, listed, read, forgotten."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import msgspec
from msgspec import UNSET

from engram import commands
from engram.api.bodies import decode_json, refuse
from engram.api.calls import Call
from engram.api.cursors import read_cursor, write_cursor
from engram.api.erasure import wait_erased
from engram.api.ingest import Prepared
from engram.api.paths import encode_header
from engram.api.replies import Reply, say
from engram.api.schemas import MessageDone, MessageList, MessagesDone, NewMessage, NewMessages, Posted
from engram.api.sessions import find_session
from engram.api.times import parse_time
from engram.api.verdicts import first_index, refuse_rejected
from engram.api.views import view_message
from engram.commands import MessageDraft
from engram.errors import InvalidError, NotFoundError
from engram.events import MessageAppended
from engram.projections.rows import MessageRow
from engram.projections.verdicts import Outcome, Verdict
from engram.recorder import Receipt

MESSAGE_ID = "Engram-Message-Id"

_posted = msgspec.json.Decoder(Posted)


async def add_messages(call: Call) -> Reply:
    """Append a message, or a batch of them: all or none."""
    data = await call.json_bytes()
    posted = decode_json(data, _posted, _shape)
    if posted.messages is not UNSET:
        if posted.role is not UNSET or posted.content is not UNSET:
            raise InvalidError("the body has both messages and a message of its own; it takes one of the two")
        return await _add_batch(call, posted.messages)
    if posted.role is UNSET or posted.content is UNSET:
        refuse(data, _shape)
    message = NewMessage(
        role=posted.role,
        content=posted.content,
        id=posted.id,
        name=posted.name,
        timestamp=posted.timestamp,
        metadata=posted.metadata,
    )
    return await _add_one(call, message)


async def list_messages(call: Call) -> Reply:
    """List a session's messages in log order, or backwards."""
    session = await find_session(call, call.segments[0])
    limit, descending = call.whole("limit"), call.text("order") == "desc"
    of = ("messages", session.session_key, descending, *(() if call.past is None else (call.read_index,)))
    cursor = call.text("cursor")
    rows = await call.reads.messages(
        session.session_key,
        after=None if cursor is None else read_cursor(cursor, of),
        limit=limit + 1,
        descending=descending,
    )
    more = write_cursor(rows[limit - 1].ordinal, of) if len(rows) > limit else None
    return say(MessageList(messages=[view_message(row) for row in rows[:limit]], next_cursor=more))


async def get_message(call: Call) -> Reply:
    """Return one message."""
    return say(view_message(await _find_message(call, *call.segments)))


async def delete_message(call: Call) -> Reply:
    """Forget one message: answered when its text is gone from the log and the projections."""
    session_id, message_id = call.segments
    recorder = call.services.recorder
    receipt = await recorder.record(
        commands.delete_message(session_id=session_id, message_id=message_id, at_ms=recorder.stamp_ms())
    )
    await wait_erased(call.services, receipt.log_index)
    return Reply(log_index=receipt.log_index)


async def _add_one(call: Call, message: NewMessage) -> Reply:
    commands.check_text("content", message.content)
    draft = _draft(call, message, "")
    [(message_id, verdict)], _receipt = await _record(call, [draft])
    index = first_index("message", message_id, verdict)
    if verdict.outcome is Outcome.ACCEPTED:
        call.services.metrics.messages_added(message.role, 1)
    headers = {MESSAGE_ID: encode_header(message_id)}
    if call.wants_representation():
        with suppress(NotFoundError):  # deleted since: it was written all the same
            row = await _find_message(call, call.segments[0], message_id)
            return say(view_message(row), log_index=index, headers=headers)
    return Reply(log_index=index, headers=headers)


async def _add_batch(call: Call, messages: Sequence[NewMessage]) -> Reply:
    most = commands.BATCH_MESSAGES_MAX
    if not 1 <= len(messages) <= most:
        raise InvalidError(f"messages has {len(messages)} items; it takes 1 to {most}")
    for place, message in enumerate(messages):
        commands.check_text(f"messages[{place}].content", message.content)
    drafts = [_draft(call, message, f"messages[{place}].") for place, message in enumerate(messages)]
    written, receipt = await _record(call, drafts)
    refuse_rejected("message", written)
    added = Counter(
        message.role
        for message, (_, verdict) in zip(messages, written, strict=True)
        if verdict.outcome is Outcome.ACCEPTED
    )
    for role, count in added.items():
        call.services.metrics.messages_added(role, count)
    done = [
        MessageDone(
            id=message_id,
            index=verdict.first_index,
            status="created" if verdict.outcome is Outcome.ACCEPTED else "duplicate",
        )
        for message_id, verdict in written
    ]
    return say(MessagesDone(messages=done), log_index=receipt.log_index)


async def _record(call: Call, drafts: Sequence[MessageDraft]) -> tuple[list[tuple[str, Verdict]], Receipt]:
    prepared = await call.services.ingest.prepare([draft.text for draft in drafts])
    recorder = call.services.recorder
    events = commands.append_messages(
        session_id=call.segments[0],
        drafts=_counted(drafts, prepared),
        vectors=prepared.vectors,
        at_ms=recorder.stamp_ms(),
    )
    receipt = await recorder.record(events)
    written = [
        (event.message_id, verdict)
        for event, verdict in zip(events, receipt.verdicts, strict=True)
        if isinstance(event, MessageAppended)
    ]
    return written, receipt


def _draft(call: Call, message: NewMessage, inside: str) -> MessageDraft:
    occurred_at_ms = None if message.timestamp is None else parse_time(f"{inside}timestamp", message.timestamp)
    message_id = call.services.new_id() if message.id is None else message.id
    return MessageDraft(
        message_id, message.role, message.content, message.name, occurred_at_ms, message.metadata or {}, tokens=0
    )


def _counted(drafts: Sequence[MessageDraft], prepared: Prepared) -> list[MessageDraft]:
    return [draft._replace(tokens=tokens) for draft, tokens in zip(drafts, prepared.tokens, strict=True)]


async def _find_message(call: Call, session_id: str, message_id: str) -> MessageRow:
    session = await find_session(call, session_id)
    row = await call.reads.message(session.session_key, message_id)
    if row is None:
        raise NotFoundError("message", message_id)
    return row


def _shape(value: object) -> type:
    return NewMessages if isinstance(value, dict) and "messages" in value else NewMessage
