"""Times that a query names, as spans of milliseconds: "in March", "7 May 2023", "3 days ago", "past two months".

The same in other languages: "am 7. Mai 2023", "il y a trois jours", "la semana pasada". They are read relative to a given moment, in UTC. A text that names no time gives no spans; what is no date
("30 February") is skipped. Nothing here fails and nothing here reads a clock.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from engram.recall import calendar_words
from engram.recall.calendar_words import MONTH_NUMBERS
from engram.recall.terms import MONTHS, WEEKDAYS

QUERY_CHARS_MAX = 4096
SPANS_MAX = 16
"""Times that are read out of one query."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.date()
_DAY_MS = 86_400_000


class Span(NamedTuple):
    """Milliseconds since the Unix epoch from `start_ms` up to, not including, `end_ms`."""

    start_ms: int
    end_ms: int


class _Days(NamedTuple):
    """Days from `first` to `last`, both included."""

    first: date
    last: date


_NUMBER_WORDS = "one two three four five six seven eight nine ten"
_NUMBERS = {word: value for value, word in enumerate(_NUMBER_WORDS.split(), start=1)}
_NUMBERS |= {"a": 1, "an": 1, "a couple of": 2, "couple of": 2, "a few": 3, "few": 3, "several": 4}
_COUNT = rf"(?P<count>\d{{1,4}}|{'|'.join(sorted(_NUMBERS, key=len, reverse=True))})"
_SHORT = "jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec"
_ENGLISH_MONTH = rf"(?P<month>{'|'.join(MONTHS)}|{_SHORT})\b\.?"
_NAMES = "|".join(sorted({*MONTHS, *MONTH_NUMBERS}))
_MONTH = rf"(?P<month>{_NAMES}|{_SHORT})\b\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th|er|\.)?"
_YEAR = r"(?P<year>(?:19|20)\d\d)\b"
_UNIT = r"(?P<unit>day|week|month|year)"
_UNIT_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}


def spans(query: str, now_ms: int) -> list[Span]:
    """Return the spans of time that `query` names, seen from `now_ms`; none for a moment no calendar holds."""
    try:
        today = (_EPOCH + timedelta(milliseconds=now_ms)).date()
    except OverflowError:
        return []
    rest = query[:QUERY_CHARS_MAX].lower()
    found: list[Span] = []
    if not _HINT.search(rest):
        return found
    for pattern, read in _READERS:
        matches = list(pattern.finditer(rest))
        found += [_span(days) for days in (_read(read, match, today) for match in matches) if days is not None]
        if matches:
            # What one pattern has read, a coarser one must not read again: "7 may 2023" is not also "in 2023".
            rest = pattern.sub(" ; ", rest)
    return found[:SPANS_MAX]


def _read(read: Callable[[re.Match[str], date], _Days | None], match: re.Match[str], today: date) -> _Days | None:
    try:
        return read(match, today)
    except (ValueError, OverflowError):
        return None


def _span(days: _Days) -> Span:
    first, last = (days.first - _EPOCH_DAY).days, (days.last - _EPOCH_DAY).days
    return Span(first * _DAY_MS, (last + 1) * _DAY_MS)


def _month_number(match: re.Match[str]) -> int:
    name = match["month"]
    known = MONTH_NUMBERS.get(name)
    if known is not None:
        return known
    return next(number for number, month in enumerate(MONTHS, start=1) if month.startswith(name[:3]))


