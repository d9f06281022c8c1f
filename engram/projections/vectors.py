"""The fold of vectors: given to the message they were made from, or to nobody."""

from engram.events import MessageEmbedded
from engram.projections.erasures import Kind, message_subject
from engram.projections.lives import ABANDONED, DONE, PENDING, Life, MessageState, VectorWrite, View
from engram.projections.verdicts import Outcome, Verdict


def embed(view: View, event: MessageEmbedded) -> Verdict:
    """Give a message its vectors, in place of those it had.

    They must have been made from the message that is there under the id now. Others are vectors of a text that is
    forgotten, so they are erased at once.
    """
    life = view.find(event)
    message = None if life is None else life.messages.get(event.message_id)
    if life is None or message is None or message.log_index != (event.source_index or view.log_index):
        return _refuse(view, life, message, event)
    if message.log_index != view.log_index:
        view.trace(life, message_subject(event.message_id))
        if message.event is None:
            life.changed_messages[event.message_id] = message
    if message.vectors_index and message.ordinal not in life.new_vectors:
        life.gone_vectors.append((message.ordinal, message.vectors_index))
    life.new_vectors[message.ordinal] = [
        VectorWrite(view.take_slot(), message.ordinal, number, chunk.start, chunk.end, chunk.vector)
        for number, chunk in enumerate(event.chunks)
    ]
    life.pending -= message.embedding == PENDING
    life.abandoned -= message.embedding == ABANDONED
    message.embedding = DONE
    message.vectors_index = view.log_index
    message.model = event.model
    life.vectors_index = view.log_index
    view.touch(life, event)
    return Verdict(Outcome.ACCEPTED, view.log_index)


def _refuse(view: View, life: Life | None, message: MessageState | None, event: MessageEmbedded) -> Verdict:
    again = life is not None and life.repeated.get(event.message_id) == view.log_index
    if again and message is not None and event.source_index == 0:
        # A client sent the message again: the vectors are of the text that is there.
        return Verdict(Outcome.DUPLICATE, message.log_index)
    view.erase(event, Kind.STALE, event.message_id, life, event.source_index)
    return Verdict(Outcome.UNKNOWN, 0)
