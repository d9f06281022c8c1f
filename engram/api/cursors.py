"""Cursors: where a list goes on, opaque to the client and bound to the list it came from.

A cursor carries a position and a keyed digest over the position and the list's own parameters. The key is no
secret: the digest is there to catch cursors that were edited, cut, or used with another list, before they
silently give the wrong page.
"""

import binascii
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2s

from engram.errors import InvalidError

_POSITION = struct.Struct(">q")
_DIGEST_BYTES = 10
"""With the position 18 bytes: no padding in Base64, and nothing that a tampered one could hide in."""


def write_cursor(position: int, of: Sequence[object]) -> str:
    """Return the cursor that continues after `position` in the list with the parameters `of`."""
    packed = _POSITION.pack(position)
    return urlsafe_b64encode(packed + _digest(packed, of)).decode()


def read_cursor(cursor: str, of: Sequence[object]) -> int:
    """Return the position of a cursor.

    Raises:
        InvalidError: It was not made by `write_cursor` for the list with the parameters `of`.
    """
    try:
        data = urlsafe_b64decode(cursor.encode("ascii"))
    except (binascii.Error, ValueError):
        data = b""
    packed = data[: _POSITION.size]
    if (
        len(packed) < _POSITION.size
        or data[_POSITION.size :] != _digest(packed, of)
        or urlsafe_b64encode(data).decode() != cursor
    ):
        raise InvalidError("cursor was not given out for this list; start without one", code="invalid_cursor")
    position: int = _POSITION.unpack(packed)[0]
    return position


def _digest(packed: bytes, of: Sequence[object]) -> bytes:
    return blake2s(
        packed + repr(tuple(of)).encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES, key=b"engram cursor"
    ).digest()
