"""Rows for a node that lacks them, over real sockets: whole, broken, damaged, replaced, and slow."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter

import grpc
import grpc.aio
import pytest

from engram.log.codec import (
    Hello,
    SnapshotAnswer,
    SnapshotFrame,
    SnapshotPart,
    Welcome,
    decode_answer,
    encode_answer,
    encode_frame,
    encode_rows,
)
from engram.log.consensus.types import ConfState, Entry, Message, MessageType, Snapshot, SnapshotMeta
from engram.log.handshake import Refusal
from engram.log.peer import Options
from engram.log.snapshots import PART_BYTES_MAX, PART_ROWS_MAX
from tests.log.nodes import CLUSTER_ID, HOST, Mailbox, address_of, make_hello, make_transport, running, until, vote

pytestmark = pytest.mark.usefixtures("channels_end_here")

KIB, MIB = 1024, 1024 * 1024
PROMPT = Options(snapshot_pause_s=0.02)


def rows(count: int, size: int = 100) -> list[Entry]:
    return [Entry(1, index, data=index.to_bytes(8, "big") * (size // 8)) for index in range(1, count + 1)]


def snapshot(index: int, *, to: int = 2, sender: int = 1, term: int = 3) -> Message:
    meta = SnapshotMeta(index, 1, ConfState(voters=(1, 2)))
    return Message(type=MessageType.SNAPSHOT, to=to, sender=sender, term=term, snapshot=Snapshot(meta, b"book"))


class Leader:
    """Node 1, which has rows, and node 2, which lacks them and lets everybody in."""

    def __init__(self, history: Sequence[Entry], options: Options = PROMPT, follower_options: Options = PROMPT) -> None:
        self.mailbox, self.follower_mailbox = Mailbox(), Mailbox()
        self.follower_mailbox.admits_strangers = True
        self.mailbox.rows = list(history)
        self.transport = make_transport(1, self.mailbox, options=options)
        self.follower = make_transport(2, self.follower_mailbox, options=follower_options)

    async def until_sent(self, count: int = 1) -> list[bool]:
        """Return how `count` transfers ended."""
        await self.mailbox.until(lambda mailbox: len(mailbox.sent) >= count)
        return [ok for _, ok in self.mailbox.sent]

    @property
    def sent_rows(self) -> int:
        progress = self.transport.snapshots().get(2)
        return 0 if progress is None else progress.sent_rows

    @property
    def error(self) -> str:
        return self.transport.snapshots()[2].last_error


@asynccontextmanager
async def leading(leader: Leader) -> AsyncIterator[Leader]:
    async with running(leader.transport, leader.follower):
        leader.transport.add_peer(2, address_of(leader.follower))
        yield leader


# What arrives.


async def test_the_rows_arrive_before_the_message_and_then_the_sender_knows() -> None:
    async with leading(Leader(rows(3_000, 1_000))) as leader:
        message = snapshot(2_900)

        leader.transport.send([message])

        assert await leader.until_sent() == [True]
        inbox, progress = leader.follower_mailbox, leader.transport.snapshots()[2]
        assert inbox.rows == rows(2_900, 1_000)
        assert inbox.arrived == [message]
        assert leader.mailbox.sent == [(2, True)]
        assert max(inbox.staged) * 1_000 <= PART_BYTES_MAX
        assert (progress.index, progress.up_to, progress.sent_rows, progress.is_running) == (2_900, 2_900, 2_900, False)
        assert progress.sent_bytes > 2_900 * 1_000


async def test_a_row_larger_than_a_part_is_a_part_of_its_own() -> None:
    history = [*rows(3), Entry(1, 4, data=bytes(4 * MIB)), Entry(1, 5, data=b"after")]
    async with leading(Leader(history)) as leader:
        leader.transport.send([snapshot(5)])

        assert await leader.until_sent() == [True]
        assert leader.follower_mailbox.rows == history
        assert leader.follower_mailbox.staged == [3, 1, 1]


async def test_small_rows_come_in_parts_too() -> None:
    async with leading(Leader(rows(2 * PART_ROWS_MAX + 1, 8))) as leader:
        leader.transport.send([snapshot(2 * PART_ROWS_MAX + 1)])

        assert await leader.until_sent() == [True]
        assert max(leader.follower_mailbox.staged) == PART_ROWS_MAX


async def test_only_the_rows_that_are_lacking_are_sent() -> None:
    async with leading(Leader(rows(100))) as leader:
        leader.follower_mailbox.rows = rows(60)

        leader.transport.send([snapshot(100)])

        assert await leader.until_sent() == [True]
        assert leader.follower_mailbox.staged == [40]
        assert leader.follower_mailbox.rows == rows(100)


@pytest.mark.parametrize("held", [100, 120])
async def test_a_node_that_has_all_the_rows_still_gets_the_message(held: int) -> None:
    async with leading(Leader(rows(100))) as leader:
        leader.follower_mailbox.rows = rows(held)

        leader.transport.send([snapshot(100)])

        assert await leader.until_sent() == [True]
        assert leader.follower_mailbox.staged == []
        assert leader.follower_mailbox.arrived == [snapshot(100)]


async def test_messages_pass_while_rows_travel() -> None:
    """On a connection of their own, and with their own flow control."""
    async with leading(Leader(rows(400, 64 * KIB))) as leader:
        leader.follower_mailbox.takes_rows.clear()
        leader.transport.send([snapshot(400)])
        await until(lambda: leader.sent_rows > 0)

        leader.transport.send([vote(2, 7)])

        await leader.follower_mailbox.until_received(1)
        assert leader.transport.snapshots()[2].is_running
        leader.follower_mailbox.takes_rows.set()
        assert await leader.until_sent() == [True]


async def test_rows_leave_no_faster_than_they_may() -> None:
    """3 MiB at 8 MiB/s: the first part leaves at once, the rest in the time that it takes."""
    options = Options(snapshot_bytes_per_s=8 * MIB)
    async with leading(Leader(rows(48, 64 * KIB), options)) as leader:
        started_s = perf_counter()

        leader.transport.send([snapshot(48)])

        assert await leader.until_sent() == [True]
        assert perf_counter() - started_s > (3 - 0.5) / 8


# What breaks.


async def test_a_transfer_that_broke_goes_on_where_it_ended() -> None:
    again_mailbox = Mailbox()
    leader = Leader(rows(400, 64 * KIB))
    again_mailbox.admits_strangers = True
    async with running(leader.transport):
        async with running(leader.follower):
            leader.transport.add_peer(2, address_of(leader.follower))
            leader.transport.send([snapshot(400)])
            await leader.follower_mailbox.until(lambda mailbox: len(mailbox.staged) >= 2)
            leader.follower_mailbox.takes_rows.clear()
        assert await leader.until_sent() == [False]
        held = list(leader.follower_mailbox.rows)
        assert 0 < len(held) < 400

        again = make_transport(2, again_mailbox, boot_epoch=2, port=leader.follower.port)
        again_mailbox.rows = list(held)
        async with running(again):
            leader.transport.send([snapshot(400)])

            assert await leader.until_sent(2) == [False, True]
            assert again_mailbox.rows == rows(400, 64 * KIB)
            assert sum(again_mailbox.staged) == 400 - len(held)
            assert leader.follower_mailbox.arrived == []


async def test_a_node_that_is_away_is_reported_after_a_pause() -> None:
    leader = Leader(rows(10), Options(snapshot_pause_s=0.1))
    async with running(leader.transport):
        leader.transport.add_peer(2, f"{HOST}:1")
        started_s = perf_counter()

        leader.transport.send([snapshot(10)])

        assert await leader.until_sent() == [False]
        assert perf_counter() - started_s >= 0.1
        assert "refused" in leader.error


async def test_a_snapshot_for_a_node_that_is_no_peer_is_reported() -> None:
    leader = Leader(rows(10))
    async with running(leader.transport):
        leader.transport.send([snapshot(10)])

        assert await leader.until_sent() == [False]
        assert leader.error == "node 2 is not a peer"


async def test_a_slow_receiver_holds_the_sender_up_until_it_is_given_up() -> None:
    """128 MiB of rows for a node that takes none: what both ends and the way between them hold is little of it."""
    data = bytes(MIB)
    history = [Entry(1, index, data=data) for index in range(1, 129)]
    leader = Leader(history, Options(snapshot_pause_s=0.01, snapshot_progress_s=0.5, snapshot_bytes_per_s=1e9))
    async with leading(leader):
        leader.follower_mailbox.takes_rows.clear()

        leader.transport.send([snapshot(128)])

        assert await leader.until_sent() == [False]
        assert leader.error == "no progress in time"
        assert leader.transport.snapshots()[2].sent_bytes <= 16 * MIB
        assert leader.follower_mailbox.arrived == []


async def test_history_that_is_gone_cannot_be_sent() -> None:
    async with leading(Leader(rows(10))) as leader:
        del leader.mailbox.rows[:4]

        leader.transport.send([snapshot(10)])

        assert await leader.until_sent() == [False]
        assert leader.error == "row 1 is not in the log of this node any more"
        assert leader.follower_mailbox.rows == []


@asynccontextmanager
async def answering(answers: Sequence[SnapshotAnswer]) -> AsyncIterator[int]:
    """Run a receiver that gives two of `answers` to the offer, and the others when all has come; return its port."""

    async def serve(_: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        await context.read()
        for answer in answers[:2]:
            await context.write(encode_answer(answer))
        while isinstance(await context.read(), bytes):
            pass
        for answer in answers[2:]:
            await context.write(encode_answer(answer))

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(serve)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("engram.log.RaftTransport", {"Snapshot": handler})]
    )
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    yield port
    await server.stop(None)


def welcomed(store_id: str = "store-2") -> SnapshotAnswer:
    welcome = Welcome(cluster_id=CLUSTER_ID, node_id=2, boot_epoch=1, store_id=store_id, http_address="")
    return SnapshotAnswer(welcome=welcome)


AFTER = SnapshotAnswer(after=0)


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([AFTER], "no welcome was answered"),
        ([welcomed(), welcomed()], "where to go on from was not answered"),
        ([welcomed(), AFTER, AFTER], "something else than that it is installed was answered"),
        ([welcomed(), AFTER], "the other end closed the stream"),
        ([welcomed("wiped")], "node 2 has store 'wiped', and is known with 'store-2'"),
    ],
)
async def test_only_a_receiver_that_says_so_has_taken_a_snapshot(answers: list[SnapshotAnswer], error: str) -> None:
    leader = Leader(rows(5))
    leader.mailbox.stores = {2: "store-2"}
    async with running(leader.transport), answering(answers) as port:
        leader.transport.add_peer(2, f"{HOST}:{port}")
        leader.transport.send([snapshot(5)])

        assert await leader.until_sent() == [False]
        assert error in leader.error


# One at a time.


async def test_one_transfer_leaves_at_a_time() -> None:
    leader, third_mailbox = Leader(rows(100)), Mailbox()
    third_mailbox.admits_strangers = True
    third = make_transport(3, third_mailbox)
    async with leading(leader), running(third):
        leader.transport.add_peer(3, address_of(third))
        leader.follower_mailbox.takes_rows.clear()
        leader.transport.send([snapshot(100), snapshot(100, to=3)])
        await until(lambda: leader.sent_rows == 100)

        assert 3 not in leader.transport.snapshots()
        assert third_mailbox.rows == []
        leader.follower_mailbox.takes_rows.set()

        await leader.until_sent(2)
        assert leader.mailbox.sent == [(2, True), (3, True)]
        assert third_mailbox.rows == rows(100)


async def test_a_newer_snapshot_takes_the_place_of_one_that_waits() -> None:
    leader, third_mailbox = Leader(rows(100)), Mailbox()
    third_mailbox.admits_strangers = True
    third = make_transport(3, third_mailbox)
    async with leading(leader), running(third):
        leader.transport.add_peer(3, address_of(third))
        leader.follower_mailbox.takes_rows.clear()
        leader.transport.send([snapshot(100)])
        await until(lambda: leader.sent_rows == 100)
        leader.transport.send([snapshot(50, to=3), snapshot(90, to=3)])
        leader.follower_mailbox.takes_rows.set()

        await leader.until_sent(2)
        assert leader.mailbox.sent == [(2, True), (3, True)]
        assert third_mailbox.arrived == [snapshot(90, to=3)]


async def test_a_newer_snapshot_ends_the_transfer_for_an_older_and_goes_on_from_it() -> None:
    async with leading(Leader(rows(200, 64 * KIB))) as leader:
        inbox = leader.follower_mailbox
        leader.transport.send([snapshot(100)])
        await inbox.until(lambda mailbox: bool(mailbox.staged))
        inbox.takes_rows.clear()
        leader.transport.send([snapshot(100)])
        leader.transport.send([snapshot(200, term=4)])
        await until(lambda: leader.transport.snapshots()[2].up_to == 200)
        inbox.takes_rows.set()

        assert await leader.until_sent() == [True]
        assert inbox.rows == rows(200, 64 * KIB)
        assert inbox.arrived == [snapshot(200, term=4)]
        assert leader.mailbox.sent == [(2, True)]


async def test_the_same_snapshot_again_changes_nothing() -> None:
    async with leading(Leader(rows(200, 64 * KIB))) as leader:
        leader.follower_mailbox.takes_rows.clear()
        leader.transport.send([snapshot(200)])
        await until(lambda: leader.sent_rows > 0)
        leader.transport.send([snapshot(200)])
        leader.follower_mailbox.takes_rows.set()

        assert await leader.until_sent() == [True]
        assert len(leader.follower_mailbox.greetings) == 2  # one for messages, one for rows


async def test_an_older_snapshot_that_comes_again_is_the_newest() -> None:
    """What counts is what was asked for last, though the transfer that was to be for it is ending already."""
    async with leading(Leader(rows(200, 64 * KIB))) as leader:
        leader.follower_mailbox.takes_rows.clear()
        leader.transport.send([snapshot(200)])
        await until(lambda: leader.sent_rows > 0)
        leader.transport.send([snapshot(100), snapshot(200)])
        leader.follower_mailbox.takes_rows.set()

        assert await leader.until_sent() == [True]
        assert leader.follower_mailbox.arrived == [snapshot(200)]
        assert leader.follower_mailbox.rows == rows(200, 64 * KIB)


async def test_a_node_that_is_removed_gets_no_more_rows() -> None:
    async with leading(Leader(rows(400, 64 * KIB))) as leader:
        leader.transport.send([snapshot(400)])
        await leader.follower_mailbox.until(lambda mailbox: bool(mailbox.staged))
        leader.follower_mailbox.takes_rows.clear()

        leader.transport.remove_peer(2)
        leader.follower_mailbox.takes_rows.set()
        leader.transport.send([snapshot(400, to=3)])

        await leader.until_sent()
        assert leader.mailbox.sent == [(3, False)]
        assert leader.follower_mailbox.arrived == []
        assert 2 not in leader.transport.snapshots()


# What a receiver refuses.


class Transfer:
    """A sender that need not keep to the protocol, at the door of node 2."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(
            "/engram.log.RaftTransport/Snapshot"
        )()
        self._digest = hashlib.sha256()

    async def open(self, offer: Message, hello: Hello) -> int | None:
        await self.greet(offer, hello)
        return await self.after()

    async def greet(self, offer: Message, hello: Hello) -> None:
        await self._call.write(encode_frame(SnapshotFrame(hello=hello, offer=offer)))
        answer = await self._call.read()
        assert isinstance(answer, bytes)
        assert decode_answer(answer).welcome is not None

    async def after(self) -> int | None:
        answer = await self._call.read()
        assert isinstance(answer, bytes)
        return decode_answer(answer).after

    async def send(self, frame: SnapshotFrame) -> None:
        await self._call.write(encode_frame(frame))

    async def send_bytes(self, frame: bytes) -> None:
        await self._call.write(frame)

    def part(self, entries: Sequence[Entry], *, is_last: bool = False) -> SnapshotFrame:
        encoded = encode_rows(entries)
        self._digest.update(encoded)
        return SnapshotFrame(part=SnapshotPart(rows=encoded, sha256=self._digest.digest(), is_last=is_last))

    async def complaint(self) -> str:
        details = await self._call.details()
        return str(details)

    async def is_installed(self) -> bool:
        answer = await self._call.read()
        return isinstance(answer, bytes) and decode_answer(answer).is_installed


