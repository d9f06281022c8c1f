"""The log lines: one form for people, one for machines, and nothing from libraries below a warning."""

import io
import logging
from collections.abc import Iterator

import msgspec
import pytest

from engram import logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Put the process's own logging back after each test."""
    root, ours = logging.getLogger(), logging.getLogger(logs.OURS)
    before = (list(root.handlers), root.level, ours.level)

    yield

    root.handlers[:], level, ours_level = before
    root.setLevel(level)
    ours.setLevel(ours_level)


def test_a_json_line_holds_the_fields_beside_the_message() -> None:
    stream = io.StringIO()
    logs.configure(level="info", form="json", stream=stream)

    logging.getLogger("engram.api").info("%d answered", 3, extra={"session_id": "s1", "bytes": 12, "path": {1, 2}})

    line = msgspec.json.decode(stream.getvalue())
    assert (line["level"], line["logger"], line["message"]) == ("info", "engram.api", "3 answered")
    assert (line["session_id"], line["bytes"], line["path"]) == ("s1", 12, [1, 2])
    assert line["time"].endswith("Z")
    assert stream.getvalue().count("\n") == 1


def test_a_field_cannot_pass_for_the_lines_own() -> None:
    stream = io.StringIO()
    logs.configure(level="info", form="json", stream=stream)

    logging.getLogger("engram.api").info("real", extra={"level": "critical", "time": "never"})

    assert msgspec.json.decode(stream.getvalue())["level"] == "info"


def test_a_pretty_line_stays_one_line_however_long() -> None:
    stream = io.StringIO()
    logs.configure(level="info", form="pretty", stream=stream)

    logging.getLogger("engram.node").warning("ready [bold]%s", "x" * 500, extra={"address": "127.0.0.1:3000"})

    line = stream.getvalue()
    assert line.count("\n") == 1
    assert "WARNING ready [bold]xxx" in line
    assert line.rstrip().endswith("address=127.0.0.1:3000")


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_an_exception_comes_with_its_traceback(form: str) -> None:
    stream = io.StringIO()
    logs.configure(level="info", form="json" if form == "json" else "pretty", stream=stream)

    try:
        raise KeyError("gone")  # noqa: TRY301
    except KeyError:
        logging.getLogger("engram.node").exception("stopped")

    assert "Traceback" in stream.getvalue()
    assert "KeyError: 'gone'" in stream.getvalue()


def test_the_level_is_ours_and_libraries_stay_quiet() -> None:
    stream = io.StringIO()
    logs.configure(level="debug", form="json", stream=stream)

    logging.getLogger("engram.log").debug("ours")
    logging.getLogger("aiosqlite").debug("executing insert ('my secret diary')")
    logging.getLogger("aiosqlite").warning("theirs")

    assert [msgspec.json.decode(line)["message"] for line in stream.getvalue().splitlines()] == ["ours", "theirs"]


def test_off_means_off_for_libraries_too() -> None:
    stream = io.StringIO()
    logs.configure(level="critical", form="pretty", stream=stream)

    logging.getLogger("engram.log").error("ours")
    logging.getLogger("aiosqlite").error("theirs")

    assert stream.getvalue() == ""


def test_configuring_again_replaces_what_was_there() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure(level="info", form="json", stream=first)
    logs.configure(level="info", form="json", stream=second)

    logging.getLogger("engram").info("once")

    assert (first.getvalue(), second.getvalue().count("once")) == ("", 1)
