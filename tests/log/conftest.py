"""What tests of several nodes in one process need."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def channels_end_here() -> Iterator[None]:
    """Let no gRPC channel outlive its test.

    The last one to be collected joins gRPC's poller thread. In the middle of another test that would be a call of ours
    that blocks the loop, and the poller's socket would be left open.
    """
    yield
    gc.collect()