class Door:
    """Node 2, and a way to it."""

    def __init__(self, options: Options | None = None) -> None:
        self.mailbox = Mailbox()
        self.mailbox.admits_strangers = True
        self.transport = make_transport(2, self.mailbox, options=options)


@asynccontextmanager
async def at_the_door(options: Options | None = None) -> AsyncIterator[tuple[Door, grpc.aio.Channel]]:
    door = Door(options)
    async with running(door.transport), grpc.aio.insecure_channel(f"{HOST}:{door.transport.port}") as channel:
        yield door, channel


async def test_a_transfer_by_the_book_is_taken() -> None:
    """So that the refusals below are for what they say."""
    async with at_the_door() as (door, channel):
        transfer = Transfer(channel)
        assert await transfer.open(snapshot(4), make_hello()) == 0
        await transfer.send(transfer.part(rows(4)[:2]))
        await transfer.send(transfer.part(rows(4)[2:], is_last=True))

        assert await transfer.is_installed()
        assert (door.mailbox.rows, door.mailbox.arrived) == (rows(4), [snapshot(4)])


async def test_a_damaged_part_is_not_staged() -> None:
    async with at_the_door() as (door, channel):
        transfer = Transfer(channel)
        await transfer.open(snapshot(4), make_hello())
        await transfer.send(transfer.part(rows(4)[:2]))
        frame = bytearray(encode_frame(transfer.part(rows(4)[2:], is_last=True)))
        frame[frame.index((3).to_bytes(8, "big"))] ^= 1
        await transfer.send_bytes(bytes(frame))

        assert "fails its checksum" in await transfer.complaint()
        assert (door.mailbox.rows, door.mailbox.arrived) == (rows(2), [])
        assert door.transport.refused == {Refusal.MALFORMED: 1}


