"""Messages between nodes, over real sockets."""

import asyncio
import contextlib
import inspect
import random
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from functools import partial
from time import perf_counter

import grpc
import grpc.aio
import pytest

from engram.errors import ConfigError
from engram.log.codec import Introduction, MalformedError, encode_batch
from engram.log.consensus.types import Message, MessageType
from engram.log.handshake import Refusal
from engram.log.peer import Options, StreamError
from engram.log.transport import Transport
from tests.log.nodes import (
    CLUSTER_ID,
    HOST,
    Mailbox,
    Node,
    address_of,
    append,
    introduce,
    make_hello,
    make_transport,
    running,
    until,
    vote,
)

pytestmark = pytest.mark.usefixtures("channels_end_here")


class Pair:
    """Node 1 and node 2, who are peers."""

    def __init__(self, options: Options | None = None) -> None:
        self.mailboxes = [Mailbox(), Mailbox()]
        self.first = make_transport(1, self.mailboxes[0], options=options)
        self.second = make_transport(2, self.mailboxes[1])

    @property
    def inbox(self) -> Mailbox:
        """What node 2 gets."""
        return self.mailboxes[1]

    async def connect(self) -> None:
        introduce(self.first, 1, self.second, 2)
        await until(lambda: self.first.status()[2].is_connected and self.second.status()[1].is_connected)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    async with running(pair.first, pair.second):
        await pair.connect()
        yield pair


# What arrives.


async def test_messages_arrive_in_the_order_they_were_sent(pair: Pair) -> None:
    for start in range(0, 5_000, 100):
        pair.first.send([vote(2, index) for index in range(start, start + 100)])
        await pair.inbox.until_received(start)

    await pair.inbox.until_received(5_000)
    assert [message.index for message in pair.inbox.messages] == list(range(5_000))


async def test_both_directions_carry_messages(pair: Pair) -> None:
    pair.first.send([vote(2, 7)])
    pair.second.send([vote(1, 8, sender=2)])

    await pair.inbox.until_received(1)
    await pair.mailboxes[0].until_received(1)
    assert (pair.inbox.messages[0].index, pair.mailboxes[0].messages[0].index) == (7, 8)


async def test_what_waits_is_sent_in_one_frame(pair: Pair) -> None:
    pair.first.send([vote(2, index) for index in range(1_000)])

    await pair.inbox.until_received(1_000)
    assert pair.inbox.batches == [1_000]
    assert pair.first.status()[2].sent_frames == 1


def acknowledgement(index: int) -> Message:
    return Message(type=MessageType.APPEND_RESPONSE, to=2, sender=1, term=1, index=index)


async def test_an_acknowledgement_that_says_nothing_new_leaves_with_what_follows_it() -> None:
    pair = Pair(Options(repeat_s=3600.0))
    async with running(pair.first, pair.second):
        await pair.connect()
        pair.first.send([acknowledgement(7)])
        await pair.inbox.until_received(1)
        pair.first.send([acknowledgement(7)])
        pair.second.send([vote(1, 1, sender=2)])  # there and back is time enough for a frame
        await pair.mailboxes[0].until_received(1)

        pair.first.send([vote(2, 8)])

        await pair.inbox.until_received(3)
    assert pair.inbox.batches == [1, 2]


async def test_an_acknowledgement_that_says_nothing_new_leaves_though_nothing_follows_it(pair: Pair) -> None:
    pair.first.send([acknowledgement(7)])
    await pair.inbox.until_received(1)

    pair.first.send([acknowledgement(7)])

    await pair.inbox.until_received(2)
    assert pair.inbox.batches == [1, 1]


async def test_a_frame_of_many_appends_stays_small(pair: Pair) -> None:
    pair.first.send([append(2, index, 300 * 1024) for index in range(10)])

    await pair.inbox.until_received(10)
    assert pair.inbox.batches == [3, 3, 3, 1]


async def test_an_entry_of_four_mebibytes_passes(pair: Pair) -> None:
    big = append(2, 1, 4 * 1024 * 1024 + 64 * 1024)

    pair.first.send([vote(2, 0), big, vote(2, 2)])

    await pair.inbox.until_received(3)
    assert pair.inbox.messages[1] == big
    assert pair.inbox.batches == [1, 1, 1]


