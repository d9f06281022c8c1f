"""What comes over the wire that is hardly HTTP: always a clean answer, never a write."""

import asyncio

import pytest

from engram.api.server import HttpServer
from tests.api.node import Node
from tests.api.wire import exchange, read_answer, request

MESSAGE = b'{"role":"user","content":"hello"}'


def head(length: int | None, extra: str = "") -> bytes:
    announced = f"Content-Length: {length}\r\n" if length is not None else ""
    return (
        f"POST /sessions/s1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{announced}{extra}\r\n"
    ).encode()


UNREADABLE = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "malformed_request"),
    (b"GET /health HTTP/9.9\r\n\r\n", 400, "malformed_request"),
    (b"FETCH /health HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed_request"),
    (b"GET /health HTTP/1.1\r\nHost x\r\n\r\n", 400, "malformed_request"),
    (b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", 400, "malformed_request"),
    (b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "malformed_request"),
    (b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed_request"),
    (b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400, "invalid_encoding"),
    (b"GET /sessions/%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400, "invalid_encoding"),
    (b"GET /sessions/%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "invalid_id"),
    (b"GET /sessions/s%0Aroot HTTP/1.1\r\nHost: x\r\n\r\n", 400, "invalid_id"),
    (b"GET /sessions?limit=%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400, "invalid_encoding"),
    (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, "headers_too_large"),
    (b"GET /health HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 9000 + b"\r\n\r\n", 431, "headers_too_large"),
    (head(5, "Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n", 400, "malformed_request"),
    (head(None, "Transfer-Encoding: chunked\r\n") + b"zz\r\n\r\n", 400, "malformed_request"),
    (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not_found"),
    (head(33, "Expect: a-miracle\r\n") + MESSAGE, 417, "expectation_failed"),
    (head(33, "Content-Encoding: gzip\r\n") + MESSAGE, 415, "unsupported_media_type"),
]


@pytest.mark.parametrize(("data", "status", "code"), UNREADABLE)
async def test_what_is_no_request_gets_a_problem_and_stores_nothing(
    server: HttpServer, node: Node, data: bytes, status: int, code: str
) -> None:
    answer = await exchange(server, data)

    assert (answer.status, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert "aiohttp" not in repr(answer)
    assert node.entries == []


async def test_a_body_that_does_not_arrive_in_time_is_408(server: HttpServer, node: Node) -> None:
    answer = await exchange(server, head(1000) + b'{"role":')

    assert (answer.status, answer.json()["code"]) == (408, "request_timeout")
    assert answer.headers["connection"] == "close"
    assert node.entries == []


async def test_a_body_cut_off_by_a_half_close_is_400(server: HttpServer, node: Node) -> None:
    answer = await exchange(server, head(1000) + MESSAGE, half_close=True)

    assert (answer.status, answer.json()["code"]) == (400, "malformed_request")
    assert node.entries == []


async def test_a_chunked_body_cut_off_by_a_half_close_is_400(server: HttpServer, node: Node) -> None:
    cut = head(None, "Transfer-Encoding: chunked\r\n") + b"21\r\n" + MESSAGE + b"\r\n"

    answer = await exchange(server, cut, half_close=True)

    assert (answer.status, answer.json()["code"]) == (400, "malformed_request")
    assert node.entries == []


async def test_a_complete_request_is_answered_after_a_half_close(server: HttpServer, node: Node) -> None:
    answer = await exchange(server, head(len(MESSAGE)) + MESSAGE, half_close=True)

    assert answer.status == 204
    assert len(node.entries) == 1


async def test_a_connection_reset_in_the_middle_of_a_body_stores_nothing(server: HttpServer, node: Node) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head(1000) + b'{"role":"user"')
    await writer.drain()
    writer.transport.abort()

    assert (await exchange(server, request("GET", "/health"))).status == 200
    assert node.entries == []


@pytest.mark.parametrize("size", [2 * 1024 * 1024 + 1, 5_000_000])
async def test_a_body_that_announces_too_much_is_413_before_it_is_sent(
    server: HttpServer, node: Node, size: int
) -> None:
    answer = await exchange(server, head(size))

    assert (answer.status, answer.json()["code"]) == (413, "too_large")
    assert answer.json()["detail"] == f"the body has {size} bytes; the limit is 2097152 bytes"
    assert node.entries == []


async def test_a_chunked_body_that_grows_too_large_is_413(server: HttpServer, node: Node) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"

    answer = await exchange(server, head(None, "Transfer-Encoding: chunked\r\n") + chunk * 33)

    assert (answer.status, answer.json()["code"]) == (413, "too_large")
    assert node.entries == []


async def test_a_chunked_body_is_as_good_as_any(server: HttpServer, node: Node) -> None:
    chunked = b"".join(b"1\r\n%c\r\n" % byte for byte in MESSAGE) + b"0\r\n\r\n"

    answer = await exchange(server, head(None, "Transfer-Encoding: chunked\r\n") + chunked)

    assert answer.status == 204
    assert len(node.entries) == 1


async def test_a_client_that_waits_to_continue_is_told_to(server: HttpServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head(len(MESSAGE), "Expect: 100-continue\r\n"))

    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"

    writer.write(MESSAGE)
    assert (await read_answer(reader)).status == 204
    writer.close()


async def test_a_connection_goes_on_when_what_was_asked_to_continue_came_and_was_wrong(server: HttpServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head(2, "Expect: 100-continue\r\n"))
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"[]" + request("GET", "/health"))

    assert [(await read_answer(reader)).status for _ in range(2)] == [400, 200]
    writer.close()


async def test_a_client_that_announces_too_much_is_not_told_to_continue(server: HttpServer) -> None:
    answer = await exchange(server, head(3_000_000, "Expect: 100-continue\r\n"))

    assert answer.status == 413


async def test_pipelined_requests_are_answered_in_order(server: HttpServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request("GET", "/health") + request("GET", "/nowhere") + request("GET", "/ready"))

    assert [(await read_answer(reader)).status for _ in range(3)] == [200, 404, 200]
    writer.close()


async def test_a_full_url_as_the_target_is_its_path(server: HttpServer) -> None:
    assert (await exchange(server, request("GET", "http://engram.example/health"))).status == 200


async def test_a_connection_goes_on_after_a_refusal(server: HttpServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request("POST", "/sessions/s1/messages", b"[]"))
    assert (await read_answer(reader)).status == 400

    writer.write(request("GET", "/health"))
    assert (await read_answer(reader)).status == 200
    writer.close()