def _calendar_month(year: int, month: int) -> _Days:
    first = date(year, month, 1)
    following = date(year + month // 12, month % 12 + 1, 1)
    return _Days(first, following - timedelta(days=1))


def _iso_day(match: re.Match[str], _today: date) -> _Days:
    day = date.fromisoformat(match.group())
    return _Days(day, day)


def _day_of_month(match: re.Match[str], today: date) -> _Days:
    """A day, with its year, or the latest one that is not in the future."""
    month, number = _month_number(match), int(match["day"])
    if match["year"]:
        day = date(int(match["year"]), month, number)
    else:
        day = date(today.year, month, number)
        day = day if day <= today else date(today.year - 1, month, number)
    return _Days(day, day)


def _month_of_year(match: re.Match[str], _today: date) -> _Days:
    return _calendar_month(int(match["year"]), _month_number(match))


def _latest_month(match: re.Match[str], today: date) -> _Days:
    month = _month_number(match)
    return _calendar_month(today.year if month <= today.month else today.year - 1, month)


def _year(match: re.Match[str], _today: date) -> _Days:
    year = int(match["year"])
    return _Days(date(year, 1, 1), date(year, 12, 31))


def _quantity(match: re.Match[str]) -> int:
    count = match["count"]
    return int(count) if count.isdigit() else _NUMBERS.get(count) or calendar_words.NUMBERS[count]


def _unit(match: re.Match[str]) -> str:
    """Return day, week, month or year."""
    unit = match["unit"]
    return calendar_words.UNITS.get(unit, unit)


def _ago(match: re.Match[str], today: date) -> _Days:
    """A day for days; for larger units half of one around it, since nobody counts them exactly."""
    unit_days = _UNIT_DAYS[_unit(match)]
    day = today - timedelta(days=_quantity(match) * unit_days)
    slack = timedelta(days=unit_days // 2)
    return _Days(day - slack, min(day + slack, today))


def _past(match: re.Match[str], today: date) -> _Days:
    count = _quantity(match) if match["count"] else 1
    return _Days(today - timedelta(days=count * _UNIT_DAYS[match["unit"]]), today)


def _last_unit(match: re.Match[str], today: date) -> _Days | None:
    """The calendar's week, month or year before this one; a day is none."""
    unit = _unit(match)
    if unit == "day":
        return None
    if unit == "week":
        monday = today - timedelta(days=today.weekday() + 7)
        return _Days(monday, monday + timedelta(days=6))
    if unit == "month":
        return _calendar_month(today.year - (today.month == 1), (today.month - 2) % 12 + 1)
    return _Days(date(today.year - 1, 1, 1), date(today.year - 1, 12, 31))


def _this_unit(match: re.Match[str], today: date) -> _Days:
    if match["unit"] == "week":
        return _Days(today - timedelta(days=today.weekday()), today)
    return _Days(today.replace(day=1) if match["unit"] == "month" else date(today.year, 1, 1), today)


def _weekday(match: re.Match[str], today: date) -> _Days:
    """The latest such day before today."""
    back = (today.weekday() - WEEKDAYS.index(match["weekday"]) - 1) % 7 + 1
    day = today - timedelta(days=back)
    return _Days(day, day)


def _weekend(_match: re.Match[str], today: date) -> _Days:
    """The latest Saturday and Sunday whose Saturday is before today."""
    saturday = today - timedelta(days=(today.weekday() - 6) % 7 + 1)
    return _Days(saturday, saturday + timedelta(days=1))


def _near_day(match: re.Match[str], today: date) -> _Days:
    day = today - timedelta(days=1 if match["word"] in _YESTERDAY else 0)
    return _Days(day, day)


_YESTERDAY = {"yesterday", *calendar_words.YESTERDAY.split()}
_NEAR_DAYS = "|".join(["today", "tonight", *sorted(_YESTERDAY), *calendar_words.TODAY.split()])

_HINT = re.compile(
    rf"\d|\b(?:ago|past|last|previous|this|weekend|{_NEAR_DAYS}|{'|'.join(WEEKDAYS)}|{'|'.join(month[:3] for month in MONTHS)}"
    rf"|{_NAMES}|{calendar_words.HINTS})"
)
"""Found in every query that one of the readers reads; most queries hold nothing of the kind."""

_READERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], date], _Days | None]], ...] = tuple(
    (re.compile(pattern), read)
    for pattern, read in (
        (r"\b(?:19|20)\d\d-\d\d-\d\d\b", _iso_day),
        (rf"\b{_DAY}(?: of| de)? {_MONTH}(?:,?(?: de)? {_YEAR})?", _day_of_month),
        (rf"\b{_MONTH} {_DAY}\b(?:,? {_YEAR})?", _day_of_month),
        (rf"\b{_MONTH}(?:,| of| de)? {_YEAR}", _month_of_year),
        (rf"\b(?:in|during|since|of|last|this|by|until) (?:early |late |mid-?)?{_ENGLISH_MONTH}", _latest_month),
        (rf"\b{calendar_words.IN_MONTH} {_MONTH}", _latest_month),
        (calendar_words.AGO, _ago),
        (calendar_words.AGO_BEHIND, _ago),
        (calendar_words.LAST, _last_unit),
        (calendar_words.LAST_BEHIND, _last_unit),
        (rf"\b{_COUNT} {_UNIT}s? ago\b", _ago),
        (rf"\b(?:past|last|previous) {_COUNT} {_UNIT}s?\b", _past),
        (r"\bpast (?:(?P<count>a) )?(?P<unit>day|week|month|year)\b", _past),
        (r"\b(?:last|previous) (?P<unit>week|month|year)\b", _last_unit),
        (r"\bthis (?P<unit>week|month|year)\b", _this_unit),
        (rf"\b(?:last|past|on|this) (?P<weekday>{'|'.join(WEEKDAYS)})\b", _weekday),
        (r"\b(?:last|past|this|over the) weekend\b", _weekend),
        (rf"\b(?P<word>{_NEAR_DAYS})\b", _near_day),
        (rf"\b(?:in|during|since|of) {_YEAR}", _year),
    )
)
"""Finer patterns first."""
