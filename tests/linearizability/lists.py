"""Lists that are only appended to, checked in linear time: every append tells its place in the log.

Knowing the places, there is only one order to try. A history of appends and reads is linearizable when the places
follow real time, every read is a beginning of the same list, holds all that was seen before it was asked, and nothing
that was asked for after it was answered.
"""

import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.linearizability.history import (
    READS,
    Added,
    AddMessages,
    DeleteMessage,
    Listed,
    Operation,
    Outcome,
    ReadMessages,
)


@dataclass
class Message:
    """One message id of one session, as far as clients know of it."""

    session_id: str
    message_id: str
    places: set[int] = field(default_factory=set)
    """Log indexes that were told of it; more than one is a fault."""
    texts: set[str] = field(default_factory=set)
    called_ns: float = float("inf")
    """When it was first sent, of the times when it may have been written."""
    seen_ns: float = float("inf")
    """When it was first known to be there."""
    batch: tuple[str, ...] = ()

    @property
    def place(self) -> int:
        return min(self.places, default=0)

    def __str__(self) -> str:
        return f"{self.session_id}/{self.message_id}"

    def show(self, place: int, at_ns: int) -> None:
        """Note that an answer at this moment says that it is there."""
        self.places.add(place)
        self.seen_ns = min(self.seen_ns, at_ns)


Messages = dict[str, dict[str, Message]]
"""By session and by message id."""


def find_faults(operations: Sequence[Operation]) -> list[str]:
    """Return what is wrong in a history, one line a case; nothing when all is well."""
    messages = _messages(operations)
    everything = [message for session in messages.values() for message in session.values()]
    faults = [*_misplaced(everything), *_disordered(everything), *_behind(operations)]
    deleting = {operation.session_id for operation in operations if isinstance(operation.request, DeleteMessage)}
    for session_id, session in messages.items():
        if session_id not in deleting:
            faults += _misread(session, [op for op in operations if op.session_id == session_id])
    return faults


def _messages(operations: Iterable[Operation]) -> Messages:
    messages: Messages = defaultdict(dict)
    for operation in operations:
        session = messages[operation.session_id]
        if isinstance(operation.request, AddMessages) and operation.outcome is not Outcome.FAILED:
            _note_added(session, operation, operation.request)
        elif isinstance(operation.reply, Listed):
            for message_id, text, place in operation.reply.messages:
                message = session.setdefault(message_id, Message(operation.session_id, message_id))
                message.show(place, operation.returned_ns)
                message.texts.add(text)
    return messages


def _note_added(session: dict[str, Message], operation: Operation, request: AddMessages) -> None:
    batch = tuple(message_id for message_id, _ in request.messages)
    for position, message_id in enumerate(batch):
        message = session.setdefault(message_id, Message(operation.session_id, message_id))
        message.called_ns = min(message.called_ns, operation.called_ns)
        message.batch = batch
        if isinstance(operation.reply, Added):
            message.show(operation.reply.outcomes[position][1], operation.returned_ns)


def _misplaced(messages: Sequence[Message]) -> Iterator[str]:
    """Every message has one place and one text; a place is that of one batch."""
    owners: dict[int, tuple[str, tuple[str, ...]]] = {}
    for message in messages:
        if len(message.places) > 1:
            yield f"{message} stands in several places of the log: {sorted(message.places)}"
        if len(message.texts) > 1:
            yield f"{message} has several texts: {sorted(message.texts)}"
        if message.places and message.called_ns == float("inf"):
            yield f"{message} is there, and no request can have written it"
        if message.places:
            batch = (message.session_id, message.batch)
            owner = owners.setdefault(message.place, batch)
            if owner != batch:
                yield f"{message} has the place {message.place} of the log, and so have {owner[1]} of {owner[0]}"


def _disordered(messages: Sequence[Message]) -> Iterator[str]:
    """What was seen before another was sent stands before it in the log."""
    placed = [message for message in messages if message.places]
    by_seen = sorted(placed, key=lambda message: message.seen_ns)
    highest: Message | None = None
    seen = 0
    for message in sorted(placed, key=lambda message: message.called_ns):
        while seen < len(by_seen) and by_seen[seen].seen_ns < message.called_ns:
            if highest is None or by_seen[seen].place > highest.place:
                highest = by_seen[seen]
            seen += 1
        if highest is not None and message.place < highest.place:
            yield (
                f"{message} was first sent after {highest} was known to be there, "
                f"and stands before it: {message.place} < {highest.place}"
            )


def _behind(operations: Sequence[Operation]) -> Iterator[str]:
    """A linearizable read has seen what was acknowledged anywhere before it; another, what it asked for."""
    answered = [operation for operation in operations if operation.outcome is Outcome.ANSWERED]
    writes = sorted(
        (operation for operation in answered if not isinstance(operation.request, READS)),
        key=lambda operation: operation.returned_ns,
    )
    reads = sorted(
        (operation for operation in answered if isinstance(operation.request, READS)),
        key=lambda operation: operation.called_ns,
    )
    floor = done = 0
    for read in reads:
        while done < len(writes) and writes[done].returned_ns < read.called_ns:
            floor = max(floor, writes[done].log_index)
            done += 1
        wanted = floor
        if isinstance(read.request, ReadMessages) and read.request.min_index is not None:
            wanted = read.request.min_index
        if read.log_index < wanted:
            yield f"{read} has seen the log up to {read.log_index}, and should up to {wanted}"


def _misread(session: dict[str, Message], operations: Sequence[Operation]) -> Iterator[str]:
    """Check the reads of one session."""
    reads = [(operation, operation.reply) for operation in operations if isinstance(operation.reply, Listed)]
    whole: Listed = max((reply for _, reply in reads), key=lambda reply: len(reply.messages), default=Listed(()))
    yield from _misbuilt(session, whole)
    by_seen = sorted(session.values(), key=lambda message: message.seen_ns)
    seen_ns = [message.seen_ns for message in by_seen]
    for operation, reply in reads:
        if reply.messages != whole.messages[: len(reply.messages)]:
            yield f"{operation} is no beginning of {whole.messages}"
        assert isinstance(operation.request, ReadMessages)
        found = {message_id for message_id, _, _ in reply.messages}
        if operation.request.min_index is None:
            wanted = by_seen[: bisect.bisect_left(seen_ns, operation.called_ns)]
        else:
            wanted = [message for message in by_seen if 0 < message.place <= operation.request.min_index]
        for message in wanted:
            if message.message_id not in found:
                yield f"{operation} does not have {message}, known to be there at place {message.place}"
        for message_id in found:
            if session[message_id].called_ns > operation.returned_ns:
                yield f"{operation} has {session[message_id]}, which nobody had asked for yet"


def _misbuilt(session: dict[str, Message], whole: Listed) -> Iterator[str]:
    """The list is in the order of the log, without repetition, and has batches in one piece."""
    ids = [message_id for message_id, _, _ in whole.messages]
    places = [place for _, _, place in whole.messages]
    if len(set(ids)) != len(ids):
        yield f"twice in one list: {sorted({message_id for message_id in ids if ids.count(message_id) > 1})}"
        return
    if places != sorted(places):
        yield f"not in the order of the log: {whole.messages}"
    at = {message_id: position for position, message_id in enumerate(ids)}
    for message in session.values():
        positions = [at[message_id] for message_id in message.batch if message_id in at]
        if positions and positions != list(range(positions[0], positions[0] + len(message.batch))):
            yield f"{message} was written with {message.batch}, and the list has of them {positions}"
