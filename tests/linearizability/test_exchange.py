"""What a client may conclude from what it hears, and from what it does not hear."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.linearizability.exchange import LOCAL, Exchange
from tests.linearizability.history import (
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

TIMEOUT_S = 0.2
ADD = AddMessages((("m 1", "hello"),))

Node = Callable[[bytes], bytes | None]
"""Returns what it answers to a request; b"" hangs up, None says nothing."""


class _Ear(asyncio.Protocol):
    """The node's end of one connection."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._heard = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard += data
        head, end, body = self._heard.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        said, self._heard = self._node(self._heard), b""
        assert self.transport is not None
        if said == b"":
            self.transport.abort()
        elif said is not None:
            self.transport.write(said)
            if b"Connection: close" in said:
                self.transport.close()


@asynccontextmanager
async def serving(node: Node) -> AsyncIterator[int]:
    """Serve one node; yields its port."""
    ears: list[_Ear] = []

    def listen() -> _Ear:
        ears.append(_Ear(node))
        return ears[-1]

    server = await asyncio.get_running_loop().create_server(listen, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for ear in ears:
            if ear.transport is not None:
                ear.transport.abort()
        await server.wait_closed()


def answer(status: int, body: str = "", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} .", f"Content-Length: {len(body)}", "Engram-Index: 12"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", body]).encode()


def saying(status: int, body: str = "", **headers: str) -> Node:
    return lambda _: answer(status, body, **headers)


async def perform(request: Request, *ports: int) -> Operation:
    exchange = Exchange(dict(enumerate(ports, start=1)), TIMEOUT_S)
    try:
        return await exchange.perform(0, 0, "a session", request, 1)
    finally:
        exchange.hang_up()


ANSWERS: dict[str, tuple[Request, Node, Reply]] = {
    "created": (
        ADD,
        saying(200, '{"messages":[{"id":"m 1","index":12,"status":"created"}]}'),
        Added((("created", 12),)),
    ),
    "conflict": (ADD, saying(409, '{"code":"message_conflict"}'), Refused("message_conflict")),
    "deleted": (DeleteMessage("m 1"), saying(204), Done()),
    "pinned": (PinFact("f", "x"), saying(204, Engram_Fact_Id="other%20one"), FactPlaced("other one")),
    "unpinned": (UnpinFact("f"), saying(204), Done()),
    "listed": (
        ReadMessages(),
        saying(200, '{"messages":[{"id":"a","content":"x","index":3}],"next_cursor":null}'),
        Listed((("a", "x", 3),)),
    ),
    "no such session": (ReadMessages(), saying(404, "{}"), Listed(())),
    "read": (ReadMessage("a"), saying(200, '{"content":"x"}'), Got("x")),
    "not there": (ReadMessage("a"), saying(404, "{}"), Got(None)),
    "facts": (ReadFacts(), saying(200, '{"facts":[{"id":"f","fact":"x"}]}'), FactsListed((("f", "x"),))),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_says_what_was_done(name: str) -> None:
    request, node, reply = ANSWERS[name]

    async with serving(node) as port:
        operation = await perform(request, port)

    assert (operation.outcome, operation.reply) == (Outcome.ANSWERED, reply)
    assert operation.log_index == 12
    assert operation.called_ns < operation.returned_ns


NO_ANSWERS: dict[str, tuple[Node, Outcome]] = {
    "silence": (lambda _: None, Outcome.UNKNOWN),
    "a connection that breaks": (lambda _: b"", Outcome.UNKNOWN),
    "504": (saying(504, "{}"), Outcome.UNKNOWN),
    "500": (saying(500, "{}"), Outcome.UNKNOWN),
    "503": (saying(503, "{}"), Outcome.FAILED),
    "a redirect to nobody": (saying(307, Location="http://127.0.0.1:1/"), Outcome.FAILED),
}


@pytest.mark.parametrize("name", NO_ANSWERS)
async def test_without_an_answer_it_may_have_happened_unless_a_node_says_no(name: str) -> None:
    node, outcome = NO_ANSWERS[name]

    async with serving(node) as port:
        operation = await perform(ADD, port)

    assert operation.outcome is outcome
    assert operation.reply is None


async def test_what_could_not_be_sent_did_not_happen(free_port: int) -> None:
    operation = await perform(ADD, free_port)

    assert operation.outcome is Outcome.FAILED


async def test_a_redirect_is_followed_within_the_operation() -> None:
    async with serving(saying(204)) as leader, serving(saying(307, Location=f"http://127.0.0.1:{leader}/x")) as other:
        operation = await perform(DeleteMessage("m"), other, leader)

    assert operation.nodes == (1, 2)
    assert operation.outcome is Outcome.ANSWERED


async def test_a_redirect_to_a_node_that_says_nothing_leaves_the_outcome_unknown() -> None:
    async with serving(lambda _: None) as leader, serving(saying(307, Location=f"http://127.0.0.1:{leader}/")) as other:
        operation = await perform(ADD, other, leader)

    assert operation.outcome is Outcome.UNKNOWN


async def test_nodes_that_redirect_in_a_circle_have_written_nothing() -> None:
    location: dict[str, str] = {}
    async with serving(lambda _: answer(307, **location)) as port:
        location["Location"] = f"http://127.0.0.1:{port}/"
        operation = await perform(ADD, port)

    assert operation.outcome is Outcome.FAILED
    assert len(operation.nodes) == 4


async def test_a_connection_that_broke_while_nothing_was_asked_is_made_anew() -> None:
    async with serving(saying(204, Connection="close")) as port:
        exchange = Exchange({1: port}, TIMEOUT_S)
        first = await exchange.perform(0, 0, "s", DeleteMessage("m"), 1)
        for _ in range(10):  # the end of the connection arrives
            await asyncio.sleep(0)
        second = await exchange.perform(1, 0, "s", DeleteMessage("m"), 1)
        exchange.hang_up()

    assert (first.outcome, second.outcome) == (Outcome.ANSWERED, Outcome.ANSWERED)


async def test_reads_ask_for_the_level_that_is_wanted() -> None:
    heard: list[bytes] = []

    def node(request: bytes) -> bytes:
        heard.append(request.partition(b" HTTP")[0])
        return answer(404)

    async with serving(node) as port:
        for level in ("linearizable", LOCAL):
            exchange = Exchange({1: port}, TIMEOUT_S, level)
            for request in (ReadMessages(), ReadMessage("a"), ReadFacts(), ReadMessages(min_index=9)):
                await exchange.perform(0, 0, "s", request, 1)
            exchange.hang_up()

    assert [line.count(b"consistency=linearizable") for line in heard] == [1, 1, 1, 0, 0, 0, 0, 0]
    assert [line.count(b"min_index=9") for line in heard] == [0, 0, 0, 1, 0, 0, 0, 1]