async def test_messages_sent_before_the_first_connection_are_kept_for_it() -> None:
    pair = Pair()
    async with running(pair.first, pair.second):
        introduce(pair.first, 1, pair.second, 2)
        pair.first.send([vote(2, 7)])

        await pair.inbox.until_received(1)
    assert pair.inbox.messages[0].index == 7


async def test_a_message_for_nobody_is_counted(pair: Pair) -> None:
    pair.first.send([vote(9, 1)])

    assert pair.first.unaddressed == 1


# Limits.


async def test_a_full_outbox_drops_appends_and_says_so_once() -> None:
    pair = Pair(Options(outbox_bytes_max=1024 * 1024))
    async with running(pair.first, pair.second):
        await pair.connect()
        pair.inbox.is_open.clear()
        while not pair.mailboxes[0].unreachable_ids:
            pair.first.send([append(2, 1, 64 * 1024)])
            await asyncio.sleep(0)
        status = pair.first.status()[2]
        pair.first.send([append(2, 1, 64 * 1024), vote(2, 99)])
        pair.inbox.is_open.set()

        await pair.inbox.until(lambda inbox: bool(inbox.messages) and inbox.messages[-1].index == 99)
        assert status.dropped == 1
        assert status.queued_bytes <= 1024 * 1024
        assert pair.mailboxes[0].unreachable_ids == [2]
        assert pair.first.status()[2].dropped == 2


async def test_a_receiver_that_is_held_up_does_not_hold_up_the_loop(pair: Pair) -> None:
    pair.inbox.is_open.clear()
    pair.first.send([append(2, index, 1024 * 1024) for index in range(6)])
    pair.second.send([vote(1, 1, sender=2)])

    await pair.mailboxes[0].until_received(1)
    pair.inbox.is_open.set()
    await pair.inbox.until_received(6)


async def test_what_a_node_that_is_away_missed_is_not_kept_for_it() -> None:
    mailbox = Mailbox()
    alone = make_transport(1, mailbox)
    async with running(alone):
        alone.add_peer(2, f"{HOST}:1")
        alone.send([vote(2, 1)])

        await mailbox.until(lambda mailbox: bool(mailbox.unreachable_ids))
        status = alone.status()[2]
    assert (status.is_connected, status.queued_messages, status.dropped) == (False, 0, 1)
    assert "refused" in status.last_error


# Breaking and coming back.


async def test_a_node_that_restarts_on_its_port_is_found_again() -> None:
    mailboxes = [Mailbox(), Mailbox(), Mailbox()]
    first, second = make_transport(1, mailboxes[0]), make_transport(2, mailboxes[1])
    async with running(first):
        async with running(second):
            introduce(first, 1, second, 2)
            first.send([vote(2, 1)])
            await mailboxes[1].until_received(1)
        await mailboxes[0].until(lambda mailbox: 2 in mailbox.broken_at_s)
        again = make_transport(2, mailboxes[2], boot_epoch=2, port=second.port)
        again.add_peer(1, address_of(first))
        async with running(again):
            await until(lambda: first.status()[2].is_connected)
            started_s = perf_counter()
            first.send([vote(2, 2)])

            await mailboxes[2].until_received(1)
            assert perf_counter() - started_s < 1
            assert mailboxes[2].messages == [vote(2, 2)]
            assert first.status()[2].streams == 2


async def test_the_end_of_a_killed_process_is_noticed_within_a_tenth_of_a_second() -> None:
    mailbox = Mailbox()
    first = make_transport(1, mailbox)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.log.transport_process", "2", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    async with running(first):
        first.add_peer(2, f"{HOST}:{port}")
        await until(lambda: first.status()[2].is_connected)
        killed_s = perf_counter()
        process.kill()

        await mailbox.until(lambda mailbox: 2 in mailbox.broken_at_s)
        assert mailbox.broken_at_s[2] - killed_s < 0.1
        assert not first.status()[2].is_connected
    await process.wait()


async def test_a_peer_that_moves_is_sent_to_where_it_is() -> None:
    pair, moved_mailbox = Pair(), Mailbox()
    moved = make_transport(2, moved_mailbox, boot_epoch=2)
    moved_mailbox.admits_strangers = True
    async with running(pair.first, pair.second, moved):
        await pair.connect()
        pair.first.add_peer(2, address_of(moved))
        pair.first.send([vote(2, 5)])

        await moved_mailbox.until_received(1)
        assert pair.first.status()[2].address == address_of(moved)
        assert pair.inbox.messages == []


