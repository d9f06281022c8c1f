"""A filter on the wire becomes a condition, or an error that says where it is wrong."""

from typing import Any

import pytest
from aiohttp import ClientSession

WRONG: list[tuple[Any, str]] = [
    ({"and": [{"eq": {"role": "user"}}, {"gt": {"timestamp": "x"}}]}, "filter.and[1].gt['timestamp'] is 'x'; it takes"),
    (
        {"and": [{}, {"or": [{"not": {"lt": {"timestamp": True}}}]}]},
        "filter.and[1].or[0].not.lt['timestamp'] is true; i",
    ),
    ({"gt": {"timestamp": 1.5}}, "filter.gt['timestamp'] is 1.5; it takes an RFC 3339 time, or whole milliseconds"),
    ({"gt": {"timestamp": 10**18}}, "filter.gt['timestamp'] is 1000000000000000000; it takes an RFC 3339 time"),
    ({"gt": {"metadata.n": None}}, "filter.gt['metadata.n'] is null; it takes a string or a number"),
    ({"gt": {"name": 3}}, "filter.gt['name'] is 3; it takes a string"),
    ({"eq": {"role": "boss"}}, "filter.eq['role'] is 'boss'; it takes 'user' or"),
    ({"eq": {"session_id": None}}, "filter.eq['session_id'] is null; it takes a string"),
    (
        {"eq": {"colour": "red"}},
        "filter.eq['colour'] is no field; it takes role, name, timestamp, agent_id, user_id, se",
    ),
    ({"eq": {"metadata.": "red"}}, "filter.eq['metadata.'] is no field"),
    (
        {"eq": {"metadata.a": [1]}},
        "filter.eq['metadata.a'] is an array; it takes a string, a number, true, false or nul",
    ),
    ({"eq": 3}, "filter.eq is 3; it takes an object"),
    (
        {"equals": {}},
        "filter.equals is unknown; it takes and, or, not, eq, ne, gt, gte, lt, lte, in, contains, after, ",
    ),
    ({"or": [{"nope": 1}]}, "filter.or[0].nope is unknown; it takes and, or"),
    ({"or": []}, "filter.or has 0 items; it takes 1 to 64"),
    ({"and": {}}, "filter.and is an object; it takes an array"),
    ({"in": {"role": "user"}}, "filter.in['role'] is 'user'; it takes an array"),
    ({"in": {"metadata.n": []}}, "filter.in['metadata.n'] has 0 items; it takes 1 to 100"),
    ({"in": {"metadata.n": [0] * 101}}, "filter.in['metadata.n'] has 101 items; it takes 1 to 100"),
    ({"in": {"role": ["user", 4]}}, "filter.in['role'][1] is 4; it takes a string"),
    ({"contains": {"name": 4}}, "filter.contains['name'] is 4; it takes a string"),
    ({"contains": {"timestamp": "2026"}}, "filter.contains['timestamp'] cannot be: a timestamp is no text"),
    ({"eq": {"metadata.a": "x" * 16_385}}, "filter.eq['metadata.a'] has 16385 characters; the limit is 16384"),
    ({"after": "yesterday"}, "filter.after is 'yesterday'; it takes an RFC 3339 time"),
    ({"not": {"before": "2026-02-30T00:00:00Z"}}, "filter.not.before is '2026-02-30T00:00:00Z'; there is no such time"),
    (
        {"and": [{"eq": {"role": "user"}}] * 40 + [{"or": [{"eq": {"role": "user"}}] * 25}]},
        "filter.and[40].or[24] is wh",
    ),
]


def nested(depth: int) -> Any:
    inner: Any = {"eq": {"role": "user"}}
    for _ in range(depth - 1):
        inner = {"not": inner}
    return inner


async def refusal(http: ClientSession, wanted: Any) -> tuple[int, str, str]:
    answer = await http.post("/sessions/s1/search", json={"query": "cat", "top_k": 10, "filter": wanted})
    said = await answer.json()
    return answer.status, said.get("code", ""), said.get("detail", "")


@pytest.mark.parametrize(("wanted", "detail"), WRONG)
async def test_a_wrong_filter_is_an_error_that_points_at_the_place(
    http: ClientSession, wanted: Any, detail: str
) -> None:
    status, code, said = await refusal(http, wanted)

    assert (status, code) == (400, "invalid_value")
    assert said.startswith(detail)


async def test_filters_inside_one_another_have_a_limit(http: ClientSession) -> None:
    assert (await refusal(http, nested(8)))[0] == 200
    status, _, said = await refusal(http, nested(9))

    assert status == 400
    assert said == f"filter{'.not' * 8} is 9 filters deep; the limit is 8"


@pytest.mark.parametrize("depth", [200, 400, 100_000])
async def test_a_filter_of_any_depth_is_refused(http: ClientSession, depth: int) -> None:
    body = b'{"query": "cat", "top_k": 1, "filter": ' + b'{"not": ' * depth + b'{"x": 1}' + b"}" * depth + b"}"

    answer = await http.post("/sessions/s1/search", data=body, headers={"Content-Type": "application/json"})

    assert answer.status == 400
    assert (await answer.json())["code"] in {"invalid_value", "malformed_json"}
