"""Request bodies: read once, within limits of size and time, and decoded straight into structs."""

import asyncio
import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import msgspec
from aiohttp import hdrs, web

from engram.api.errors import ExpectationError, MalformedError, MediaTypeError, SlowBodyError
from engram.api.explain import misfit
from engram.errors import InvalidError, TooLargeError

BODY_BYTES_MAX = 2 * 1024 * 1024
"""Room for a batch of long messages; what is larger is not a message but an import."""

BODY_DEADLINE_S = 10.0
"""From the head of a request to the last byte of its body: generous for 2 MiB, short for a client that holds on."""

JSON_TYPE = "application/json"

Body = TypeVar("Body")
Shape = Callable[[object], Any]
"""Says which type a body wants to be, judging by the decoded JSON."""

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_byte = re.compile(r"\(byte (\d+)\)")


async def read_json_bytes(request: web.BaseRequest, deadline_s: float) -> bytes:
    """Return the body of a request whose headers say that it is JSON.

    Raises:
        MediaTypeError, TooLargeError, SlowBodyError, MalformedError, ExpectationError.
    """
    if request.headers.get(hdrs.CONTENT_TYPE) != JSON_TYPE or hdrs.CONTENT_ENCODING in request.headers:
        check_media_type(request)
    return await read_bytes(request, deadline_s)


async def read_bytes(request: web.BaseRequest, deadline_s: float) -> bytes:
    """Return the body of a request, of any type."""
    length = request.content_length
    if length is not None and length > BODY_BYTES_MAX:
        raise TooLargeError("the body", size_bytes=length, limit_bytes=BODY_BYTES_MAX)
    if hdrs.EXPECT in request.headers:
        await meet_expectation(request)
    content = request.content
    try:
        if content.is_eof():
            data = content.read_nowait(-1)
        else:
            async with asyncio.timeout(deadline_s):
                data = await _read_chunks(content)
    except TimeoutError:
        raise SlowBodyError(f"the body did not arrive within {deadline_s:g} s") from None
    except (web.RequestPayloadError, web.PayloadAccessError):
        raise MalformedError("the body is not as long as its headers say", code="malformed_request") from None
    if len(data) > BODY_BYTES_MAX:
        raise TooLargeError("the body", size_bytes=len(data), limit_bytes=BODY_BYTES_MAX)
    return data


def check_media_type(request: web.BaseRequest) -> None:
    """Raise MediaTypeError unless the headers announce JSON in UTF-8, not compressed."""
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity")
    if encoding.lower() != "identity":
        raise MediaTypeError(f"Content-Encoding is {encoding[:64]!r}; bodies are taken as they are")
    said = request.headers.get(hdrs.CONTENT_TYPE)
    if said is None:
        raise MediaTypeError(f"Content-Type is missing; it takes {JSON_TYPE}")
    kind, *settings = (part.strip().lower() for part in said.split(";"))
    charsets = [text.partition("=")[2].strip('" ') for text in settings if text.startswith("charset")]
    if kind != JSON_TYPE or any(charset not in {"utf-8", "utf8"} for charset in charsets):
        raise MediaTypeError(f"Content-Type is {said[:64]!r}; it takes {JSON_TYPE} in UTF-8")


def decode_json(data: bytes, decoder: "msgspec.json.Decoder[Body]", shape: Shape | None = None) -> Body:
    """Return `data` decoded.

    `shape` says which type explains a misfit; without it that is the decoder's own.

    Raises:
        MalformedError: It is not JSON, or not in UTF-8.
        InvalidError: It is JSON of another shape. The message names the field, its value and what it takes.
    """
    try:
        if not data.isascii():
            data.decode()  # msgspec does not look into strings that it skips
        return decoder.decode(data)
    except msgspec.ValidationError:
        refuse(data, shape or (lambda _: decoder.type))
    except _UNREADABLE as error:
        raise _malformed(data, error) from None


def refuse(data: bytes, shape: Shape) -> NoReturn:
    """Raise the error that says why `data` does not decode into its shape."""
    try:
        value = msgspec.json.decode(data)
    except msgspec.ValidationError:
        raise InvalidError("a number in the body is out of range; it takes what fits 64 bits") from None
    except _UNREADABLE as error:
        raise _malformed(data, error) from None
    try:
        reason = misfit(value, shape(value))
    except RecursionError as error:
        raise _malformed(data, error) from None
    raise InvalidError(reason or "the body does not have the shape that this route takes") from None


def _malformed(data: bytes, error: Exception) -> MalformedError:
    if isinstance(error, RecursionError):
        return MalformedError("the body is nested too deeply", code="malformed_json")
    if isinstance(error, UnicodeDecodeError):
        return MalformedError(f"the body is not UTF-8 at byte {error.start}", code="malformed_json")
    return MalformedError(f"the body is not JSON: {_where(data, str(error))}", code="malformed_json")


async def _read_chunks(content: Any) -> bytes:
    chunks = bytearray()
    while chunk := await content.readany():
        chunks += chunk
        if len(chunks) > BODY_BYTES_MAX:
            break
    return bytes(chunks)


async def meet_expectation(request: web.BaseRequest) -> None:
    """Tell a client that waits for the word that its body is wanted."""
    if request.headers[hdrs.EXPECT].lower() != "100-continue":
        raise ExpectationError(f"Expect is {request.headers[hdrs.EXPECT][:64]!r}; only '100-continue' can be met")
    if not request.content.is_eof():
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


def _where(data: bytes, message: str) -> str:
    if not data:
        return "it is empty"
    match = _byte.search(message)
    return f"byte {match[1]} cannot stand there" if match else "it ends too early, or has a broken escape"
