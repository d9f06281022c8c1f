"""Operations of made-up histories, for tests: one after the other, a millisecond each, where nothing else is said."""

import itertools

from tests.linearizability.history import (
    READS,
    Added,
    AddMessages,
    Listed,
    Operation,
    Outcome,
    ReadMessages,
    Reply,
    Request,
)


class Scribe:
    """Writes a history down, step by step."""

    def __init__(self, session_id: str = "s") -> None:
        self.operations: list[Operation] = []
        self._session_id = session_id
        self._clock = itertools.count(1)
        self._highest = 0

    def note(
        self,
        request: Request,
        reply: Reply | None,
        *,
        log_index: int = 0,
        outcome: Outcome = Outcome.ANSWERED,
        between: tuple[int, int] | None = None,
        session_id: str | None = None,
        status: int | None = None,
    ) -> Operation:
        """Add an operation; `between` are the times of its call and return."""
        called, returned = between or (10 * next(self._clock), 10 * next(self._clock))
        self._highest = max(self._highest, log_index)
        operation = Operation(
            number=len(self.operations),
            client=0,
            session_id=session_id or self._session_id,
            request=request,
            called_ns=called,
            returned_ns=returned,
            outcome=outcome,
            nodes=(1,),
            status=status,
            reply=reply if outcome is Outcome.ANSWERED else None,
            log_index=log_index or (self._highest if isinstance(request, READS) else 0),
        )
        self.operations.append(operation)
        return operation

    def append(
        self,
        *message_ids: str,
        at: int,
        word: str = "created",
        outcome: Outcome = Outcome.ANSWERED,
        between: tuple[int, int] | None = None,
        session_id: str | None = None,
    ) -> Operation:
        """Append messages to the list; `at` is the place in the log."""
        request = AddMessages(tuple((message_id, f"says {message_id}") for message_id in message_ids))
        reply = Added(tuple((word, at) for _ in message_ids))
        return self.note(
            request,
            reply,
            log_index=at if outcome is Outcome.ANSWERED else 0,
            outcome=outcome,
            between=between,
            session_id=session_id,
        )

    def read(
        self,
        *messages: tuple[str, int],
        min_index: int | None = None,
        seen: int = 0,
        between: tuple[int, int] | None = None,
    ) -> Operation:
        """Read the list; `messages` are ids and places, `seen` the index up to which the node had read the log."""
        listed = Listed(tuple((message_id, f"says {message_id}", place) for message_id, place in messages))
        return self.note(ReadMessages(min_index), listed, log_index=seen, between=between)
