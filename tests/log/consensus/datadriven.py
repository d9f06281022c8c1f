"""Reads the text scripts of etcd/raft, and compares what they expect with what happens."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

TESTDATA = Path(__file__).parents[3] / ".." / "shared" / "raft-testdata"

_LOG_LINE = re.compile(r"\s*(DEBUG|INFO|WARN|ERROR|FATAL)\b")


@dataclass(frozen=True)
class Argument:
    """`key`, `key=value` or `key=(value, value)`."""

    key: str
    values: tuple[str, ...] = ()

    @property
    def value(self) -> str:
        (value,) = self.values
        return value


@dataclass(frozen=True)
class Directive:
    line: int
    command: str
    arguments: tuple[Argument, ...]
    text: str
    """What stands between the command and the expectation."""
    expected: str

    def argument(self, key: str) -> Argument | None:
        return next((argument for argument in self.arguments if argument.key == key), None)

    def ids(self) -> list[int]:
        """Return the arguments that are nothing but a number."""
        return [int(argument.key) for argument in self.arguments if argument.key.isdecimal()]


def scripts(folder: str) -> Sequence[object]:
    """Return the files of `folder` as parameters, or one that is skipped, and says so, where there are none."""
    files = sorted((TESTDATA / folder).glob("*.txt"))
    if not files:
        return [pytest.param(Path(), marks=pytest.mark.skip(reason=f"no scripts in {TESTDATA / folder}"))]
    return [pytest.param(file, id=file.stem) for file in files]


def run(path: Path, handle: Callable[[Directive], str], *, semantic: bool = False) -> None:
    """Run a script; with `semantic`, lines of logging are not compared."""
    for directive in directives(path):
        actual, expected = handle(directive), directive.expected
        if semantic:
            actual, expected = _without_logging(actual), _without_logging(expected)
        assert actual.rstrip("\n") == expected.rstrip("\n"), f"{path.name}:{directive.line} {directive.command}"


def directives(path: Path) -> Iterator[Directive]:
    lines = path.read_text().split("\n")
    place = 0
    while place < len(lines):
        line = lines[place].strip()
        place += 1
        if not line or line.startswith("#"):
            continue
        number = place
        while line.endswith("\\"):
            line = line[:-1] + lines[place].strip()
            place += 1
        text, place = _until(lines, place, "----")
        expected, place = _expectation(lines, place)
        command, *arguments = _split(line)
        yield Directive(number, command, tuple(map(_argument, arguments)), "\n".join(text).strip(), expected)


def _until(lines: list[str], place: int, end: str) -> tuple[list[str], int]:
    found = lines.index(end, place)
    return lines[place:found], found + 1


def _expectation(lines: list[str], place: int) -> tuple[str, int]:
    if lines[place] == "----":  # blank lines are part of it: it ends at two such lines
        start = place + 1
        end = next(n for n in range(start, len(lines)) if lines[n : n + 2] == ["----", "----"])
        return "\n".join(lines[start:end]), end + 2
    body, end = _until([*lines, ""], place, "")
    return "\n".join(body), end


def _split(line: str) -> list[str]:
    return re.findall(r"[^\s=]+=\([^)]*\)|\S+", line)


def _argument(text: str) -> Argument:
    key, equals, value = text.partition("=")
    if not equals:
        return Argument(key)
    if value.startswith("("):
        inner = value[1:-1].strip()
        return Argument(key, tuple(part.strip() for part in re.split(r"[,\s]+", inner)) if inner else ())
    return Argument(key, (value,))


def _without_logging(output: str) -> str:
    lines = [line for line in output.split("\n") if not _LOG_LINE.match(line) and line.strip() != "ok"]
    return "\n".join(lines)