async def test_a_peer_that_is_removed_is_neither_sent_to_nor_heard() -> None:
    pair = Pair()
    async with running(pair.first, pair.second):
        await pair.connect()
        pair.first.remove_peer(2)
        pair.first.send([vote(2, 5)])
        pair.second.send([vote(1, 6, sender=2)])

        await until(lambda: pair.second.status()[1].refusal is Refusal.STRANGER)
        assert pair.first.status() == {}
        assert pair.first.unaddressed == 1
        assert pair.mailboxes[0].messages == []
        assert pair.mailboxes[0].greetings[-1].sender == 2


async def test_a_stranger_that_the_listener_lets_in_is_heard() -> None:
    pair = Pair()
    pair.inbox.admits_strangers = True
    async with running(pair.first, pair.second):
        pair.first.add_peer(2, address_of(pair.second))
        pair.first.send([vote(2, 5)])

        await pair.inbox.until_received(1)
        assert [(hello.sender, hello.address) for hello in pair.inbox.greetings] == [(1, f"{HOST}:0")]


async def test_stopping_takes_less_than_a_second_whatever_is_going_on() -> None:
    pair = Pair()
    async with running(pair.first, pair.second):
        await pair.connect()
        pair.first.add_peer(3, f"{HOST}:1")
        pair.inbox.is_open.clear()
        pair.first.send([append(2, index, 1024 * 1024) for index in range(6)])
        started_s = perf_counter()

        await pair.first.stop()
        await pair.second.stop()

        assert perf_counter() - started_s < 1


async def test_what_waits_leaves_before_a_clean_stop(pair: Pair) -> None:
    pair.first.send([vote(2, index) for index in range(500)])

    await pair.first.stop()

    await pair.inbox.until_received(500)
    assert pair.mailboxes[0].broken_at_s == {}


async def test_a_host_that_accepts_and_says_nothing_is_given_up() -> None:
    one = make_transport(1, Mailbox(), options=Options(greeting_s=0.1))
    with socket.create_server((HOST, 0)) as silent:
        async with running(one):
            one.add_peer(2, f"{HOST}:{silent.getsockname()[1]}")

            await until(lambda: bool(one.status()[2].last_error))
            assert one.status()[2].last_error == "not welcomed within 0.1 s"


async def test_clients_that_vanish_at_any_moment_do_no_harm() -> None:
    mailbox = Mailbox()
    mailbox.admits_strangers = True
    one = make_transport(2, mailbox)
    rng = random.Random(3)
    async with running(one):
        for number in range(1, 100):
            async with grpc.aio.insecure_channel(f"{HOST}:{one.port}") as channel:
                call = opened(channel)
                await call.write(rng.choice((greeting(number), b"\xff")))
                if rng.random() < 0.5:
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        await call.read()
                for _ in range(rng.randrange(3)):
                    await asyncio.sleep(0)
        async with grpc.aio.insecure_channel(f"{HOST}:{one.port}") as channel:
            call = opened(channel)
            await call.write(greeting(100))
            await call.write(encode_batch([vote(2, 1)]))

            await mailbox.until_received(1)


# Who may speak to whom.


async def refused(caller: Transport, listening: Transport, *, as_id: int) -> str:
    """Let `caller` dial `listening` as node `as_id`; return why that failed."""
    caller.add_peer(as_id, address_of(listening))
    await until(lambda: caller.status()[as_id].refusal is not None)
    return f"{caller.status()[as_id].refusal}: {caller.status()[as_id].last_error}"


async def test_a_node_of_another_cluster_is_refused() -> None:
    other, one = make_transport(1, Mailbox(), cluster_id="other"), make_transport(2, Mailbox())
    async with running(other, one):
        reason = await refused(other, one, as_id=2)

        assert (
            reason == f"wrong_cluster: node 2 refuses: node 1 belongs to cluster 'other', this node to '{CLUSTER_ID}'"
        )
        assert one.refused[Refusal.WRONG_CLUSTER] >= 1
        assert not other.status()[2].is_connected


