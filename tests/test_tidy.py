"""The style page, as far as a program can check it: sizes, names, imports, and what tests must not do."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PRODUCT = sorted((PROJECT / "engram").rglob("*.py"))
TESTS = sorted((PROJECT / "tests").rglob("*.py"))
AROUND = sorted(path for folder in ("benchmarks", "examples", "tools") for path in (PROJECT / folder).rglob("*.py"))

MODULE_LINES_MAX = 400
MODULE_LINES_MAX_BY_NAME = {"engram/log/consensus/raft.py": 700}
FUNCTION_LINES_MAX = 50
FUNCTION_LINES_MEDIAN_MAX = 8
FUNCTION_LINES_USUAL_MAX = 25
"""Nine functions of ten are no longer."""

VAGUE_NAMES = frozenset(
    {"base", "common", "core", "helper", "helpers", "manager", "misc", "models", "service", "shared", "utils", "util"}
)

LATE_IMPORTS = {
    "engram/__main__.py": "it must be able to end, when told to, while everything is imported",
    "engram/inference/minilm.py": "onnxruntime is an extra, and takes a tenth of a second to import",
    "engram/inference/openai_embedder.py": "openai takes half a second to import, and most nodes never do",
    "engram/projections/lance_store.py": "lancedb takes more than a second to import: its thread does it",
    "engram/projections/redis_store.py": "redis takes a tenth of a second to import, and most nodes never do",
}
"""Modules that may import inside a function, and why."""

FORBIDDEN_IN_TESTS = frozenset({"time.sleep", "asyncio.sleep"})
"""A test waits for a thing, never for a time. asyncio.sleep(0) only lets others run, so it is no wait."""


def place(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield node


def imported_names(node: ast.AST) -> list[str]:
    """Return the modules that a statement imports."""
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom():
            return [node.module or ""]
        case _:
            return []


@pytest.mark.parametrize("path", [*PRODUCT, *AROUND], ids=place)
def test_a_module_can_be_read_in_one_go(path: Path) -> None:
    lines = len(path.read_text().splitlines())

    assert lines <= MODULE_LINES_MAX_BY_NAME.get(place(path), MODULE_LINES_MAX)


@pytest.mark.parametrize("path", [*PRODUCT, *AROUND, *TESTS], ids=place)
def test_a_function_fits_a_screen(path: Path) -> None:
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in functions(path)
        if node.end_lineno is not None and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    }

    assert long == {}


def test_functions_are_short_as_a_rule() -> None:
    lines = sorted((node.end_lineno or 0) - node.lineno + 1 for path in PRODUCT for node in functions(path))

    assert lines[len(lines) // 2] <= FUNCTION_LINES_MEDIAN_MAX
    assert lines[len(lines) * 9 // 10] <= FUNCTION_LINES_USUAL_MAX


@pytest.mark.parametrize("path", [*PRODUCT, *AROUND, *TESTS], ids=place)
def test_a_module_is_named_after_what_is_in_it(path: Path) -> None:
    assert path.stem not in VAGUE_NAMES
    assert path.parent.name not in VAGUE_NAMES


@pytest.mark.parametrize("path", [*PRODUCT, *AROUND], ids=place)
def test_imports_stand_at_the_top(path: Path) -> None:
    late = [
        f"{function.name}, line {node.lineno}"
        for function in functions(path)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]

    assert late == [] or place(path) in LATE_IMPORTS


@pytest.mark.parametrize("path", TESTS, ids=place)
def test_no_test_waits_for_a_time(path: Path) -> None:
    waits = [
        f"{ast.unparse(call)}, line {call.lineno}"
        for call in calls(path)
        if ast.unparse(call.func) in FORBIDDEN_IN_TESTS and ast.unparse(call) != "asyncio.sleep(0)"
    ]

    assert waits == []


@pytest.mark.parametrize("path", TESTS, ids=place)
def test_no_test_mocks(path: Path) -> None:
    imported = {name for node in ast.walk(tree(path)) for name in imported_names(node)}

    assert not any(name.startswith(("unittest.mock", "pytest_mock", "mock")) for name in imported)


@pytest.mark.parametrize("path", [path for path in TESTS if path.name.startswith("test_")], ids=place)
def test_a_test_states_a_claim(path: Path) -> None:
    """A claim is a sentence: at least three words after `test_`."""
    tests = [node.name for node in functions(path) if node.name.startswith("test_")]

    assert [name for name in tests if name.count("_") < 3] == []


@pytest.mark.parametrize("path", PRODUCT, ids=place)
def test_every_name_of_a_package_says_what_it_promises(path: Path) -> None:
    nodes = [tree(path), *(node for node in tree(path).body if isinstance(node, ast.ClassDef | ast.FunctionDef))]
    public = [node for node in nodes if not getattr(node, "name", "").startswith("_")]

    assert [getattr(node, "name", "the module") for node in public if not ast.get_docstring(node)] == []


def test_what_is_imported_is_declared() -> None:
    """Not only by a package of ours needing a package that needs it."""
    imported = {
        name.partition(".")[0] for path in PRODUCT for node in ast.walk(tree(path)) for name in imported_names(node)
    } - {"engram", *sys.stdlib_module_names}
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    wanted = {re.split(r"[<>=;\[]", line)[0].strip().lower().replace("_", "-") for line in declared}
    owners = packages_distributions()

    assert {
        name
        for name in imported
        if wanted.isdisjoint(owner.lower().replace("_", "-") for owner in owners.get(name, [name]))
    } == set()


def test_imports_go_down_only() -> None:
    """The contracts of import-linter in pyproject.toml."""
    outcome = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
