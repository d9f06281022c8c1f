import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import pytest

from engram.events import Event, FactPinned, FactUnpinned, MessageAppended, MessageDeleted, SessionDeleted, encode
from engram.log.consensus.types import Entry
from engram.projections.sqlite_store import PrimaryStore
from tests.cli.conftest import Run
from tests.cli.data_folder import AT_MS, DataFolder, conversation, deletion, message

DAY_MS = 86_400_000


def said(number: int, session_id: str = "s1") -> list[Event]:
    """Return an entry of one message without vectors, on a day of its own."""
    at_ms = AT_MS + number * DAY_MS
    text = f"secret number {number}"
    return [
        MessageAppended(session_id=session_id, at_ms=at_ms, message_id=f"m{number}", role="user", text=text, tokens=3)
    ]


def left(folder: DataFolder) -> list[Path]:
    return list(folder.path.glob(".*"))


async def digest_of(folder: Path, entries: Sequence[Sequence[Event]]) -> dict[str, str]:
    """Return the digests of a plain fold."""
    store = await PrimaryStore.open(folder / "plain.db")
    rows = [Entry(term=1, index=1)]
    rows += [Entry(term=1, index=index, data=encode(events)) for index, events in enumerate(entries, 2)]
    await store.apply(rows)
    try:
        return await store.digest()
    finally:
        await store.close()


def test_the_state_at_an_index_is_that_of_a_fold_up_to_it(folder: DataFolder, run: Run, tmp_path: Path) -> None:
    entries = [*conversation(), *conversation("s2")]
    asyncio.run(folder.write(entries))

    result = run("replay", "--to", "6", "--json")

    state = json.loads(result.out)
    assert state["index"] == 6
    assert state["digests"] == asyncio.run(digest_of(tmp_path, entries[:5]))
    assert [(each["session_id"], each["counts"]["messages"]) for each in state["sessions"]] == [("s1", 3), ("s2", 1)]
    assert left(folder) == []


def test_sessions_are_a_table_for_people(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write([*conversation(), *conversation("s2")]))

    result = run("replay", "--to", "6")

    assert result.code == 0
    assert "entry 6 (2023-11-14T22:13:20.000Z)" in result.out
    assert re.search(r"^ +2 +3 +1 +27 \S+ s1$", result.out, re.MULTILINE)
    assert "2 sessions, 4 messages, 1 facts" in result.out
    assert result.out.count("digest of") == 7


def test_a_session_is_shown_with_the_entries_it_comes_from(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))

    result = run("replay", "--to", "5", "--session", "s1")

    lines = result.out.splitlines()
    assert lines[1].startswith("session s1: private, made 2023-11-14")
    assert "       5 2023-11-14T22:13:20.000Z fact f1: likes tea" in lines
    assert any(line.startswith("       2 ") and "user m0: the coffee machine" in line for line in lines)


def test_a_session_is_shown_to_programs(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write(conversation()))

    state = json.loads(run("replay", "--to", "3", "--session", "s1", "--json").out)

    assert [each["index"] for each in state["messages"]] == [2, 3]
    assert state["facts"] == []


def test_a_time_stands_for_the_last_entry_before_a_later_one(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write([said(1), said(2), said(3)]))

    assert json.loads(run("replay", "--to", "2023-11-16T22:13:20Z", "--json").out)["index"] == 3
    assert json.loads(run("replay", "--to", "2033-01-01T00:00:00Z", "--json").out)["index"] == 4


@pytest.mark.parametrize(
    ("to", "said_of_it"),
    [
        ("99", "--to is 99; the log goes from entry 1 to entry 3"),
        ("0", "the log goes from entry 1"),
        ("2001-01-01T00:00:00Z", "the first event in the log is of 2023-11-15T22:13:20.000Z"),
        ("yesterday", "it takes a log index, or an RFC 3339 time"),
    ],
)
def test_a_moment_that_is_not_in_the_log_is_refused(folder: DataFolder, run: Run, to: str, said_of_it: str) -> None:
    asyncio.run(folder.write([said(1), said(2)]))

    result = run("replay", "--to", to)

    assert result.code == 1
    assert said_of_it in result.err
    assert left(folder) == []


def test_an_unknown_session_is_refused_with_the_index(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write([said(1), said(2, "s2")]))

    result = run("replay", "--to", "2", "--session", "s2")

    assert result.code == 1
    assert "session 's2' is unknown as of log entry 2: not there yet, or forgotten since" in result.err


def test_what_is_forgotten_but_not_erased_yet_does_not_come_back(folder: DataFolder, run: Run) -> None:
    gone = MessageDeleted(session_id="s1", at_ms=AT_MS + 9 * DAY_MS, message_id="m1")
    asyncio.run(folder.write([said(1), said(2), [gone], said(5, "s2"), deletion("s2")]))

    state = json.loads(run("replay", "--to", "3", "--session", "s1", "--json").out)
    other = run("replay", "--to", "5", "--session", "s2")

    assert [each["content"] for each in state["messages"]] == ["secret number 2"]
    assert other.code == 1


