"""Who may open a stream to whom."""

import pytest

from engram.log.codec import Batch, Hello, Welcome
from engram.log.handshake import Doorkeeper, Identity, Refusal, RefusedError, check_batch
from tests.log.nodes import CLUSTER_ID, make_hello, vote


def door(*, cluster_id: str = CLUSTER_ID, known_store: str = "", known_up_to: int = 0) -> Doorkeeper:
    """Return the door of node 2, which knows `known_store` of every other node."""
    identity = Identity(
        cluster_id=cluster_id, node_id=2, boot_epoch=1, address="here:1", store_id="store-2", http_address="here:2"
    )
    return Doorkeeper(identity, lambda _: known_store, lambda _: known_up_to)


def welcome(
    *, cluster_id: str = CLUSTER_ID, node_id: int = 1, boot_epoch: int = 1, store_id: str = "store-1"
) -> Welcome:
    return Welcome(
        cluster_id=cluster_id, node_id=node_id, boot_epoch=boot_epoch, store_id=store_id, http_address="there:2"
    )


def test_a_later_start_replaces_an_earlier_one_and_counts_its_streams_anew() -> None:
    keeper = door()
    old, new = make_hello(boot_epoch=1, stream=9), make_hello(boot_epoch=2, stream=1)
    keeper.admit(old)

    keeper.admit(new)

    keeper.check_current(new)
    with pytest.raises(RefusedError, match="stream 9 was replaced"):
        keeper.check_current(old)


@pytest.mark.parametrize(("boot_epoch", "stream"), [(3, 4), (3, 3), (2, 5)])
def test_what_is_not_newer_is_stale(boot_epoch: int, stream: int) -> None:
    keeper = door()
    keeper.admit(make_hello(boot_epoch=3, stream=4))

    with pytest.raises(RefusedError) as refused:
        keeper.admit(make_hello(boot_epoch=boot_epoch, stream=stream))

    assert refused.value.refusal is Refusal.STALE


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        (welcome(cluster_id="d"), Refusal.WRONG_CLUSTER),
        (welcome(cluster_id=""), Refusal.WRONG_CLUSTER),
        (welcome(node_id=3), Refusal.WRONG_NODE),
        (welcome(boot_epoch=4), Refusal.STALE),
    ],
)
def test_an_answer_from_somebody_else_is_refused(answer: Welcome, refusal: Refusal) -> None:
    keeper = door()
    keeper.check_welcome(1, welcome(boot_epoch=5))

    with pytest.raises(RefusedError) as refused:
        keeper.check_welcome(1, answer)

    assert refused.value.refusal is refusal


@pytest.mark.parametrize(
    ("greeting", "refusal"),
    [
        (make_hello(cluster_id="d"), Refusal.WRONG_CLUSTER),
        (make_hello(cluster_id=""), Refusal.WRONG_CLUSTER),
        (make_hello(to_store_id="store-9"), Refusal.WRONG_STORE),
        (make_hello(store_id="store-9"), Refusal.WRONG_STORE),
        (make_hello(store_id=""), Refusal.WRONG_STORE),
        (make_hello(sender=2), Refusal.WRONG_NODE),
    ],
)
def test_a_greeting_from_somebody_else_or_for_somebody_else_is_refused(greeting: Hello, refusal: Refusal) -> None:
    keeper = door(known_store="store-1")
    keeper.check(make_hello(to_store_id="store-2"))

    with pytest.raises(RefusedError) as refused:
        keeper.check(greeting)

    assert refused.value.refusal is refusal


def test_a_new_disk_is_believed_to_who_has_applied_more_of_the_log() -> None:
    keeper = door(known_store="store-1", known_up_to=7)

    keeper.check(make_hello(store_id="store-9", applied_index=8))
    for applied_index in (0, 6, 7):
        with pytest.raises(RefusedError) as refused:
            keeper.check(make_hello(store_id="store-9", applied_index=applied_index))
        assert refused.value.refusal is Refusal.WRONG_STORE


def test_who_dials_a_node_with_another_disk_refuses_it() -> None:
    keeper = door(known_store="store-1")
    keeper.check_welcome(1, welcome())

    with pytest.raises(RefusedError, match="a disk was lost or exchanged") as refused:
        keeper.check_welcome(1, welcome(store_id="store-9"))

    assert refused.value.refusal is Refusal.WRONG_STORE


def test_starts_are_counted_anew_on_another_disk() -> None:
    keeper = door()
    keeper.admit(make_hello(boot_epoch=5, stream=7))
    keeper.admit(make_hello(boot_epoch=1, stream=1, store_id="store-9"))

    with pytest.raises(RefusedError, match="stream 1 comes after stream 1"):
        keeper.admit(make_hello(boot_epoch=1, stream=1, store_id="store-9"))


def test_a_node_in_no_cluster_lets_in_who_names_its_disk_and_a_cluster() -> None:
    keeper = door(cluster_id="")
    keeper.check(make_hello(cluster_id="d", to_store_id="store-2"))

    for greeting, refusal in (
        (make_hello(cluster_id="", to_store_id="store-2"), Refusal.WRONG_CLUSTER),
        (make_hello(cluster_id="d", to_store_id=""), Refusal.WRONG_STORE),
        (make_hello(cluster_id="d", to_store_id="store-9"), Refusal.WRONG_STORE),
    ):
        with pytest.raises(RefusedError) as refused:
            keeper.check(greeting)
        assert refused.value.refusal is refusal


def test_a_node_joins_one_cluster_and_no_other() -> None:
    keeper = door(cluster_id="")
    keeper.join("c")
    keeper.join("c")

    with pytest.raises(ValueError, match="in cluster 'c' already, not in 'd'"):
        keeper.join("d")

    assert keeper.identity.cluster_id == "c"
    with pytest.raises(RefusedError, match="belongs to cluster 'd'"):
        keeper.check(make_hello(cluster_id="d", to_store_id="store-2"))


def test_what_an_earlier_start_says_of_itself_is_not_passed_on() -> None:
    keeper = door()
    keeper.admit(make_hello(boot_epoch=5))

    with pytest.raises(RefusedError, match="start 4 comes after start 5"):
        keeper.check(make_hello(boot_epoch=4, stream=2))


def test_a_check_leaves_no_trace() -> None:
    keeper = door()
    keeper.check(make_hello(boot_epoch=5))

    keeper.admit(make_hello(boot_epoch=1))


def test_a_node_that_was_forgotten_starts_anew() -> None:
    keeper = door()
    first = make_hello(boot_epoch=5)
    keeper.admit(first)

    keeper.forget(1)

    with pytest.raises(RefusedError, match="or the node removed"):
        keeper.check_current(first)
    keeper.admit(make_hello(boot_epoch=1))


def test_a_batch_of_ones_own_messages_is_let_through() -> None:
    check_batch(make_hello(), Batch(None, [vote(2, 1), vote(2, 2)]))
