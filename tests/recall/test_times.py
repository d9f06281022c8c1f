"""Times named in a query, seen from Thursday 18 May 2023."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.recall.calendar_words import MONTH_NUMBERS
from engram.recall.times import SPANS_MAX, Span, spans

NOW = datetime(2023, 5, 18, 12, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)


def days(query: str, now_ms: int = NOW_MS) -> list[tuple[str, str]]:
    """Return the first and last day of each span."""
    epoch = date(1970, 1, 1)
    return [
        (
            (epoch + timedelta(milliseconds=span.start_ms)).isoformat(),
            (epoch + timedelta(milliseconds=span.end_ms - 1)).isoformat(),
        )
        for span in spans(query, now_ms)
    ]


@pytest.mark.parametrize("may", ["mai", "mayo", "maio", "maggio", "mei", "maj"])
def test_may_is_the_fifth_month_everywhere(may: str) -> None:
    assert days(f"7 {may} 2022") == [("2022-05-07", "2022-05-07")]


@pytest.mark.parametrize(("name", "number"), MONTH_NUMBERS.items())
def test_each_month_is_read_with_its_year(name: str, number: int) -> None:
    [(first, _)] = days(f"{name} 2022")

    assert first == f"2022-{number:02d}-01"


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ("Was war am 7. März 2023?", "2023-03-07", "2023-03-07"),
        ("im Dezember", "2022-12-01", "2022-12-31"),
        ("gestern", "2023-05-17", "2023-05-17"),
        ("vor drei Tagen", "2023-05-15", "2023-05-15"),
        ("letzte Woche", "2023-05-08", "2023-05-14"),
        ("le 1er août 2022", "2022-08-01", "2022-08-01"),
        ("en février", "2023-02-01", "2023-02-28"),
        ("il y a 2 semaines", "2023-05-01", "2023-05-07"),
        ("l'année dernière", "2022-01-01", "2022-12-31"),
        ("el 7 de mayo de 2023", "2023-05-07", "2023-05-07"),
        ("en mayo de 2022", "2022-05-01", "2022-05-31"),
        ("hace tres días", "2023-05-15", "2023-05-15"),
        ("la semana pasada", "2023-05-08", "2023-05-14"),
        ("há 10 dias", "2023-05-08", "2023-05-08"),
        ("no mês passado", "2023-04-01", "2023-04-30"),
        ("tre giorni fa", "2023-05-15", "2023-05-15"),
        ("l'anno scorso", "2022-01-01", "2022-12-31"),
        ("drie dagen geleden", "2023-05-15", "2023-05-15"),
        ("vorige maand", "2023-04-01", "2023-04-30"),
        ("för tre dagar sedan", "2023-05-15", "2023-05-15"),
        ("förra året", "2022-01-01", "2022-12-31"),
    ],
)
def test_times_are_read_in_other_languages(query: str, first: str, last: str) -> None:
    assert days(query) == [(first, last)]


@pytest.mark.parametrize(
    "query", ["pictures of mars", "il n'a jamais dit ça", "hace frío", "vor dem Haus", "letzte Nacht", "letzter Tag"]
)
def test_what_only_looks_like_a_time_is_none(query: str) -> None:
    assert days(query) == []


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ("what happened on 2023-03-07?", "2023-03-07", "2023-03-07"),
        ("7 May 2023", "2023-05-07", "2023-05-07"),
        ("the 1st of June 2022", "2022-06-01", "2022-06-01"),
        ("on May 7th, 2023", "2023-05-07", "2023-05-07"),
        ("on Feb 3", "2023-02-03", "2023-02-03"),
        ("12 Dec", "2022-12-12", "2022-12-12"),
        ("in March", "2023-03-01", "2023-03-31"),
        ("in June", "2022-06-01", "2022-06-30"),
        ("in late December", "2022-12-01", "2022-12-31"),
        ("February 2024", "2024-02-01", "2024-02-29"),
        ("December 2022", "2022-12-01", "2022-12-31"),
        ("during 2021", "2021-01-01", "2021-12-31"),
        ("3 days ago", "2023-05-15", "2023-05-15"),
        ("a day ago", "2023-05-17", "2023-05-17"),
        ("two weeks ago", "2023-05-01", "2023-05-07"),
        ("a couple of weeks ago", "2023-05-01", "2023-05-07"),
        ("past two months", "2023-03-19", "2023-05-18"),
        ("in the last 10 days", "2023-05-08", "2023-05-18"),
        ("over the past week", "2023-05-11", "2023-05-18"),
        ("last week", "2023-05-08", "2023-05-14"),
        ("last month", "2023-04-01", "2023-04-30"),
        ("last year", "2022-01-01", "2022-12-31"),
        ("this week", "2023-05-15", "2023-05-18"),
        ("this month", "2023-05-01", "2023-05-18"),
        ("this year", "2023-01-01", "2023-05-18"),
        ("last Saturday", "2023-05-13", "2023-05-13"),
        ("last Thursday", "2023-05-11", "2023-05-11"),
        ("on Wednesday", "2023-05-17", "2023-05-17"),
        ("last weekend", "2023-05-13", "2023-05-14"),
        ("today", "2023-05-18", "2023-05-18"),
        ("YESTERDAY", "2023-05-17", "2023-05-17"),
    ],
)
def test_a_query_names_a_time(query: str, first: str, last: str) -> None:
    assert days(query) == [(first, last)]


@pytest.mark.parametrize(
    "query", ["", "what may I do", "30 February", "2023-02-31", "40 March", "march on", "99 bottles"]
)
def test_a_query_names_no_time(query: str) -> None:
    assert days(query) == []


def test_a_query_may_name_several_times() -> None:
    assert days("between 1 March 2023 and 3 April 2023") == [
        ("2023-03-01", "2023-03-01"),
        ("2023-04-03", "2023-04-03"),
    ]


def test_last_month_in_january_was_in_another_year() -> None:
    january = int(datetime(2023, 1, 5, tzinfo=UTC).timestamp() * 1000)

    assert days("last month", january) == [("2022-12-01", "2022-12-31")]


def test_a_span_ends_where_the_next_day_starts() -> None:
    assert spans("1970-01-02", NOW_MS) == [Span(86_400_000, 2 * 86_400_000)]


def test_a_long_list_of_dates_is_cut() -> None:
    assert len(spans(" ".join(["2023-03-07"] * 1000), NOW_MS)) == SPANS_MAX


def test_before_the_calendar_there_is_no_time() -> None:
    assert spans("yesterday", 10**18) == []
    assert spans("9999 years ago", NOW_MS) == []


@given(st.text(alphabet="0123456789 -,aegiklmnorstuvwyMaydlstghonjf"), st.integers(-(2**63), 2**63))
def test_no_text_and_no_moment_fails(text: str, now_ms: int) -> None:
    assert all(span.start_ms < span.end_ms for span in spans(text, now_ms))
