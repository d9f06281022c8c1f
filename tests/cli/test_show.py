import asyncio
import contextlib
import json
import sqlite3
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.data_folder import AT_MS, TEXT, DataFolder, conversation, deletion

ENTRIES = [*conversation("s1", 2), *conversation("s2", 1), deletion("s1")]
"""Log indexes 2 to 7, behind an empty entry."""


@pytest.fixture(autouse=True)
def _data(folder: DataFolder) -> None:
    asyncio.run(folder.write(ENTRIES))


def shown(run: Run, *options: str) -> list[dict[str, Any]]:
    result = run("log", "show", "--format", "json", *options)
    assert result.code == 0
    return [json.loads(line) for line in result.out.splitlines()]


def indexes(run: Run, *options: str) -> list[int]:
    return [line["index"] for line in shown(run, *options)]


def test_every_event_is_a_line_in_log_order(run: Run) -> None:
    lines = shown(run)

    assert [(line["index"], line["type"]) for line in lines] == [
        (1, "(empty)"),
        (2, "MessageAppended"),
        (2, "MessageEmbedded"),
        (3, "MessageAppended"),
        (3, "MessageEmbedded"),
        (4, "FactPinned"),
        (5, "MessageAppended"),
        (5, "MessageEmbedded"),
        (6, "FactPinned"),
        (7, "SessionDeleted"),
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--from", "6"], [6, 7]),
        (["--to", "2"], [1, 2, 2]),
        (["--from", "4", "--to", "5"], [4, 5, 5]),
        (["--session", "s1"], [2, 2, 3, 3, 4, 7]),
        (["--type", "FactPinned"], [4, 6]),
        (["--type", "FactPinned", "--session", "s2"], [6]),
        (["--limit", "3"], [1, 2, 2]),
        (["--session", "nobody"], []),
        (["--from", "100"], []),
    ],
)
def test_options_choose_what_is_shown(run: Run, options: list[str], expected: list[int]) -> None:
    assert indexes(run, *options) == expected


@pytest.mark.parametrize("form", ["table", "json"])
def test_texts_and_metadata_are_left_out_unless_asked_for(run: Run, form: str) -> None:
    private = ["third floor", "likes tea", "kitchen"]

    hidden = run("log", "show", "--format", form).out
    printed = run("log", "show", "--format", form, "--text").out

    assert not [text for text in private if text in hidden]
    assert [text for text in private if text in printed] == private


def test_what_is_left_out_is_measured(run: Run) -> None:
    (line,) = shown(run, "--type", "MessageAppended", "--limit", "1")

    assert line["text_characters"] == len(TEXT) + len(", says number 0")
    assert line["metadata_keys"] == 1


def test_vectors_are_shown_as_the_text_they_are_for(run: Run) -> None:
    (line,) = shown(run, "--type", "MessageEmbedded", "--limit", "1")

    assert line["chunks"] == [[0, len(TEXT) + len(", says number 0")]]


def test_a_table_has_a_row_for_each_event(run: Run) -> None:
    rows = run("log", "show", "--from", "7").out.splitlines()

    assert rows == ["       7    1 2023-11-14T22:13:20.000Z SessionDeleted    s1"]
    assert AT_MS == 1_700_000_000_000


def test_a_damaged_entry_ends_it_after_those_before(folder: DataFolder, run: Run) -> None:
    folder.alter(folder.log_path, b"says number 1", b"says numbed 1")

    result = run("log", "show", "--format", "json")

    assert result.code == 1
    assert "log entry 3" in result.err


def test_a_log_that_lost_its_state_is_not_shown_as_an_empty_one(folder: DataFolder, run: Run) -> None:
    with contextlib.closing(sqlite3.connect(folder.log_path)) as connection, connection:
        connection.execute("DELETE FROM state")

    result = run("log", "show")

    assert result.code == 1
    assert f"{folder.log_path}: the log's state row is missing" in result.err


def test_an_empty_file_is_not_shown_as_an_empty_log(folder: DataFolder, run: Run) -> None:
    folder.log_path.write_bytes(b"")

    result = run("log", "show")

    assert result.code == 1
    assert f"{folder.log_path}: the file has nothing in it" in result.err


def test_a_wrong_number_is_explained_in_words(run: Run) -> None:
    assert "'x' is not a whole number of 1 or more" in run("log", "show", "--from", "x").err


@pytest.mark.parametrize("argv", [["--from", "0"], ["--limit", "x"], ["--type", "Nonsense"], ["--format", "xml"]])
def test_a_wrong_option_is_explained(run: Run, argv: list[str]) -> None:
    result = run("log", "show", *argv)

    assert result.code == 2
    assert argv[0] in result.err
