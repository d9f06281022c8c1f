"""Who may open a stream to whom."""

import pytest

from engram.log.codec import Batch, Hello, Welcome
from engram.log.handshake import Doorkeeper, Identity, Refusal, RefusedError, check_batch
from tests.log.nodes import vote


def door() -> Doorkeeper:
    return Doorkeeper(Identity(cluster_id="c", node_id=2, boot_epoch=1, address="here:1"))


def hello(*, boot_epoch: int = 1, stream: int = 1) -> Hello:
    return Hello(cluster_id="c", sender=1, to=2, boot_epoch=boot_epoch, stream=stream, address="there:1")


def welcome(*, cluster_id: str = "c", node_id: int = 1, boot_epoch: int = 1) -> Welcome:
    return Welcome(cluster_id=cluster_id, node_id=node_id, boot_epoch=boot_epoch)


def test_a_later_start_replaces_an_earlier_one_and_counts_its_streams_anew() -> None:
    keeper = door()
    old, new = hello(boot_epoch=1, stream=9), hello(boot_epoch=2, stream=1)
    keeper.admit(old)

    keeper.admit(new)

    keeper.check_current(new)
    with pytest.raises(RefusedError, match="stream 9 was replaced"):
        keeper.check_current(old)


@pytest.mark.parametrize(("boot_epoch", "stream"), [(3, 4), (3, 3), (2, 5)])
def test_what_is_not_newer_is_stale(boot_epoch: int, stream: int) -> None:
    keeper = door()
    keeper.admit(hello(boot_epoch=3, stream=4))

    with pytest.raises(RefusedError) as refused:
        keeper.admit(hello(boot_epoch=boot_epoch, stream=stream))

    assert refused.value.refusal is Refusal.STALE


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        (welcome(cluster_id="d"), Refusal.WRONG_CLUSTER),
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


def test_a_node_that_was_forgotten_starts_anew() -> None:
    keeper = door()
    first = hello(boot_epoch=5)
    keeper.admit(first)

    keeper.forget(1)

    with pytest.raises(RefusedError, match="or the node removed"):
        keeper.check_current(first)
    keeper.admit(hello(boot_epoch=1))


def test_a_batch_of_ones_own_messages_is_let_through() -> None:
    check_batch(hello(), Batch(None, [vote(2, 1), vote(2, 2)]))
