"""The fold of work given up: a message stays without its vectors, visibly, until somebody asks again."""

from engram.events import WorkAbandoned
from engram.projections.erasures import message_subject
from engram.projections.lives import ABANDONED, DONE, PENDING, View
from engram.projections.verdicts import Outcome, Verdict


def abandon(view: View, event: WorkAbandoned) -> Verdict:
    """Mark the message's work as given up. Work that is done already, or about nothing, is not."""
    life = view.find(event)
    message = None if life is None else life.messages.get(event.message_id)
    if life is None or message is None or (event.work == "embedding" and message.embedding == DONE):
        return Verdict(Outcome.UNKNOWN, 0)
    if event.work == "embedding" and message.embedding == PENDING:
        message.embedding = ABANDONED
        life.pending -= 1
        life.abandoned += 1
        if message.event is None:
            life.changed_messages[event.message_id] = message
    view.trace(life, message_subject(event.message_id))
    view.touch(life, event)
    return Verdict(Outcome.ACCEPTED, view.log_index)
