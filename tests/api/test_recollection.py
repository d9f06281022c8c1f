from typing import Any

import pytest
from aiohttp import ClientSession

SEARCH = "/sessions/s1/search"


@pytest.fixture(autouse=True)
async def told(http: ClientSession) -> None:
    """Ann's two sessions, and one of somebody else."""
    for session, user in (("s1", "ann"), ("s2", "ann"), ("s3", "bob")):
        await http.post("/sessions", json={"session_id": session, "user_id": user})
    for session, role, content, day in (
        ("s1", "user", "my cat is called Tom", "2026-04-01"),
        ("s1", "assistant", "Tom is a good name for a cat", "2026-04-02"),
        ("s2", "user", "the cat was ill", "2026-04-03"),
        ("s3", "user", "a cat of mine", "2026-04-04"),
    ):
        message = {"role": role, "content": content, "timestamp": f"{day}T12:00:00Z", "metadata": {"day": day}}
        await http.post(f"/sessions/{session}/messages", json=message)


async def found(http: ClientSession, **asked: Any) -> list[Any]:
    answer = await http.post(SEARCH, json={"query": "cat", "top_k": 10} | asked)
    assert answer.status == 200
    return list((await answer.json())["results"])


async def test_hits_say_what_they_are_and_where_they_come_from(http: ClientSession) -> None:
    [hit, _] = await found(http, query="called cat")

    assert hit == {
        "text": "my cat is called Tom",
        "score": hit["score"],
        "id": hit["id"],
        "session_id": "s1",
        "role": "user",
        "timestamp": "2026-04-01T12:00:00.000Z",
        "index": 4,
    }
    assert 0 < hit["score"] < 1


async def test_an_unknown_session_has_no_hits(http: ClientSession) -> None:
    answer = await http.post("/sessions/nobody/search", json={"query": "cat", "top_k": 10})

    assert (answer.status, await answer.json()) == (200, {"results": []})


@pytest.mark.parametrize(
    ("asked", "sessions"),
    [
        ({}, ["s1", "s1"]),
        ({"scope": "session"}, ["s1", "s1"]),
        ({"scope": "user"}, ["s1", "s1", "s2"]),
        ({"scope": "agent"}, ["s1", "s1"]),
        ({"scope": "user", "top_k": 1}, ["s2"]),
        ({"scope": "user", "filter": {"roles": ["assistant"]}}, ["s1"]),
        ({"scope": "user", "filter": {"since": "2026-04-02T12:00:00Z"}}, ["s1", "s2"]),
        ({"scope": "user", "filter": {"until": "2026-04-02T12:00:00Z"}}, ["s1"]),
        ({"scope": "user", "filter": {"metadata": {"day": "2026-04-03"}}, "top_k": 1}, ["s2"]),
        ({"scope": "user", "filter": {"metadata": {"nothing": None}}}, []),
        ({"scope": "user", "filter": {"eq": {"session_id": "s2"}}}, ["s2"]),
        ({"scope": "user", "filter": {"ne": {"metadata.day": "2026-04-03"}}}, ["s1", "s1"]),
        ({"scope": "user", "filter": {"not": {"eq": {"role": "user"}}}}, ["s1"]),
        ({"scope": "user", "filter": {"or": [{"eq": {"session_id": "s2"}}, {"roles": ["assistant"]}]}}, ["s1", "s2"]),
        ({"scope": "user", "filter": {"gt": {"timestamp": "2026-04-02T12:00:00Z"}}}, ["s2"]),
        ({"scope": "user", "filter": {"gte": {"timestamp": 1775131200000}}}, ["s1", "s2"]),
        ({"scope": "user", "filter": {"after": "2026-04-01T12:00:00Z", "before": "2026-04-03T12:00:00Z"}}, ["s1"]),
        ({"scope": "user", "filter": {"in": {"metadata.day": ["2026-04-01", "2026-04-03"]}}}, ["s1", "s2"]),
        ({"scope": "user", "filter": {"contains": {"metadata.day": "04-03"}}}, ["s2"]),
        ({"scope": "user", "filter": {"lt": {"metadata.day": "2026-04-02"}}}, ["s1"]),
        ({"scope": "user", "filter": {"eq": {"user_id": "ann"}}}, ["s1", "s1", "s2"]),
        ({"scope": "user", "filter": {"eq": {"agent_id": None, "name": None}}}, ["s1", "s1", "s2"]),
        ({"scope": "user", "filter": {}}, ["s1", "s1", "s2"]),
        ({"scope": "user", "filter": {"and": [{}]}}, ["s1", "s1", "s2"]),
        ({"scope": "user", "filter": {"not": {}}}, []),
        ({"min_score": 1.0}, []),
    ],
)
async def test_scope_and_filter_say_which_hits_count(
    http: ClientSession, asked: dict[str, Any], sessions: list[str]
) -> None:
    assert sorted(hit["session_id"] for hit in await found(http, **asked)) == sessions


