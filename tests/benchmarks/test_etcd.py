"""How etcd is asked: keys and values in base64, under the names of its JSON gateway."""

import base64

import msgspec

from benchmarks.connection import Answer
from benchmarks.etcd import Etcd

TURN = {"role": "user", "content": "héllo"}


def body(request: bytes) -> dict[str, object]:
    content: dict[str, object] = msgspec.json.decode(request.partition(b"\r\n\r\n")[2])
    return content


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_value_is_the_body_that_engram_gets() -> None:
    put = body(Etcd().write("s", 7, TURN))

    assert put == {"key": text(b"s/00000007"), "value": text(msgspec.json.encode(TURN))}


def test_a_batch_is_one_transaction_of_puts() -> None:
    single = [body(Etcd().write("s", number, TURN)) for number in (7, 8)]

    assert body(Etcd().write_batch("s", 7, [TURN, TURN])) == {"success": [{"requestPut": put} for put in single]}


def test_a_read_without_a_key_found_is_a_miss() -> None:
    found, empty = (Answer(200, b"", content) for content in (b'{"header":{},"kvs":[{}]}', b'{"header":{}}'))

    assert (Etcd().is_missing(found), Etcd().is_missing(empty)) == (False, True)
