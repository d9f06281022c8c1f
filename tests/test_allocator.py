"""The allocator's knobs: they must never fail, whatever the C library is."""

import ctypes
from pathlib import Path

import pytest

from engram import allocator


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_large_blocks_go_back_to_the_system_when_they_are_freed() -> None:
    allocator.bound_memory()
    block = bytearray(64 * 1024 * 1024)
    with_block = resident_bytes()

    del block
    allocator.trim_memory()

    assert with_block - resident_bytes() > 48 * 1024 * 1024


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_symbols(_name: object) -> object:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", without_symbols)

    allocator.bound_memory()
    allocator.trim_memory()
