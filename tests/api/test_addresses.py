import pytest

from engram.api.addresses import check_address
from engram.errors import InvalidError

GOOD = ["node-4:9001", "10.0.0.4:1", "[::1]:65535", "[fd00::192.0.2.1]:9001", "a_b.example:09001"]

BAD = {
    "": "it takes host:port",
    "node-4": "it takes host:port",
    ":9001": "it takes host:port",
    "node-4:": "it takes host:port",
    "node-4:http": "it takes host:port",
    "node-4:90011111": "it takes host:port",
    "node 4:9001": "it takes host:port",
    "http://node-4:9001": "it takes host:port",
    "me@node-4:9001": "it takes host:port",
    "node-4/path:9001": "it takes host:port",
    "node-4:9001\n": "it takes host:port",
    "::1:9001": "it takes host:port, an IPv6 host in brackets",
    "[::1::]:9001": "it takes host:port, an IPv6 host in brackets",
    "[node-4]:9001": "it takes host:port",
    "nöde:9001": "it takes host:port",
    "node-4:٣": "it takes host:port",
    f"{'a' * 254}:9001": "it takes host:port",
    "node-4:0": "its port must be from 1 to 65535",
    "node-4:65536": "its port must be from 1 to 65535",
    "0.0.0.0:9001": "which tells other nodes nothing",
    "[::]:9001": "which tells other nodes nothing",
}


@pytest.mark.parametrize("text", GOOD)
def test_an_address_is_taken_as_it_is(text: str) -> None:
    assert check_address("addr", text) == text


@pytest.mark.parametrize(("text", "takes"), BAD.items())
def test_what_is_no_address_that_others_can_reach_is_refused(text: str, takes: str) -> None:
    with pytest.raises(InvalidError) as refused:
        check_address("addr", text)

    assert str(refused.value).startswith("addr is '")
    assert takes in str(refused.value)
    assert len(str(refused.value)) < 200
