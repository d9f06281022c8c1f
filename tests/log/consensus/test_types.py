"""What is written into entries, and what is shown of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.errors import CorruptionError, FatalError
from engram.log.consensus.types import (
    Change,
    ChangeKind,
    ConfChange,
    Entry,
    EntryKind,
    InvariantViolation,
    Transition,
    decode_conf_change,
    encode_conf_change,
)

CHANGES = st.builds(
    ConfChange,
    st.lists(st.builds(Change, st.sampled_from(ChangeKind), st.integers(0, 2**63)), max_size=5).map(tuple),
    st.sampled_from(Transition),
    st.binary(max_size=20),
)


@given(CHANGES)
def test_a_membership_change_comes_back_as_it_was_written(change: ConfChange) -> None:
    assert decode_conf_change(Entry(1, 1, EntryKind.CONF_CHANGE_V2, encode_conf_change(change))) == change


def test_a_change_that_leaves_a_joint_configuration_is_empty() -> None:
    assert encode_conf_change(ConfChange()) == b""


@pytest.mark.parametrize("data", [b"\xff", b"\x93\x91\x92\x09\x01\x00\xc4\x00"])
def test_a_change_that_cannot_be_read_is_never_skipped(data: bytes) -> None:
    with pytest.raises(CorruptionError, match="log entry 7"):
        decode_conf_change(Entry(1, 7, EntryKind.CONF_CHANGE_V2, data))


def test_an_entry_is_shown_without_what_somebody_said() -> None:
    assert "secret" not in repr(Entry(1, 2, data=b"secret"))


def test_a_broken_invariant_stops_the_node() -> None:
    assert issubclass(InvariantViolation, FatalError)