async def test_rows_with_another_digest_are_not_staged() -> None:
    async with at_the_door() as (door, channel):
        transfer = Transfer(channel)
        await transfer.open(snapshot(4), make_hello())
        await transfer.send(transfer.part(rows(4)[:2]))
        part = SnapshotPart(rows=encode_rows(rows(4)[2:]), sha256=bytes(32), is_last=True)
        await transfer.send(SnapshotFrame(part=part))

        assert "the rows after 2 are not those that were sent" in await transfer.complaint()
        assert (door.mailbox.rows, door.mailbox.arrived) == (rows(2), [])


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        (rows(4)[1:], "row 2 came in place of row 1"),
        ([rows(4)[0], rows(4)[2]], "row 3 came in place of row 2"),
        (rows(5), "row 5 is beyond the snapshot, which ends at 4"),
        (rows(3), "the rows end at 3, those of the snapshot at 4"),
    ],
)
async def test_rows_that_are_not_those_of_the_snapshot_are_refused(entries: list[Entry], complaint: str) -> None:
    async with at_the_door() as (door, channel):
        transfer = Transfer(channel)
        await transfer.open(snapshot(4), make_hello())
        await transfer.send(transfer.part(entries, is_last=True))

        assert complaint in await transfer.complaint()
        assert door.mailbox.arrived == []


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (SnapshotFrame(), "starts with a hello and an offer"),
        (SnapshotFrame(hello=make_hello()), "starts with a hello and an offer"),
        (SnapshotFrame(hello=make_hello(), offer=vote(2, 1)), "node 1 offers VOTE in place of a snapshot"),
        (
            SnapshotFrame(hello=make_hello(), offer=snapshot(4, sender=3)),
            "node 1 offers a snapshot of node 3 to node 2",
        ),
        (SnapshotFrame(hello=make_hello(cluster_id="other"), offer=snapshot(4)), "belongs to cluster 'other'"),
        (SnapshotFrame(hello=make_hello(to_store_id="lost"), offer=snapshot(4)), "wants store 'lost' of node 2"),
        (SnapshotFrame(hello=make_hello(store_id="lost"), offer=snapshot(4)), "node 1 has store 'lost'"),
        (SnapshotFrame(hello=make_hello(sender=2), offer=snapshot(4, sender=2)), "node 2 is this node itself"),
    ],
)
async def test_an_offer_that_is_none_or_not_for_this_node_is_refused(frame: SnapshotFrame, complaint: str) -> None:
    async with at_the_door() as (door, channel):
        door.mailbox.stores = {1: "store-1"}
        transfer = Transfer(channel)
        await transfer.send(frame)

        assert complaint in await transfer.complaint()
        assert door.mailbox.rows == []


