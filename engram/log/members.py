"""Where the members of the cluster are: an address book that travels with the membership.

Each entry that changes the membership carries the members it adds or moves, as the context of its change, and each
snapshot the whole book. So a node that was added later is known to all, and a redirect finds it.
"""

from collections.abc import Mapping

import msgspec

from engram.errors import CorruptionError


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One member, as the cluster knows it."""

    address: str
    """host:port where other nodes reach its log."""
    http_address: str = ""
    """host:port where clients reach it; empty: not known."""
    store_id: str = ""
    """Of its disk. A node that comes with another disk has forgotten what it promised, and is not let in."""


Book = Mapping[int, Member]
"""Members by node id."""

NO_BOOK: Book = {}

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[int, Member])


def encode_book(book: Book) -> bytes:
    """Return `book` as bytes, empty for an empty one; the same for equal books."""
    return _encoder.encode(dict(sorted(book.items()))) if book else b""


def decode_book(data: bytes) -> dict[int, Member]:
    """Return the book that `encode_book` was given.

    Raises:
        CorruptionError: It cannot have been.
    """
    if not data:
        return {}
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptionError(f"undecodable address book of {len(data)} bytes: {error}") from error