async def test_hits_are_explained_when_asked_for(http: ClientSession) -> None:
    hits = await found(http, explain=True)

    assert [hit["explain"]["rank"] for hit in hits] == [1, 2]
    for explained in (hit["explain"] for hit in hits):
        assert -1 <= explained["similarity"] <= 1
        assert {"row", "reply", "episode"} <= explained["evidence"].keys()
        assert {"lexical", "dense"} <= explained["lifts"].keys()
        assert explained["total"] == pytest.approx(sum(explained["lifts"].values()), abs=1e-4)
    assert not any("explain" in hit for hit in await found(http))


async def test_an_explained_search_says_what_became_of_the_rest_of_the_scope(http: ClientSession) -> None:
    asked = {"query": "cat", "top_k": 1, "scope": "user", "filter": {"roles": ["user"]}, "explain": True}

    told = (await (await http.post(SEARCH, json=asked)).json())["explain"]

    assert told.pop("took_ms").keys() == {"load", "filter", "rank", "fetch"}
    assert told == {"sessions": 2, "messages": 3, "filtered_out": 1, "beyond_top_k": 1, "below_min_score": 0}


async def test_a_context_is_within_its_budget_and_says_what_it_holds(http: ClientSession) -> None:
    await http.put("/sessions/s1/core-memory", json={"fact": "likes animals"})

    answer = await http.get("/sessions/s1/context", params={"max_tokens": "100", "query": "cat", "explain": "true"})

    context = await answer.json()
    assert answer.status == 200
    assert context["context"].startswith("Core memories:\n- likes animals\n\nConversation:\nuser: my cat")
    assert context["tokens"] <= context["max_tokens"] == 100
    assert answer.headers["Engram-Index"] == str(context["index"]) == "8"
    assert {section["name"] for section in context["sections"]} >= {"core", "memories", "conversation"}


async def test_a_budget_of_nothing_gives_nothing(http: ClientSession) -> None:
    answer = await http.get("/sessions/s1/context", params={"max_tokens": "0"})

    assert (await answer.json())["context"] == ""


@pytest.mark.parametrize("form", ["openai", "anthropic"])
async def test_a_context_comes_ready_to_send(http: ClientSession, form: str) -> None:
    answer = await http.get("/sessions/s1/context", params={"format": form})

    assert [turn["role"] for turn in (await answer.json())["messages"]][-2:] == ["user", "assistant"]


async def test_memories_carry_their_numbers_only_when_asked(http: ClientSession) -> None:
    async def memories(**query: str) -> list[Any]:
        answer = await http.get("/sessions/s1/context", params={"scope": "user", "query": "ill", **query})
        [items] = [part["items"] for part in (await answer.json())["sections"] if part["name"] == "memories"]
        return list(items)

    [plain], [explained] = await memories(), await memories(explain="true")
    assert explained.keys() - plain.keys() == {"score", "similarity"}


async def test_a_context_is_explained_when_asked_for(http: ClientSession) -> None:
    query = {"scope": "user", "query": "ill", "long_term_top_k": "1", "max_tokens": "60"}

    told = (await (await http.get("/sessions/s1/context", params=query | {"explain": "true"})).json())["explain"]

    outcomes = [each["outcome"] for each in told["candidates"]]
    assert outcomes[0] == "memory"
    assert set(outcomes[1:]) <= {"conversation"}
    assert told["query"] == "ill"
    assert told["candidates"][0]["search"]["rank"] == 1
    assert told["search"]["messages"] == 3
    assert "explain" not in await (await http.get("/sessions/s1/context", params=query)).json()


async def test_the_context_of_an_unknown_session_is_404(http: ClientSession) -> None:
    answer = await http.get("/sessions/nobody/context")

    assert (answer.status, (await answer.json())["code"]) == (404, "session_not_found")


async def test_contexts_are_counted(http: ClientSession) -> None:
    await http.get("/sessions/s1/context")

    shown = await (await http.get("/metrics")).text()
    assert "engram_memory_context_requests_total 1.0" in shown
    assert "engram_context_duration_seconds_count 1.0" in shown


async def test_a_filter_tells_a_label_that_is_true_from_one_that_is_one(http: ClientSession) -> None:
    for message_id, label in (("yes", True), ("no", False), ("one", 1), ("one-point", 1.0), ("zero", 0), ("text", "1")):
        message = {"id": message_id, "role": "user", "content": f"a cat, {message_id}", "metadata": {"label": label}}
        await http.post("/sessions/s1/messages", json=message)

    for label, expected in ((True, {"yes"}), (False, {"no"}), (1, {"one", "one-point"}), (0, {"zero"})):
        hits = await found(http, filter={"metadata": {"label": label}})
        assert {hit["id"] for hit in hits} == expected, label