async def test_a_stranger_may_not_send_rows() -> None:
    async with at_the_door() as (door, channel):
        door.mailbox.admits_strangers = False
        transfer = Transfer(channel)
        await transfer.send(SnapshotFrame(hello=make_hello(), offer=snapshot(4)))

        assert "node 1 is not a peer" in await transfer.complaint()


async def test_a_sender_that_says_nothing_is_given_up() -> None:
    async with at_the_door(Options(snapshot_progress_s=0.1)) as (_, channel):
        transfer = Transfer(channel)
        await transfer.open(snapshot(4), make_hello())

        assert "no part of a snapshot within 0.1 s" in await transfer.complaint()


async def test_a_newer_transfer_ends_the_older() -> None:
    async with at_the_door() as (door, channel):
        old, new = Transfer(channel), Transfer(channel)
        await old.open(snapshot(4), make_hello(stream=1))
        await old.send(old.part(rows(4)[:2]))
        await door.mailbox.until(lambda mailbox: bool(mailbox.staged))

        assert await new.open(snapshot(4, sender=3, term=4), make_hello(sender=3, store_id="store-3")) == 2
        await old.send(old.part(rows(4)[2:]))
        assert "the transfer of node 1 was replaced" in await old.complaint()

        await new.send(new.part(rows(4)[2:], is_last=True))
        assert await new.is_installed()
        assert (door.mailbox.rows, door.mailbox.arrived) == (rows(4), [snapshot(4, sender=3, term=4)])


