"""One operation over HTTP: the request, the redirects, and what the client knows of it in the end."""

import asyncio
from collections.abc import Mapping
from time import perf_counter_ns
from typing import Any, NamedTuple, assert_never
from urllib.parse import quote, unquote, urlsplit

import msgspec

from benchmarks.connection import Answer, Connection, build_request, session_path
from tests.cluster.asking import header, told
from tests.linearizability.history import (
    READS,
    Added,
    AddMessages,
    DeleteMessage,
    Done,
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
    Reply,
    Request,
    UnpinFact,
)

HOPS_MAX = 4
"""Redirects that are followed, less one."""

LINEARIZABLE = "linearizable"
LOCAL = "local"
"""A level that promises less than is checked: histories with it show that the check finds something."""

PAGE_MESSAGES = 200
"""A list must fit one page: pages are read at different times."""


class Line(Connection):
    """A connection that knows whether it is still there."""

    is_lost = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        super().connection_lost(exc)


class _Heard(NamedTuple):
    """What came of sending a request to one node."""

    answer: Answer | None
    was_sent: bool
    note: str = ""


class Exchange:
    """A client's connections, one to each node that it has asked.

    Args:
        ports: Where the nodes serve HTTP.
        timeout_s: How long to wait for a node's answer.
        level: The consistency that is asked for where a linearizable read is meant.
    """

    def __init__(self, ports: Mapping[int, int], timeout_s: float, level: str = LINEARIZABLE) -> None:
        self._ports = ports
        self._timeout_s = timeout_s
        self._level = level
        self._lines: dict[int, Line] = {}

    async def perform(self, number: int, client: int, session_id: str, request: Request, node_id: int) -> Operation:
        """Ask a node, go where it sends us, and return all of it as one operation."""
        called_ns = perf_counter_ns()
        nodes: list[int] = []
        method, rest, body = _parts(request, f"consistency={self._level}")
        wire = build_request(method, session_path(session_id, rest), body)
        next_node: int | None = node_id
        heard = _Heard(None, was_sent=False)
        while next_node is not None and len(nodes) < HOPS_MAX:
            nodes.append(next_node)
            heard = await self._ask(next_node, wire)
            next_node = self._redirected(heard.answer)
        outcome, reply, note = _understand(request, heard)
        answer = heard.answer
        return Operation(
            number=number,
            client=client,
            session_id=session_id,
            request=request,
            called_ns=called_ns,
            returned_ns=perf_counter_ns(),
            outcome=outcome,
            nodes=tuple(nodes),
            status=None if answer is None else answer.status,
            reply=reply,
            log_index=0 if answer is None else int(header(answer, b"engram-index") or 0),
            note=note,
        )

    def hang_up(self) -> None:
        """Close all connections."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()

    async def _ask(self, node_id: int, wire: bytes) -> _Heard:
        was_sent = False
        try:
            async with asyncio.timeout(self._timeout_s):
                line = self._lines.get(node_id)
                if line is None or line.is_lost:
                    line = self._lines[node_id] = await Line.open(self._ports[node_id])
                was_sent = True
                return _Heard(await line.ask(wire), was_sent=True)
        except TimeoutError:
            note = f"no answer within {self._timeout_s:g} s"
        except OSError as error:
            note = f"{type(error).__name__}: {error}"
        lost = self._lines.pop(node_id, None)
        if lost is not None:
            lost.close()
        return _Heard(None, was_sent, note)

    def _redirected(self, answer: Answer | None) -> int | None:
        if answer is None or answer.status != 307:
            return None
        location = header(answer, b"location")
        port = None if location is None else urlsplit(location.decode()).port
        return next((node_id for node_id, known in self._ports.items() if known == port), None)


def _parts(request: Request, level: str) -> tuple[str, str, object]:  # noqa: PLR0911 - a case a request
    match request:
        case AddMessages(messages):
            drafts = [{"id": message_id, "role": "user", "content": text} for message_id, text in messages]
            return "POST", "/messages", {"messages": drafts}
        case DeleteMessage(message_id):
            return "DELETE", f"/messages/{quote(message_id)}", None
        case ReadMessages(min_index):
            asked = level if min_index is None else f"min_index={min_index}"
            return "GET", f"/messages?order=asc&limit={PAGE_MESSAGES}&{asked}", None
        case ReadMessage(message_id):
            return "GET", f"/messages/{quote(message_id)}?{level}", None
        case PinFact(fact_id, text):
            return "PUT", "/core-memory", {"id": fact_id, "fact": text}
        case UnpinFact(fact_id):
            return "DELETE", f"/core-memory/{quote(fact_id)}", None
        case ReadFacts():
            return "GET", f"/core-memory?{level}", None
        case _:
            assert_never(request)


def _understand(request: Request, heard: _Heard) -> tuple[Outcome, Reply | None, str]:
    """Return what is known of the operation now, as the API promises it: see docs/errors.md."""
    answer = heard.answer
    if answer is None:
        return Outcome.UNKNOWN if heard.was_sent else Outcome.FAILED, None, heard.note
    if answer.status in {307, 503}:  # nothing was written
        return Outcome.FAILED, None, told(answer)
    reply = _read(request, answer)
    if reply is None:
        return Outcome.UNKNOWN, None, told(answer)
    return Outcome.ANSWERED, reply, ""


def _read(request: Request, answer: Answer) -> Reply | None:
    """Return what an answer says, None when it is none of those that say what was done."""
    if isinstance(request, READS):
        return _read_read(request, answer)
    if answer.status == 409:
        return Refused(msgspec.json.decode(answer.body)["code"])
    match request, answer.status:
        case AddMessages(), 200:
            done = msgspec.json.decode(answer.body)["messages"]
            return Added(tuple((one["status"], one["index"]) for one in done))
        case PinFact(), 204:
            return FactPlaced(unquote((header(answer, b"engram-fact-id") or b"").decode()))
        case ((DeleteMessage() | UnpinFact()), 204):
            return Done()
        case _:
            return None


def _read_read(request: ReadMessages | ReadMessage | ReadFacts, answer: Answer) -> Reply | None:
    if answer.status not in {200, 404}:
        return None
    body: dict[str, Any] = msgspec.json.decode(answer.body) if answer.status == 200 else {}
    match request:
        case ReadMessages():
            messages = body.get("messages", [])
            assert body.get("next_cursor") is None, "the list is longer than a page"
            return Listed(tuple((one["id"], one["content"], one["index"]) for one in messages))
        case ReadMessage():
            return Got(body.get("content"))
        case ReadFacts():
            return FactsListed(tuple((one["id"], one["fact"]) for one in body.get("facts", [])))
        case _:
            assert_never(request)