async def test_a_node_that_is_not_who_it_was_thought_to_be_refuses() -> None:
    caller, one = make_transport(1, Mailbox()), make_transport(3, Mailbox())
    async with running(caller, one):
        assert await refused(caller, one, as_id=2) == "wrong_node: node 3 refuses: this is node 3; node 1 wants node 2"


async def test_a_node_does_not_talk_to_itself() -> None:
    caller, one = make_transport(2, Mailbox()), make_transport(2, Mailbox())
    async with running(caller, one):
        assert await refused(caller, one, as_id=2) == "wrong_node: node 2 refuses: node 2 is this node itself"


async def test_an_earlier_start_of_a_node_is_refused() -> None:
    old, new, one = (
        make_transport(1, Mailbox(), boot_epoch=4),
        make_transport(1, Mailbox(), boot_epoch=5),
        make_transport(2, Mailbox()),
    )
    async with running(old, new, one):
        one.add_peer(1, address_of(new))
        new.add_peer(2, address_of(one))
        await until(lambda: new.status()[2].is_connected and one.status()[1].is_connected)

        assert await refused(old, one, as_id=2) == "stale: node 2 refuses: node 1: start 4 comes after start 5"


async def test_an_earlier_start_is_refused_by_who_dials_it_too() -> None:
    new, one = make_transport(1, Mailbox(), boot_epoch=5), make_transport(2, Mailbox())
    stale_mailbox = Mailbox()
    stale_mailbox.admits_strangers = True
    stale = make_transport(1, stale_mailbox, boot_epoch=4)
    async with running(stale, new, one):
        one.add_peer(1, address_of(new))
        new.add_peer(2, address_of(one))
        await until(lambda: one.status()[1].is_connected)

        assert await refused(one, stale, as_id=1) == "stale: node 1: start 4 comes after start 5"


async def test_a_node_with_another_disk_than_it_was_known_with_is_not_heard() -> None:
    """Nor may it vote: it has forgotten what it promised."""
    wiped, mailbox = make_transport(1, Mailbox(), store_id="wiped"), Mailbox()
    one = make_transport(2, mailbox)
    mailbox.stores = {1: "store-1"}
    async with running(wiped, one):
        one.add_peer(1, address_of(wiped))

        assert await refused(wiped, one, as_id=2) == (
            "wrong_store: node 2 refuses: node 1 has store 'wiped', and is known with 'store-1': "
            "a disk was lost or exchanged; remove the node and add it again"
        )
        assert (mailbox.greetings, mailbox.messages) == ([], [])


async def test_a_node_with_another_disk_than_it_was_known_with_is_sent_nothing() -> None:
    caller_mailbox, wiped_mailbox = Mailbox(), Mailbox()
    caller, wiped = make_transport(1, caller_mailbox), make_transport(2, wiped_mailbox, store_id="wiped")
    caller_mailbox.stores = {2: "store-2"}
    wiped_mailbox.admits_strangers = True
    async with running(caller, wiped):
        reason = await refused(caller, wiped, as_id=2)

        assert reason.startswith(
            "wrong_store: node 2 refuses: node 1 wants store 'store-2' of node 2, which has 'wiped'"
        )
        assert wiped_mailbox.greetings == []


async def test_who_dials_refuses_another_disk_too() -> None:
    """When the one that is dialled does not look: the welcome names its disk."""
    caller_mailbox, other_mailbox = Mailbox(), Mailbox()
    caller, other = make_transport(1, caller_mailbox), make_transport(2, other_mailbox)
    other_mailbox.admits_strangers = True
    other_mailbox.admits.clear()
    async with running(caller, other):
        caller.add_peer(2, address_of(other))
        await until(lambda: bool(other_mailbox.greetings))
        caller_mailbox.stores = {2: "another"}
        other_mailbox.admits.set()

        async with asyncio.timeout(20):
            while caller.status()[2].refusal is not Refusal.WRONG_STORE:  # noqa: ASYNC110  the next dial ends otherwise
                await asyncio.sleep(0)
        assert "node 2 has store 'store-2', and is known with 'another'" in caller.status()[2].last_error
        assert caller_mailbox.welcomes == []