async def test_a_node_that_is_removed_sends_no_more_rows() -> None:
    async with at_the_door() as (door, channel):
        transfer = Transfer(channel)
        await transfer.open(snapshot(4), make_hello())

        door.transport.remove_peer(1)

        await transfer.send(transfer.part(rows(4), is_last=True))
        assert "or the node removed" in await transfer.complaint()
        assert (door.mailbox.rows, door.mailbox.arrived) == ([], [])


async def test_a_transfer_of_an_earlier_term_does_not_end_that_of_a_later() -> None:
    async with at_the_door() as (_, channel):
        new, old = Transfer(channel), Transfer(channel)
        await new.open(snapshot(4, sender=3, term=4), make_hello(sender=3, store_id="store-3"))
        await old.send(SnapshotFrame(hello=make_hello(), offer=snapshot(4)))

        assert "node 3 is sending a snapshot in a later term" in await old.complaint()
        await new.send(new.part(rows(4), is_last=True))
        assert await new.is_installed()


async def test_an_older_transfer_of_the_same_node_is_stale() -> None:
    async with at_the_door() as (_, channel):
        new, old = Transfer(channel), Transfer(channel)
        await new.open(snapshot(4), make_hello(stream=5))
        await old.send(SnapshotFrame(hello=make_hello(stream=4), offer=snapshot(4)))

        assert "transfer 4 comes after 5" in await old.complaint()


