import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.api.times import format_time, parse_time
from engram.commands import TIME_MS_MAX, TIME_MS_MIN
from engram.errors import InvalidError

ACCEPTED = [
    ("1970-01-01T00:00:00Z", 0),
    ("1970-01-01T00:00:00.001Z", 1),
    ("1970-01-01t00:00:00.1z", 100),
    ("1970-01-01 00:00:00.123456789Z", 123),
    ("1970-01-01T01:00:00+01:00", 0),
    ("1969-12-31T23:59:59.999Z", -1),
    ("2026-05-01T09:30:00-00:30", 1_777_629_600_000),
    ("9999-12-31T23:59:59.999Z", TIME_MS_MAX),
]
REFUSED = [
    "",
    "yesterday",
    "2026-05-01",
    "2026-05-01T09:30:00",
    "2026-05-01T09:30Z",
    "20260501T093000Z",
    "2026-13-01T09:30:00Z",
    "2026-02-30T09:30:00Z",
    "2026-05-01T25:00:00Z",
    "2026-05-01T09:30:00+99:00",
    "2026-05-01T09:30:00Z\n",
    "\uff12026-05-01T09:30:00Z",
    "0000-01-01T00:00:00Z",
    "1777629600000",
]


@pytest.mark.parametrize(("text", "at_ms"), ACCEPTED)
def test_rfc_3339_is_understood(text: str, at_ms: int) -> None:
    assert parse_time("now", text) == at_ms


@pytest.mark.parametrize("text", REFUSED)
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidError, match=r"^timestamp is "):
        parse_time("timestamp", text)


@given(st.integers(TIME_MS_MIN, TIME_MS_MAX))
def test_what_is_written_reads_back(at_ms: int) -> None:
    assert parse_time("now", format_time(at_ms)) == at_ms