async def test_both_ends_learn_where_the_other_is_reached(pair: Pair) -> None:
    await pair.mailboxes[0].until(lambda mailbox: bool(mailbox.welcomes))

    greeting, (node_id, welcome) = pair.inbox.greetings[0], pair.mailboxes[0].welcomes[0]
    assert (greeting.sender, greeting.http_address, greeting.store_id) == (1, f"{HOST}:801", "store-1")
    assert (node_id, welcome.http_address, welcome.store_id) == (2, f"{HOST}:802", "store-2")


# A node in no cluster.


def newcomer() -> tuple[Transport, Mailbox]:
    """Return node 2, which is in no cluster and lets everybody in."""
    mailbox = Mailbox()
    mailbox.admits_strangers = True
    return make_transport(2, mailbox, cluster_id=""), mailbox


def knowing(node_id: int, cluster_id: str, options: Options | None = None) -> Transport:
    """Return a node that knows the disk of node 2."""
    mailbox = Mailbox()
    mailbox.stores = {2: "store-2"}
    return make_transport(node_id, mailbox, cluster_id=cluster_id, options=options)


async def test_a_node_in_no_cluster_joins_that_which_knows_its_disk() -> None:
    one, inbox = newcomer()
    caller = knowing(1, "c")
    async with running(caller, one):
        caller.add_peer(2, address_of(one))
        caller.send([vote(2, 7)])

        await inbox.until_received(1)
        assert (await caller.introduce(address_of(one), 1)).cluster_id == "c"


async def test_a_node_in_no_cluster_does_not_join_one_that_does_not_know_its_disk() -> None:
    one, inbox = newcomer()
    caller = make_transport(1, Mailbox())
    async with running(caller, one):
        reason = await refused(caller, one, as_id=2)

        assert reason == ("wrong_store: node 2 refuses: this node is in no cluster, and node 1 does not name its store")
        assert inbox.greetings == []


async def test_of_two_clusters_that_greet_at_once_the_first_wins() -> None:
    one, inbox = newcomer()
    first, second = knowing(1, "first"), knowing(3, "second", Options(greeting_s=0.2))
    inbox.admits.clear()
    async with running(first, second, one):
        first.add_peer(2, address_of(one))
        await until(lambda: len(inbox.greetings) == 1)
        second.add_peer(2, address_of(one))
        await until(lambda: "not welcomed" in second.status()[2].last_error)
        inbox.admits.set()

        await until(lambda: first.status()[2].is_connected)
        await until(lambda: second.status()[2].refusal is Refusal.WRONG_CLUSTER)
        assert {hello.cluster_id for hello in inbox.greetings} == {"first"}


async def test_a_node_that_founds_a_cluster_while_it_is_greeted_does_not_join_another() -> None:
    one, inbox = newcomer()
    caller = knowing(1, "c")
    inbox.admits.clear()
    async with running(caller, one):
        caller.add_peer(2, address_of(one))
        await until(lambda: bool(inbox.greetings))
        one.join("founded")
        inbox.admits.set()

        await until(lambda: caller.status()[2].refusal is Refusal.WRONG_CLUSTER)
        assert (await caller.introduce(address_of(one), 1)).cluster_id == "founded"


async def test_what_becomes_of_a_greeting_is_seen_through_though_its_sender_is_gone() -> None:
    """The cluster may be on the disk by then: to welcome another would be to be in two."""
    one, inbox = newcomer()
    second = knowing(3, "second", Options(greeting_s=0.2))
    inbox.admits.clear()
    async with running(second, one):
        async with grpc.aio.insecure_channel(address_of(one)) as channel:
            await opened(channel).write(encode_batch((), make_hello(cluster_id="first", to_store_id="store-2")))
            await until(lambda: len(inbox.greetings) == 1)
        second.add_peer(2, address_of(one))
        await until(lambda: "not welcomed" in second.status()[2].last_error)
        inbox.admits.set()

        await until(lambda: second.status()[2].refusal is Refusal.WRONG_CLUSTER)
        assert (await second.introduce(address_of(one), 1)).cluster_id == "first"


async def test_a_node_in_no_cluster_is_refused_until_it_joins() -> None:
    mailbox = Mailbox()
    mailbox.admits_strangers = True
    caller, one = make_transport(1, Mailbox(), cluster_id=""), make_transport(2, mailbox)
    async with running(caller, one):
        assert (await refused(caller, one, as_id=2)).startswith("wrong_cluster: ")
        caller.join(CLUSTER_ID)

        await until(lambda: caller.status()[2].is_connected)