async def test_rows_that_are_being_staged_are_staged_to_the_end_whoever_leaves() -> None:
    """Else the next transfer would be told of too few, or of some that are only half there."""
    async with at_the_door() as (door, channel):
        door.mailbox.takes_rows.clear()
        async with grpc.aio.insecure_channel(f"{HOST}:{door.transport.port}") as gone:
            old = Transfer(gone)
            await old.open(snapshot(4), make_hello(stream=1))
            await old.send(old.part(rows(4)[:2]))
            await until(lambda: door.mailbox.is_taking_rows)
        new = Transfer(channel)
        await new.greet(snapshot(4), make_hello(stream=2))
        await door.transport.introduce(address_of(door.transport), 5)  # its turn has come, if it need not wait
        assert door.mailbox.offers == 1
        door.mailbox.takes_rows.set()

        assert await new.after() == 2


class Broken(Mailbox):
    """A listener whose disk fails."""

    async def snapshot_rows(self, entries: Sequence[Entry]) -> None:
        raise ZeroDivisionError

    async def snapshot_read(self, after: int, up_to: int) -> Sequence[Entry]:
        raise ZeroDivisionError


async def test_a_receiver_that_cannot_stage_stops() -> None:
    leader, broken = Leader(rows(10)), Broken()
    broken.admits_strangers = True
    second = make_transport(2, broken)
    async with running(leader.transport):
        run = asyncio.gather(second.run(), return_exceptions=True)
        await second.wait_ready()
        leader.transport.add_peer(2, address_of(second))
        leader.transport.send([snapshot(10)])

        assert isinstance((await run)[0], ZeroDivisionError)
        assert await leader.until_sent() == [False]


async def test_a_sender_that_cannot_read_stops() -> None:
    leader = Leader([])
    first = make_transport(1, Broken())
    async with running(leader.follower):
        run = asyncio.gather(first.run(), return_exceptions=True)
        await first.wait_ready()
        first.add_peer(2, address_of(leader.follower))
        first.send([snapshot(10)])

        assert isinstance((await run)[0], ZeroDivisionError)


async def test_stopping_takes_less_than_a_second_in_the_middle_of_a_transfer() -> None:
    async with leading(Leader(rows(400, 64 * KIB))) as leader:
        leader.follower_mailbox.takes_rows.clear()
        leader.transport.send([snapshot(400)])
        await until(lambda: leader.follower_mailbox.is_taking_rows)
        started_s = perf_counter()

        await leader.follower.stop()
        await leader.transport.stop()

        assert perf_counter() - started_s < 1
