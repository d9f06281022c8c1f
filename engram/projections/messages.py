"""The fold of messages: appended once under an id, deleted for ever."""

from engram.events import MessageAppended, MessageDeleted
from engram.projections.erasures import Kind, message_subject
from engram.projections.lives import ABANDONED, PENDING, Life, MessageState, View
from engram.projections.verdicts import Outcome, Verdict


def append(view: View, event: MessageAppended) -> Verdict:
    """Add a message to its session, which begins here when it is unknown.

    A message under the same id was found to be the same. A message waits for vectors until they come, which may be in
    the same entry.
    """
    life = view.open(event)
    message_id = event.message_id
    known = life.messages.get(message_id)
    if known is not None:
        life.repeated[message_id] = view.log_index
        view.trace(life, message_subject(message_id))
        return Verdict(Outcome.DUPLICATE, known.log_index)
    message = MessageState(
        view.take_slot(), life.next_ordinal, event.role, event.text, event.tokens, event.at_ms, PENDING, event=event
    )
    life.messages[message_id] = life.new_messages[message_id] = message
    life.next_ordinal += 1
    life.message_count += 1
    life.token_count += event.tokens
    life.pending += 1
    view.touch(life, event)
    return Verdict(Outcome.ACCEPTED, view.log_index)


def delete(view: View, event: MessageDeleted) -> Verdict:
    """Forget a message and leave a tombstone, so that its id is not taken again.

    An unknown message of a known session leaves one as well, and takes an ordinal: where a message was erased from
    the log, its deletion stands in its place, and the messages behind it must keep their ordinals.
    """
    life = view.find(event)
    if life is None:
        return Verdict(Outcome.UNKNOWN, 0)
    message_id = event.message_id
    message = life.messages.pop(message_id, None)
    if message is not None:
        _remove(view, life, message_id, message)
    elif message_id not in life.tombstones:
        life.next_ordinal += 1
    if message_id not in life.tombstones:
        life.tombstones.add(message_id)
        life.new_tombstones.append(message_id)
        life.deletions += 1
    life.vectors_index = view.log_index
    view.touch(life, event)
    view.erase(event, Kind.MESSAGE, message_id, life)
    return Verdict(Outcome.UNKNOWN, 0) if message is None else Verdict(Outcome.ACCEPTED, view.log_index)


def _remove(view: View, life: Life, message_id: str, message: MessageState) -> None:
    life.message_count -= 1
    life.token_count -= message.tokens
    life.pending -= message.embedding == PENDING
    life.abandoned -= message.embedding == ABANDONED
    if life.new_vectors.pop(message.ordinal, None) is None and message.vectors_index:
        life.gone_vectors.append((message.ordinal, message.vectors_index))
    life.changed_messages.pop(message_id, None)
    if life.new_messages.pop(message_id, None) is None:
        life.gone_messages.append(message.slot)
    view.traces.append((life.key, message_subject(message_id), message.log_index))
