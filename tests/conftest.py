"""What every test gets: hypothesis profiles, a watch for blocking calls on the loop, and free ports."""

import gc
import os
from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import HealthCheck, settings

import engram  # noqa: F401  first of all: it sets what C libraries read from the environment when they are imported
from tests.server_process import find_free_port

# A property is judged by what it finds, not by how busy the machine is: no deadline.
# On a desk random examples and few of them, as the next run has others; in CI and `make verify` more, in CI always the same.
settings.register_profile(
    "dev",
    max_examples=50 if os.environ.get("THOROUGH") else 20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "ci", settings.get_profile("dev"), max_examples=50, derandomize=True, print_blob=True, database=None
)
settings.register_profile("deep", settings.get_profile("dev"), max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what takes long unless it is asked for."""
    if os.environ.get("THOROUGH"):
        return
    for item in items:
        if item.get_closest_marker("thorough") is not None:
            item.add_marker(pytest.mark.skip(reason="NOT CHECKED: it takes long; `make verify` does, as CI does"))


def pytest_collection_finish() -> None:
    """Keep what stays for the whole run, thousands of tests and all modules, out of every later search for cycles."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """Fail a test whose code of ours blocks the event loop: sleeps, files, sockets, locks, SQLite.

    Calls that the tests themselves make are left alone, and so are those that cannot wait for a device: imports, which
    happen once, the metrics' reads of /proc, which is memory, and the measuring of coverage, which notes lines under a lock.
    """
    with blockbuster_ctx("engram") as watch:
        for function in watch.functions.values():
            function.can_block_in("<frozen importlib._bootstrap>", "_find_and_load")
            function.can_block_in("prometheus_client/process_collector.py", {"__init__", "collect"})
            function.can_block_in("coverage/collector.py", "lock_data")
        yield watch


@pytest.fixture
def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    return find_free_port()
