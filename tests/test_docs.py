"""The documents tell everything that is published, and nothing that is not there."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from prometheus_client import Info, ProcessCollector

from engram import errors
from engram.api.middleware import PROBLEMS
from engram.api.routes import ROUTES
from engram.cli.arguments import parser
from engram.events import Event
from engram.metrics import Metrics
from engram.settings import OLD_NAMES, SETTINGS

PROJECT = Path(__file__).parents[1]
DOCS = PROJECT / "docs"
PAGES = sorted([*PROJECT.glob("*.md"), *DOCS.glob("*.md"), *(PROJECT / "benchmarks").glob("*.md")])

COMMON_FIELDS = ("session_id", "at_ms", "tenant")


def rows(name: str) -> Iterator[list[str]]:
    """Yield the cells of each table row whose first cell is a name in backticks."""
    for line in (DOCS / name).read_text().splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def named(name: str) -> list[str]:
    """Return what stands in backticks in the first column of a page's tables, in order."""
    return [cells[0].strip("`") for cells in rows(name)]


class TestSettings:
    def test_every_setting_is_told_once(self) -> None:
        assert sorted(named("settings.md")) == sorted([*(setting.name for setting in SETTINGS), *OLD_NAMES])

    def test_the_defaults_are_the_codes(self) -> None:
        told = {cells[0].strip("`"): cells[1] for cells in rows("settings.md")}

        for setting in SETTINGS:
            if setting.default is not None and setting.default != {}:
                assert told[setting.name] == str(setting.default), setting.name

    def test_an_old_name_says_its_new_one(self) -> None:
        told = {cells[0].strip("`"): cells[1] for cells in rows("settings.md")}

        assert {old: told[old] for old in OLD_NAMES} == OLD_NAMES


class TestMetrics:
    def test_every_metric_is_told_with_its_labels_and_kind(self) -> None:
        assert {cells[0].strip("`"): cells[1] for cells in rows("metrics.md")} == dict(self.declared())

    def declared(self) -> Iterator[tuple[str, str]]:
        for metric in vars(Metrics(version="0")).values():
            labels = getattr(metric, "_labelnames", None)
            if isinstance(metric, ProcessCollector) or labels is None:
                continue
            [family] = metric.describe()
            suffix, kind = {"counter": ("_total", "counter"), "info": ("_info", "gauge")}.get(
                family.type, ("", family.type)
            )
            told = sorted(metric._value) if isinstance(metric, Info) else list(labels)  # noqa: SLF001
            yield family.name + suffix + (f"{{{','.join(told)}}}" if told else ""), kind


class TestEvents:
    def test_every_event_is_told_with_its_fields(self) -> None:
        told = {cells[0].strip("`"): list(filter(None, cells[1].split(", "))) for cells in rows("events.md")}

        assert told == {
            kind.__name__: [name for name in kind.__struct_fields__ if name not in COMMON_FIELDS]
            for kind in get_args(Event)
            if issubclass(kind, msgspec.Struct)
        }


class TestErrors:
    def test_every_code_is_told_with_its_status(self) -> None:
        told = {cells[0].strip("`"): int(cells[1]) for cells in rows("errors.md")}
        fatal = self.codes(errors.FatalError)

        assert {code: status for code, status in told.items() if code not in fatal} == {
            code: kind.status for code, kind in PROBLEMS.items()
        }
        assert fatal <= told.keys()

    def test_every_code_that_an_error_can_have_has_a_status(self) -> None:
        answered = self.codes(errors.RequestError) | self.codes(errors.UnavailableError) | {errors.TimedOutError.code}

        assert answered - {errors.RequestError.code} <= PROBLEMS.keys()

    def codes(self, base: type[errors.EngramError]) -> set[str]:
        """Return the codes of the errors below `base` that cross packages."""
        kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, base)]
        return {kind.code for kind in kinds if kind is not base}


class TestRoutes:
    def test_every_route_is_told_and_nothing_else(self) -> None:
        told = {
            f"{method} {path}"
            for method, path in re.findall(r"\b(GET|POST|PUT|DELETE) (/[^\s`?|]*)", (DOCS / "api.md").read_text())
        }

        assert {shape(route) for route in told} == {shape(f"{route.method} {route.path}") for route in ROUTES}


def shape(route: str) -> str:
    """Return a route with its placeholders nameless: the page may call an id what it likes."""
    return re.sub(r"\{[^}]*\}", "{}", route)


class TestPages:
    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
    def test_links_lead_somewhere(self, page: Path) -> None:
        links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        local = [link for link in links if not link.startswith(("http://", "https://"))]

        assert [link for link in local if not (page.parent / link).exists()] == []

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
    def test_every_make_target_that_is_named_exists(self, page: Path) -> None:
        targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))

        assert set(re.findall(r"`make ([a-z-]+)", page.read_text())) <= targets

    def test_the_commands_are_those_of_the_command_line(self) -> None:
        told = parser("0").format_help()

        assert {name.split()[1] for name in named("cli.md")} == set(re.findall(r"^ {4}([a-z]+) ", told, re.MULTILINE))
