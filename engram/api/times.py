"""Times on the wire: RFC 3339, in and out, as milliseconds since the Unix epoch inside."""

import re
from datetime import UTC, datetime, timedelta

from engram.errors import InvalidError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

RFC3339 = r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})$"
_shape = re.compile(RFC3339, re.ASCII)


def parse_time(field: str, text: str) -> int:
    """Return the milliseconds of an RFC 3339 time; what is finer than a millisecond is cut off.

    Raises:
        InvalidError: It is another notation, has no offset, or names a time that does not exist.
    """
    match = _shape.fullmatch(text)
    if match is None:
        raise InvalidError(f"{field} is {text[:64]!r}; it takes an RFC 3339 time such as '2026-05-01T09:30:00Z'")
    fraction, offset = match.groups()
    seconds = text[: match.end() - len(offset) - len(fraction or "")].upper().replace(" ", "T")
    try:
        moment = datetime.fromisoformat(seconds + ("+00:00" if offset in {"Z", "z"} else offset))
        since_epoch_ms = (moment - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        raise InvalidError(f"{field} is {text!r}; there is no such time") from None
    return since_epoch_ms + int(((fraction or ".0")[1:] + "00")[:3])


def format_time(at_ms: int) -> str:
    """Return `at_ms` as RFC 3339 in UTC, to the millisecond."""
    return (_EPOCH + at_ms * _MILLISECOND).isoformat(timespec="milliseconds")[:-6] + "Z"
