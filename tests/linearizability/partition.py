"""Which object each operation of a history is about, and what it was asked."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from tests.linearizability.history import (
    READS,
    Added,
    AddMessages,
    DeleteMessage,
    FactPlaced,
    FactsListed,
    Got,
    Listed,
    Operation,
    Outcome,
    PinFact,
    ReadFacts,
    ReadMessage,
    ReadMessages,
    Refused,
    UnpinFact,
)
from tests.linearizability.specifications import (
    Add,
    Delete,
    Facts,
    Look,
    LookAll,
    Pin,
    Pinned,
    Unpin,
    Word,
)
from tests.linearizability.wgl import Span

MessageCall = Add | Delete | Look
MessageAnswer = Word | str | None
FactsCall = Pin | Unpin | LookAll
FactsAnswer = Pinned | Word | Facts
MessageSpan = Span[MessageCall, MessageAnswer]
FactsSpan = Span[FactsCall, FactsAnswer]

REFUSALS = {
    "message_conflict": Word.CONFLICT,
    "message_deleted": Word.DELETED,
    "fact_conflict": Word.CONFLICT,
}


def split_messages(operations: Sequence[Operation]) -> dict[str, list[MessageSpan]]:
    """Return what was asked of each message, by session and message id."""
    ids: dict[str, set[str]] = defaultdict(set)
    for operation in operations:
        ids[operation.session_id].update(_ids(operation))
    spans: dict[str, list[MessageSpan]] = defaultdict(list)
    for operation in filter(_counts, operations):
        for message_id, call, answer in _on_messages(operation, ids[operation.session_id]):
            name = f"{operation.session_id}/{message_id}"
            span: MessageSpan = Span(operation.called_ns, _returned_ns(operation), call, answer, _name(operation))
            spans[name].append(span)
    return spans


def split_facts(operations: Sequence[Operation]) -> dict[str, list[FactsSpan]]:
    """Return what was asked of each session's core memory."""
    spans: dict[str, list[FactsSpan]] = defaultdict(list)
    for operation in filter(_counts, operations):
        for call, answer in _on_facts(operation):
            span: FactsSpan = Span(operation.called_ns, _returned_ns(operation), call, answer, _name(operation))
            spans[operation.session_id].append(span)
    return spans


def _counts(operation: Operation) -> bool:
    """Whether an operation may have had an effect, or has seen one."""
    if isinstance(operation.request, READS):
        return operation.outcome is Outcome.ANSWERED
    return operation.outcome is not Outcome.FAILED


def _returned_ns(operation: Operation) -> int | None:
    return operation.returned_ns if operation.outcome is Outcome.ANSWERED else None


def _name(operation: Operation) -> str:
    return f"#{operation.number} by client {operation.client} on node {operation.nodes[-1]}"


def _ids(operation: Operation) -> Iterator[str]:
    """Yield the message ids that are named in an operation."""
    request, reply = operation.request, operation.reply
    if isinstance(request, AddMessages):
        yield from (message_id for message_id, _ in request.messages)
    elif isinstance(request, DeleteMessage | ReadMessage):
        yield request.message_id
    if isinstance(reply, Listed):
        yield from (message_id for message_id, _, _ in reply.messages)


def _on_messages(operation: Operation, ids: set[str]) -> Iterator[tuple[str, MessageCall, MessageAnswer]]:
    """Yield what an operation is for each message that it is about, and what it was answered."""
    request, reply = operation.request, operation.reply
    if isinstance(request, AddMessages):
        for (message_id, text), word in zip(request.messages, _words(operation), strict=True):
            yield message_id, Add(text), word
    elif isinstance(request, DeleteMessage):
        yield request.message_id, Delete(), Word.DONE
    elif isinstance(request, ReadMessage) and isinstance(reply, Got):
        yield request.message_id, Look(), reply.text
    elif isinstance(request, ReadMessages) and request.min_index is None and isinstance(reply, Listed):
        texts = {message_id: text for message_id, text, _ in reply.messages}
        for message_id in ids:
            yield message_id, Look(), texts.get(message_id)


def _words(operation: Operation) -> list[Word | None]:
    """Return what was said of each message of a batch; None where the outcome is unknown."""
    request, reply = operation.request, operation.reply
    assert isinstance(request, AddMessages)
    if isinstance(reply, Added):
        return [Word(word) for word, _ in reply.outcomes]
    if isinstance(reply, Refused):
        assert len(request.messages) == 1, f"which message of a batch was refused cannot be told: {operation}"
        return [REFUSALS[reply.code]]
    return [None] * len(request.messages)


def _on_facts(operation: Operation) -> Iterator[tuple[FactsCall, FactsAnswer | None]]:
    request, reply = operation.request, operation.reply
    if isinstance(request, PinFact):
        pinned = Pinned(reply.fact_id) if isinstance(reply, FactPlaced) else None
        yield Pin(request.fact_id, request.text), REFUSALS[reply.code] if isinstance(reply, Refused) else pinned
    elif isinstance(request, UnpinFact):
        yield Unpin(request.fact_id), Word.DONE
    elif isinstance(request, ReadFacts) and isinstance(reply, FactsListed):
        yield LookAll(), reply.facts