def test_a_fact_that_is_forgotten_is_not_brought_back_by_its_duplicate(folder: DataFolder, run: Run) -> None:
    def pinned(fact_id: str) -> list[Event]:
        return [FactPinned(session_id="s1", at_ms=AT_MS, fact_id=fact_id, text="likes tea", tokens=2)]

    gone = FactUnpinned(session_id="s1", at_ms=AT_MS, fact_id="f1")
    asyncio.run(folder.write([said(1), pinned("f1"), pinned("f2"), [gone]]))

    assert json.loads(run("replay", "--to", "4", "--session", "s1", "--json").out)["facts"] == []


@pytest.mark.parametrize(
    ("before", "left"),
    [
        ([("f1", "likes tea"), ("f1", None), ("f2", "likes tea"), ("f1", "likes gin")], ["likes tea"]),  # an older life
        ([("f1", "likes gin"), ("f1", "likes tea"), ("f2", "likes tea")], ["likes tea"]),  # a conflict
        ([("f9", "likes tea"), ("f1", "likes tea"), ("f1", "likes gin"), ("f2", "likes gin")], ["likes tea"]),
    ],
)
def test_an_id_that_has_named_several_texts_takes_only_the_one_it_names(
    folder: DataFolder, run: Run, before: Sequence[tuple[str, str | None]], left: Sequence[str]
) -> None:
    def change(fact_id: str, text: str | None) -> list[Event]:
        if text is None:
            return [FactUnpinned(session_id="s1", at_ms=AT_MS, fact_id=fact_id)]
        return [FactPinned(session_id="s1", at_ms=AT_MS, fact_id=fact_id, text=text, tokens=2)]

    asyncio.run(folder.write([said(1), *(change(*each) for each in before), change("f1", None)]))

    result = run("replay", "--to", str(1 + len(before) + 1), "--session", "s1", "--json")

    assert [each["fact"] for each in json.loads(result.out)["facts"]] == left


def test_an_id_that_is_used_again_is_there_afterwards(folder: DataFolder, run: Run) -> None:
    gone = SessionDeleted(session_id="s1", at_ms=AT_MS)
    asyncio.run(folder.write([said(1), [gone], said(2)]))

    state = json.loads(run("replay", "--to", "4", "--session", "s1", "--json").out)

    assert [each["id"] for each in state["messages"]] == ["m2"]


def test_a_backup_can_be_looked_into(folder: DataFolder, run: Run, tmp_path: Path) -> None:
    asyncio.run(folder.write([said(1), said(2)]))
    backup = tmp_path / "a.backup"
    assert run("backup", str(backup)).code == 0

    result = run("replay", "--to", "2", "--session", "s1", "--backup", str(backup))

    assert "secret number 1" in result.out
    assert "secret number 2" not in result.out
    assert list(tmp_path.glob(".replay-*")) == []


def test_without_a_log_there_is_nothing_to_replay(folder: DataFolder, run: Run) -> None:
    result = run("replay", "--to", "1")

    assert result.code == 2
    assert f"there is no log at {folder.log_path}" in result.err


def test_serving_prints_nothing(folder: DataFolder, run: Run) -> None:
    asyncio.run(folder.write([said(1)]))

    result = run("replay", "--to", "2", "--serve", "--json")

    assert result.code == 2
    assert "--serve prints nothing" in result.err


async def test_the_past_is_served_and_cannot_be_written(folder: DataFolder) -> None:
    await folder.write([message("s1", "m1", "Ann moved to Oslo"), message("s1", "m2", "Ann moved to Rome")])
    command = (sys.executable, "-m", "engram", "replay", "--to", "2", "--serve")
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
    try:
        async with aiohttp.ClientSession(await _address(process)) as http:
            async with http.get("/sessions/s1/messages") as answer:
                listed = await answer.json()
            async with http.post("/sessions/s1/search", json={"query": "where is Ann", "top_k": 5}) as answer:
                found = await answer.json()
            async with http.get("/sessions/s1/context") as answer:
                context = await answer.json()
            async with http.post("/sessions/s1/messages", json={"role": "user", "content": "x"}) as answer:
                status, refused = answer.status, await answer.json()
    finally:
        process.send_signal(signal.SIGINT)
        code = await process.wait()

    assert [each["content"] for each in listed["messages"]] == ["Ann moved to Oslo"]
    assert [each["text"] for each in found["results"]] == ["Ann moved to Oslo"]
    assert "Oslo" in context["context"]
    assert context["index"] == 2
    assert (status, refused["code"]) == (403, "read_only")
    assert "as of entry 2" in refused["detail"]
    assert code == 0
    assert left(folder) == []


async def _address(process: asyncio.subprocess.Process) -> str:
    """Return where a replay says that it serves."""
    assert process.stderr is not None
    while line := (await process.stderr.readline()).decode():
        if found := re.search(r"http://\S+", line):
            return found.group()
    raise AssertionError("it has ended")