@pytest.mark.parametrize("cluster_id", ["", "other"])
async def test_a_node_of_any_cluster_or_none_says_who_it_is(cluster_id: str) -> None:
    mailbox = Mailbox()
    caller, one = make_transport(1, Mailbox()), make_transport(2, mailbox, cluster_id=cluster_id)
    async with running(caller, one):
        introduction = await caller.introduce(address_of(one), 1)

    assert introduction == Introduction(
        node_id=2, store_id="store-2", cluster_id=cluster_id, address=f"{HOST}:0", http_address=f"{HOST}:802"
    )
    assert (mailbox.greetings, one.refused) == ([], {})


async def test_nobody_there_and_nobody_who_answers_are_the_same_to_who_asks() -> None:
    caller = make_transport(1, Mailbox())
    with socket.create_server((HOST, 0)) as silent:
        async with running(caller):
            for address in (f"{HOST}:1", f"{HOST}:{silent.getsockname()[1]}"):
                with pytest.raises(StreamError, match=r"UNAVAILABLE|DEADLINE_EXCEEDED"):
                    await caller.introduce(address, 0.2)


def opened(channel: grpc.aio.Channel) -> "grpc.aio.StreamStreamCall[bytes, bytes]":
    """Open a stream that need not keep to the protocol."""
    return channel.stream_stream("/engram.log.RaftTransport/Messages")()


def greeting(stream: int) -> bytes:
    """Return how node 1 opens its stream number `stream` to node 2."""
    return encode_batch((), make_hello(stream=stream))


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([b"\xff"], "undecodable Batch"),
        ([encode_batch([vote(2, 1)])], "starts with a hello"),
        ([greeting(1), b"\xff"], "undecodable Batch"),
        ([greeting(1), encode_batch([vote(3, 1)])], "sends VOTE from node 1 to node 3"),
        ([greeting(1), encode_batch([vote(2, 1, sender=3)])], "sends VOTE from node 3 to node 2"),
        ([greeting(1), encode_batch([Message(type=MessageType.SNAPSHOT, to=2, sender=1)])], "a snapshot among"),
        ([greeting(1), greeting(1)], "a second hello"),
        ([], "no hello within"),
    ],
)
async def test_a_stream_that_brings_nonsense_is_ended(frames: Sequence[bytes], complaint: str) -> None:
    mailbox = Mailbox()
    mailbox.admits_strangers = True
    one = make_transport(2, mailbox, options=Options(greeting_s=0.2))
    async with running(one):
        async with grpc.aio.insecure_channel(f"{HOST}:{one.port}") as channel:
            call = opened(channel)
            for frame in frames:
                await call.write(frame)
            with contextlib.suppress(grpc.aio.AioRpcError):
                while await call.read():
                    pass
            assert complaint in await call.details()
        assert one.refused == {Refusal.MALFORMED: 1}
    assert mailbox.messages == []


async def test_a_forwarded_message_may_name_another_sender(pair: Pair) -> None:
    forwarded = Message(type=MessageType.TRANSFER_LEADER, to=2, sender=3)

    pair.first.send([forwarded])

    await pair.inbox.until_received(1)
    assert pair.inbox.messages == [forwarded]


async def test_a_newer_stream_of_a_node_replaces_the_older() -> None:
    mailbox = Mailbox()
    mailbox.admits_strangers = True
    one = make_transport(2, mailbox)
    async with running(one), grpc.aio.insecure_channel(f"{HOST}:{one.port}") as channel:
        calls: list[grpc.aio.StreamStreamCall[bytes, bytes]] = []
        for hello in (greeting(1), greeting(2)):
            call = opened(channel)
            await call.write(hello)
            await call.read()
            calls.append(call)
        await calls[0].write(encode_batch([vote(2, 1)]))
        await calls[1].write(encode_batch([vote(2, 2)]))

        assert "stream 1 was replaced" in await calls[0].details()
        await mailbox.until_received(1)
        assert mailbox.messages == [vote(2, 2)]


# Failing.


async def test_an_address_that_is_taken_is_a_mistake_in_the_settings(pair: Pair) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen at {HOST}:{pair.first.port}"):
        await make_transport(3, Mailbox(), port=pair.first.port).run()


