"""Arrays as one string of bytes and back, without a copy: how a sealed index lies on disk.

Layout: magic, version, CRC32C of the rest; length of the header, header (msgpack), arrays, each of the three at a
multiple of 8 bytes. Numbers are little-endian.
"""

import math
import struct
from collections.abc import Mapping
from typing import Any

import google_crc32c
import msgspec
import numpy as np
import numpy.typing as npt

MAGIC = b"EGRI"
VERSION = 3
"""Raised whenever old blobs must not be used any more: another layout, but also other terms for the same text."""

_PREFIX = struct.Struct("<4sII4x")
_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 8

Arrays = Mapping[str, npt.NDArray[Any]]


class BlobError(ValueError):
    """The bytes are damaged, or of another version. What they hold is derived: build it afresh."""


class _Layout(msgspec.Struct, frozen=True, array_like=True):
    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int


class _Header(msgspec.Struct, frozen=True, array_like=True):
    arrays: list[_Layout]
    names: list[str]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Header)


def pack(arrays: Arrays, names: list[str]) -> bytes:
    """Return the bytes of `arrays`, and of the strings that belong to them."""
    layouts, offset = [], 0
    for name, array in arrays.items():
        layouts.append(_Layout(name, array.dtype.str, array.shape, offset))
        offset += _padded(array.nbytes)
    header = _encoder.encode(_Header(layouts, names))
    parts = [_LENGTH.pack(len(header)), header, bytes(_padded(len(header)) - len(header))]
    for array in arrays.values():
        parts += [array.tobytes(), bytes(_padded(array.nbytes) - array.nbytes)]
    body = b"".join(parts)
    return _PREFIX.pack(MAGIC, VERSION, google_crc32c.value(body)) + body


def unpack(data: bytes) -> tuple[dict[str, npt.NDArray[Any]], list[str]]:
    """Return what `pack` was given; the arrays are read-only views of `data`.

    Raises:
        BlobError: `data` is not what `pack` of this version returned.
    """
    if len(data) < _PREFIX.size:
        raise BlobError(f"{len(data)} bytes are no recall index")
    magic, version, checksum = _PREFIX.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise BlobError(f"a recall index of version {version}, not {VERSION}")
    if google_crc32c.value(data[_PREFIX.size :]) != checksum:
        raise BlobError(f"a recall index of {len(data)} bytes fails its checksum")
    (header_bytes,) = _LENGTH.unpack_from(data, _PREFIX.size)
    first = _PREFIX.size + _LENGTH.size
    header = _decoder.decode(memoryview(data)[first : first + header_bytes])
    start = first + _padded(header_bytes)
    arrays = {}
    for layout in header.arrays:
        flat = np.frombuffer(data, layout.kind, math.prod(layout.shape), start + layout.offset)
        arrays[layout.name] = flat.reshape(layout.shape)
    return arrays, header.names


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
