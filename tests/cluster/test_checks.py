"""A drill that finds nothing must be one that could have: made-up histories, each with one thing wrong."""

from pathlib import Path

import pytest

from tests.cluster.asking import AnswerError
from tests.cluster.checks import NOTHING_WRONG, Stored, compare, differing, digests
from tests.projections.histories import History, apply, entries_of, open_store, said

SENT = {"m0": "zero", "m1": "one", "m2": "two", "m3": "three"}
ACKNOWLEDGED = ["m0", "m1", "m2"]


def stored(*ids: str) -> list[Stored]:
    return [Stored(message_id, SENT[message_id]) for message_id in ids]


def test_all_that_was_acknowledged_once_and_in_order_is_right() -> None:
    assert compare("here", ACKNOWLEDGED, SENT, stored("m0", "m1", "m2")) == NOTHING_WRONG


def test_what_was_sent_and_not_acknowledged_may_be_there() -> None:
    assert compare("here", ACKNOWLEDGED, SENT, stored("m0", "m1", "m2", "m3")) == NOTHING_WRONG


def test_an_acknowledged_message_that_is_gone_is_lost() -> None:
    findings = compare("here", ACKNOWLEDGED, SENT, stored("m0", "m2"))

    assert findings == NOTHING_WRONG._replace(lost=["here/m1"])


def test_a_session_that_is_gone_lost_everything() -> None:
    assert len(compare("here", ACKNOWLEDGED, SENT, []).lost) == len(ACKNOWLEDGED)


def test_a_message_that_stands_twice_is_a_duplicate() -> None:
    findings = compare("here", ACKNOWLEDGED, SENT, stored("m0", "m1", "m1", "m2"))

    assert findings == NOTHING_WRONG._replace(duplicates=["here/m1, 2 times"])


def test_a_message_that_stands_twice_is_a_duplicate_though_nobody_was_promised_it() -> None:
    findings = compare("here", ACKNOWLEDGED, SENT, stored("m0", "m1", "m2", "m3", "m3"))

    assert findings.duplicates == ["here/m3, 2 times"]


def test_another_order_than_that_of_the_acknowledgements_is_told() -> None:
    findings = compare("here", ACKNOWLEDGED, SENT, stored("m1", "m0", "m2"))

    assert findings == NOTHING_WRONG._replace(disordered=["here: m1 stands where m0 should, and 2 are out of place"])


def test_another_text_than_was_sent_is_told() -> None:
    findings = compare("here", ACKNOWLEDGED, SENT, [*stored("m0", "m1"), Stored("m2", "too")])

    assert findings == NOTHING_WRONG._replace(altered=["here/m2"])


def test_a_message_that_nobody_sent_is_told() -> None:
    findings = compare("here", ACKNOWLEDGED, SENT, [*stored("m0", "m1", "m2"), Stored("m9", "nine")])

    assert findings == NOTHING_WRONG._replace(altered=["here/m9"])


def test_what_is_wrong_adds_up() -> None:
    one = compare("here", ACKNOWLEDGED, SENT, stored("m0", "m2"))
    other = compare("there", ACKNOWLEDGED, SENT, stored("m0", "m1"))

    assert (NOTHING_WRONG + one + other).lost == ["here/m1", "there/m2"]


def test_read_models_that_differ_are_named() -> None:
    found = {1: {"messages": "aa", "facts": "bb"}, 2: {"messages": "aa", "facts": "bb"}, 3: {"messages": "ab"}}

    assert differing(found) == ["facts: node 3 is not like node 1", "messages: node 3 is not like node 1"]


def test_equal_read_models_do_not_differ() -> None:
    assert differing({1: {"messages": "aa"}, 2: {"messages": "aa"}}) == []


def make_folders(path: Path) -> dict[int, Path]:
    folders = {1: path / "one", 2: path / "other"}
    for folder in folders.values():
        folder.mkdir()
    return folders


async def write_node(folder: Path, history: History) -> None:
    store = await open_store(folder)
    await apply(store, entries_of(history))
    await store.close()


async def test_nodes_that_folded_the_same_have_equal_digests(tmp_path: Path) -> None:
    folders = make_folders(tmp_path)
    for folder in folders.values():
        await write_node(folder, [said("m1"), said("m2")])

    found = await digests(folders, tmp_path / "scratch", index=2)

    assert differing(found) == []


async def test_a_node_that_folded_something_else_is_found(tmp_path: Path) -> None:
    folders = make_folders(tmp_path)
    await write_node(folders[1], [said("m1"), said("m2")])
    await write_node(folders[2], [said("m1"), said("m2", "other")])

    found = await digests(folders, tmp_path / "scratch", index=2)

    assert differing(found) == ["messages: node 2 is not like node 1"]


async def test_a_node_that_folded_nothing_is_not_taken_for_an_equal_one(tmp_path: Path) -> None:
    with pytest.raises(AnswerError, match="has folded entry 0"):
        await digests(make_folders(tmp_path), tmp_path / "scratch", index=1)