class Broken(Mailbox):
    """A listener that fails, with an error that a stream could have had as well."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def received(self, messages: Sequence[Message]) -> None:
        raise self._error

    def unreachable(self, node_id: int) -> None:
        raise self._error


@pytest.mark.parametrize("error", [ZeroDivisionError(), TimeoutError(), MalformedError(), grpc.aio.UsageError()])
async def test_a_listener_that_fails_on_a_message_stops_the_transport(error: Exception) -> None:
    first, second = make_transport(1, Mailbox()), make_transport(2, Broken(error))
    async with running(first):
        second.add_peer(1, address_of(first))
        run = asyncio.gather(second.run(), return_exceptions=True)
        await second.wait_ready()
        first.add_peer(2, address_of(second))
        first.send([vote(2, 1)])

        assert (await run)[0] is error


async def test_a_listener_that_fails_on_a_report_stops_the_transport() -> None:
    error = ZeroDivisionError()
    first = make_transport(1, Broken(error))
    run = asyncio.gather(first.run(), return_exceptions=True)
    await first.wait_ready()
    first.add_peer(2, f"{HOST}:1")
    first.send([vote(2, 1)])

    assert (await run)[0] is error


# With the core.


@contextlib.asynccontextmanager
async def cluster() -> AsyncIterator[list[Node]]:
    """Run three nodes of the core, who know one another."""
    nodes = [Node(node_id, (1, 2, 3)) for node_id in (1, 2, 3)]
    async with running(*(node.transport for node in nodes)):
        for node in nodes:
            for other in nodes:
                if other is not node:
                    node.transport.add_peer(other.id, address_of(other.transport))
            node.start_ticking()
        yield nodes
        for node in nodes:
            node.is_stopped = True


async def elected(nodes: Sequence[Node]) -> Node:
    await until(lambda: any(node.leads for node in nodes))
    return next(node for node in nodes if node.leads)


async def replicate(leader: Node, nodes: Sequence[Node], entries: Sequence[bytes]) -> None:
    """Propose `entries`, not too many at a time for a slow machine, and wait until all of `nodes` have applied them."""
    for start in range(0, len(entries), 50):
        some = entries[start : start + 50]
        for entry in some:
            leader.propose(entry)
            await asyncio.sleep(0)
        await until(partial(have_applied, nodes, some[-1]))


def have_applied(nodes: Sequence[Node], entry: bytes) -> bool:
    return all(node.applied and node.applied[-1] == entry for node in nodes)


async def test_three_nodes_elect_a_leader_and_replicate() -> None:
    entries = [b"%d" % number for number in range(1_000)]
    async with cluster() as nodes:
        await replicate(await elected(nodes), nodes, entries)

        assert [node.applied for node in nodes] == [entries] * 3
        assert [node.refused for node in nodes] == [[]] * 3


async def test_two_of_three_nodes_go_on_without_their_leader() -> None:
    async with cluster() as nodes:
        leader = await elected(nodes)
        await replicate(leader, nodes, [b"before"])
        leader.is_stopped = True
        await leader.transport.stop()
        others = [node for node in nodes if node is not leader]

        await replicate(await elected(others), others, [b"after"])

        assert [node.applied for node in others] == [[b"before", b"after"]] * 2
        assert not any(node.transport.status()[leader.id].is_connected for node in others)


async def test_proposals_of_a_follower_reach_the_leader_over_the_wire() -> None:
    async with cluster() as nodes:
        leader = await elected(nodes)
        await replicate(leader, nodes, [b"first"])
        follower = next(node for node in nodes if node is not leader)

        await replicate(follower, nodes, [b"second"])

        assert [node.applied for node in nodes] == [[b"first", b"second"]] * 3


async def test_work_that_is_cancelled_before_it_has_begun_is_over() -> None:
    transport = make_transport(1, Mailbox())

    async def work() -> None:
        raise AssertionError("it was cancelled before")

    begun = work()
    async with running(transport), asyncio.TaskGroup() as group:
        doing = group.create_task(transport.complete(begun))
        others = asyncio.all_tasks()
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - others:
            task.cancel()

    assert doing.cancelled()
    assert inspect.getcoroutinestate(begun) == inspect.CORO_CLOSED
