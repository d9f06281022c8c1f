"""Two messages that wait for the same node, said as one: the core answers each proposal and each answer by itself.

Nothing is lost. An append that goes on where the one before it ends says what both said, and an acknowledgement holds
for every entry below it. Each message costs both ends some 50 us, and a busy leader has ten where one will do.
"""

import msgspec

from engram.log.consensus.types import Message, MessageType


def merged(earlier: Message, later: Message) -> Message | None:
    """Return the message that says what `earlier` and then `later` say, both to the same node; None if there is none."""
    if later.type is not earlier.type or (later.term, later.session) != (earlier.term, earlier.session):
        return None
    match later.type:
        case MessageType.APPEND:
            return _appends(earlier, later)
        case MessageType.APPEND_RESPONSE:
            return None if earlier.reject or later.reject or later.index < earlier.index else later
        case _:
            return None


def _appends(earlier: Message, later: Message) -> Message | None:
    end_index, end_term = earlier.index, earlier.log_term
    if earlier.entries:
        end_index, end_term = earlier.entries[-1].index, earlier.entries[-1].term
    if (later.index, later.log_term) != (end_index, end_term):
        return None
    return msgspec.structs.replace(
        earlier, entries=(*earlier.entries, *later.entries), commit=max(earlier.commit, later.commit)
    )
