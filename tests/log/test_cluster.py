"""Several nodes with real logs and real connections: what an operator does to them, and what becomes of writes."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from engram.errors import (
    ConflictError,
    HandingOverError,
    InvalidError,
    NoLeaderError,
    NotLeaderError,
    NotReadyError,
    TransferError,
)
from engram.log.consensus.types import Change, ChangeKind, ConfChange, Message, MessageType
from engram.log.handshake import Refusal
from engram.log.members import Member, encode_book
from engram.log.options import Options
from tests.log.clusters import formed, nodes
from tests.log.nodes import until

pytestmark = pytest.mark.usefixtures("channels_end_here")

# Forming.


async def test_three_empty_nodes_form_a_cluster(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        status = cluster[2].cluster.status()

        assert status.cluster_id == cluster[1].log.state.cluster_id != ""
        assert [(member.node_id, member.is_voter) for member in status.members] == [(1, True), (2, True), (3, True)]
        assert [member.http_address for member in status.members] == [
            "127.0.0.1:3001",
            "127.0.0.1:3002",
            "127.0.0.1:3003",
        ]
        assert status.role == "Follower"
        assert cluster[3].cluster.leader_http() == "127.0.0.1:3001"


async def test_forming_again_changes_nothing(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        before = cluster[1].log.state.cluster_id

        await cluster[1].cluster.initialize()
        await cluster[2].cluster.initialize()

        assert cluster[1].log.state.cluster_id == cluster[2].log.state.cluster_id == before


async def test_nothing_is_formed_while_a_peer_is_away(tmp_path: Path) -> None:
    async with nodes(tmp_path) as cluster:
        await cluster.start(1, 2)
        cluster[1].peers[3] = "127.0.0.1:1"

        with pytest.raises(NotReadyError, match=r"node 3 does not answer at 127\.0\.0\.1:1"):
            await cluster[1].cluster.initialize()

        assert cluster[1].log.state.cluster_id == ""
        assert cluster[1].cluster.status().role == "Learner"
        del cluster[1].peers[3]
        await cluster[1].cluster.initialize()
        await cluster.until_led()


async def test_two_nodes_cannot_form_two_clusters_at_once(tmp_path: Path) -> None:
    async with nodes(tmp_path) as cluster:
        await cluster.start(1, 2, 3)

        await asyncio.gather(*(cluster[node_id].cluster.initialize() for node_id in (1, 2, 3)), return_exceptions=True)
        if not any(node.log.state.cluster_id for node in cluster.running):  # each saw that another was at it
            await cluster[1].cluster.initialize()
        await cluster.until_led()

        assert len({node.log.state.cluster_id for node in cluster.running}) == 1


async def test_a_node_of_another_cluster_is_not_taken(tmp_path: Path) -> None:
    async with formed(tmp_path, 1) as cluster:
        await cluster.start(2)
        cluster[2].peers[1] = cluster[1].address

        with pytest.raises(ConflictError, match=r"node 1 .* belongs to a cluster already") as raised:
            await cluster[2].cluster.initialize()

        assert raised.value.code == "already_clustered"


async def test_a_node_that_ran_alone_brings_its_log_into_the_cluster(tmp_path: Path) -> None:
    async with nodes(tmp_path) as cluster:
        alone = cluster.make(1)
        alone.is_standalone = True
        await alone.start()
        await alone.replica.wait_ready()
        await alone.commit(b"one", b"two")
        await alone.stop()
        await cluster.start(2, 3)
        alone.is_standalone = False
        alone.peers = {2: cluster[2].address, 3: cluster[3].address}
        await alone.start()
        await alone.replica.wait_ready()

        await alone.cluster.initialize()
        await cluster.until_equal()

        assert [member.is_voter for member in cluster[3].cluster.status().members] == [True, True, True]
        assert await cluster[3].payloads() == [b"one", b"two"]


# Writing.


async def test_what_is_committed_is_on_every_node(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        await cluster.leader.commit(*(b"%d" % number for number in range(200)))
        await cluster.until_equal()

        for node in cluster.running:
            assert await node.payloads() == [b"%d" % number for number in range(200)]


async def test_only_the_leader_takes_proposals(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        follower = next(node for node in cluster.running if not node.replica.is_leader)

        with pytest.raises(NotLeaderError) as raised:
            follower.replica.propose(b"one")

        assert raised.value.leader_id == cluster.leader.id


async def test_what_was_given_a_place_has_it_whatever_comes_next(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        leader = cluster.leader

        position = leader.replica.propose(b"one")
        newer = Message(type=MessageType.HEARTBEAT, to=leader.id, sender=2, term=position.term + 1)
        leader.replica.receive([newer])

        assert not leader.replica.is_leader
        assert leader.replica.status().last_index == position.log_index


async def test_a_new_leader_keeps_what_was_committed(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        await cluster.leader.commit(b"one")
        old = cluster.leader

        await old.crash()
        new = await cluster.until_led()
        await new.commit(b"two")
        await old.start()
        await cluster.until_equal()

        assert new is not old
        for node in cluster.running:
            assert await node.payloads() == [b"one", b"two"]


async def test_a_dead_leader_is_replaced_before_its_followers_time_out(tmp_path: Path) -> None:
    patient = Options(tick_s=0.01, heartbeat_ticks=2, election_ticks=3000)  # half a minute
    async with formed(tmp_path, options=patient) as cluster:
        old = cluster.leader

        await old.crash()

        assert await cluster.until_led() is not old


async def test_a_cluster_without_a_majority_takes_nothing(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        leader = cluster.leader
        for node in cluster.running:
            if node is not leader:
                await node.crash()

        await until(lambda: not leader.replica.is_leader)

        with pytest.raises(NoLeaderError):
            leader.replica.propose(b"one")
        with pytest.raises(NoLeaderError):
            await leader.cluster.read_index()
        assert leader.cluster.leader_http() is None


async def test_all_nodes_come_back_from_their_disks(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        await cluster.leader.commit(*(b"%d" % number for number in range(50)))
        all_nodes = cluster.running
        for node in all_nodes:
            await node.crash()

        for node in all_nodes:
            await node.start()
        await cluster.until_led()
        await cluster.until_equal()

        for node in cluster.running:
            assert await node.payloads() == [b"%d" % number for number in range(50)]


# Reading.


async def test_a_linearizable_read_sees_what_was_committed_anywhere(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        for _ in range(5):
            position = await cluster.leader.commit(b"one")
            for node in cluster.running:
                assert await node.cluster.read_index() >= position.log_index


async def test_many_reads_share_a_question(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        position = await cluster.leader.commit(b"one")
        before = cluster.leader.exchange.transport.status()[2].sent_messages

        indexes = await asyncio.gather(*(cluster.leader.cluster.read_index() for _ in range(500)))

        assert min(indexes) >= position.log_index
        assert cluster.leader.exchange.transport.status()[2].sent_messages - before < 100


# Snapshots.


async def test_a_node_far_behind_gets_the_history(tmp_path: Path) -> None:
    options = Options(tick_s=0.01, heartbeat_ticks=2, election_ticks=20, snapshot_threshold=100)
    async with formed(tmp_path, options=options, window_bytes_max=20_000) as cluster:
        away = next(node for node in cluster.running if not node.replica.is_leader)
        await away.crash()
        payloads = [b"%d" % number + bytes(200) for number in range(1000)]
        for start in range(0, len(payloads), 50):
            await cluster.leader.commit(*payloads[start : start + 50])
        assert cluster.leader.log.first_index() > away.log.last_index() + 1

        await away.start()
        await cluster.until_equal()

        assert await away.payloads() == payloads
        assert away.log.state.base_index > 500
        assert cluster.leader.exchange.transport.snapshots()[away.id].sent_rows > 500


async def test_a_node_a_little_behind_gets_entries_although_the_base_moved(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        away = next(node for node in cluster.running if not node.replica.is_leader)
        await away.crash()
        await cluster.leader.commit(*(b"%d" % number for number in range(50)))
        await cluster.leader.cluster.snapshot()

        await away.start()
        await cluster.until_equal()

        assert await away.payloads() == [b"%d" % number for number in range(50)]
        assert cluster.leader.exchange.transport.snapshots()[away.id].up_to == 1  # from when the cluster was formed


# Membership.


async def test_a_node_is_added_while_others_write(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        await cluster.leader.commit(*(b"%d" % number for number in range(100)))
        await cluster.start(4)

        await cluster.leader.cluster.add_learner(4, cluster[4].address, None)

        assert cluster[4].cluster.status().role == "Learner"
        assert len(await cluster[4].payloads()) == 100

        await cluster.leader.cluster.change_membership([1, 2, 3, 4], retain=False)
        await cluster.until_equal()

        assert cluster[4].cluster.status().role == "Follower"
        assert cluster[2].cluster.status().members[3].http_address == "127.0.0.1:3004"


async def test_a_member_added_just_before_a_crash_is_fed_afterwards(tmp_path: Path) -> None:
    """The base is still from before it was a member, and a snapshot from there is worth nothing to it."""
    async with formed(tmp_path, 1) as cluster:
        alone = cluster[1]
        await cluster.start(4)
        new = cluster[4]
        book = {4: Member(address=new.address, http_address=new.http_address, store_id=new.log.state.store_id)}
        change = ConfChange(changes=(Change(ChangeKind.ADD_LEARNER, 4),), context=encode_book(book))
        moves = alone.log.move_base

        async def move_nothing(*arguments: object) -> None: ...

        alone.log.move_base = move_nothing  # type: ignore[method-assign, assignment]
        alone.replica.propose_change(change)
        await until(lambda: 4 in alone.replica.roster.ids)
        alone.log.move_base = moves  # type: ignore[method-assign]
        await alone.crash()

        await alone.start()
        await until(lambda: alone.replica.is_leader)
        await cluster.until_equal()

        assert cluster[4].log.state.base_index > 1


async def test_adding_a_member_again_waits_for_it(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        await cluster.start(4)
        await cluster.leader.cluster.add_learner(4, cluster[4].address, None)
        last = cluster.leader.replica.status().last_index

        await cluster.leader.cluster.add_learner(4, cluster[4].address, None)

        assert cluster.leader.replica.status().last_index == last


async def test_the_wrong_node_at_an_address_is_not_added(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        with pytest.raises(InvalidError, match=r"node 2 answers at .*, not node 7"):
            await cluster.leader.cluster.add_learner(7, cluster[2].address, None)
        with pytest.raises(NotReadyError, match="node 7 does not answer"):
            await cluster.leader.cluster.add_learner(7, "127.0.0.1:1", None)


async def test_a_node_is_removed(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        leader = cluster.leader
        gone, stays = (node for node in cluster.running if node is not leader)

        await leader.cluster.change_membership([leader.id, stays.id], retain=False)
        await until(lambda: gone.id not in gone.replica.roster.ids)
        await gone.crash()
        await leader.commit(b"one")
        await gone.start()
        await leader.commit(b"two")

        assert leader.replica.is_leader
        assert await gone.payloads() == []


async def test_a_leader_removes_itself(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        old = cluster.leader
        others = [node.id for node in cluster.running if node is not old]

        await old.cluster.change_membership(others, retain=False)
        await until(lambda: any(cluster[node_id].replica.is_leader for node_id in others))

        assert not old.replica.is_leader
        assert old.cluster.status().role == "Learner"


async def test_a_leader_that_removed_itself_takes_the_answer_of_its_own_disk(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        old = cluster.leader
        others = [node.id for node in cluster.running if node is not old]
        remove = ConfChange(changes=(Change(ChangeKind.REMOVE, old.id),))

        position = old.replica.propose_change(remove)
        while old.id in old.replica.roster.ids:  # its disk is never idle when the removal takes effect
            with suppress(NoLeaderError, NotLeaderError):
                old.replica.propose(b"one")
            await asyncio.sleep(0)
        await until(lambda: any(cluster[node_id].replica.is_leader for node_id in others))

        assert old.replica.applied_index >= position.log_index
        assert old.cluster.status().role == "Learner"


async def test_a_dropped_voter_can_be_kept_as_a_learner(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        leader = cluster.leader
        kept, stays = (node for node in cluster.running if node is not leader)

        await leader.cluster.change_membership([leader.id, stays.id], retain=True)
        await leader.commit(b"one")
        await cluster.until_equal()

        assert kept.cluster.status().role == "Learner"
        assert await kept.payloads() == [b"one"]


async def test_all_voters_can_be_replaced_at_once(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        await cluster.leader.commit(b"one")
        await cluster.start(4, 5, 6)
        for node_id in (4, 5, 6):
            await cluster.leader.cluster.add_learner(node_id, cluster[node_id].address, None)

        await cluster.leader.cluster.change_membership([4, 5, 6], retain=False)
        for node_id in (1, 2, 3):
            await cluster[node_id].crash()
        leader = await cluster.until_led()
        await leader.commit(b"two")
        await cluster.until_equal()

        assert await cluster[6].payloads() == [b"one", b"two"]


async def test_one_change_at_a_time(tmp_path: Path) -> None:
    patient = Options(tick_s=0.01, heartbeat_ticks=2, election_ticks=3000)
    async with formed(tmp_path, options=patient) as cluster:
        leader = cluster.leader
        for node in cluster.running:
            if node is not leader:
                await node.crash()
        leader.replica.propose_change(ConfChange(changes=(Change(ChangeKind.ADD_LEARNER, 9),)))

        with pytest.raises(ConflictError) as raised:
            await leader.cluster.change_membership([1, 2], retain=False)

        assert raised.value.code == "membership_change_pending"


async def test_a_member_that_moved_is_found(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        moved = next(node for node in cluster.running if not node.replica.is_leader)
        await moved.crash()
        moved.address = cluster.make(9).address

        await moved.start()
        await cluster.leader.commit(b"one")
        await cluster.until_equal([moved])
        other = next(node for node in cluster.running if node is not moved and not node.replica.is_leader)
        await until(lambda: other.replica.roster.book[moved.id].address == moved.address)

        assert await moved.payloads() == [b"one"]


# A disk that was lost.


async def test_a_node_without_its_disk_is_refused_and_does_not_vote(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        leader = cluster.leader
        wiped, other = (node for node in cluster.running if node is not leader)
        await wiped.crash()
        wiped.wipe()

        await wiped.start()
        await until(lambda: wiped.id in leader.cluster.status().refusals)

        assert Refusal.WRONG_STORE in leader.cluster.status().refusals[wiped.id]
        assert wiped.log.state.cluster_id == ""
        await other.crash()
        await until(lambda: not leader.replica.is_leader)
        with pytest.raises(NoLeaderError):
            leader.replica.propose(b"one")


async def test_a_node_without_its_disk_comes_back_when_it_is_removed_and_added(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        leader = cluster.leader
        await leader.commit(b"one")
        wiped, other = (node for node in cluster.running if node is not leader)
        await wiped.crash()
        wiped.wipe()
        await wiped.start()

        with pytest.raises(ConflictError, match="another disk") as raised:
            await leader.cluster.add_learner(wiped.id, wiped.address, None)
        assert raised.value.code == "member_conflict"
        await leader.cluster.change_membership([leader.id, other.id], retain=False)
        await leader.cluster.add_learner(wiped.id, wiped.address, None)
        await leader.cluster.change_membership([1, 2, 3], retain=False)
        await leader.commit(b"two")
        await cluster.until_equal()

        assert await wiped.payloads() == [b"one", b"two"]
        await other.crash()
        await leader.commit(b"three")


async def test_a_node_that_was_away_follows_a_leader_that_got_a_new_disk_meanwhile(tmp_path: Path) -> None:
    """That it is a member with that disk is committed; but only that leader could tell this node so."""
    async with formed(tmp_path, 1, 2, 3, 4, 5) as cluster:
        leader = cluster.leader
        away, renewed, *others = (node for node in cluster.running if node is not leader)
        await away.crash()
        await renewed.crash()
        renewed.wipe()
        await renewed.start()
        staying = [leader.id, *(node.id for node in others)]
        await leader.cluster.change_membership([*staying, away.id], retain=False)
        await leader.cluster.add_learner(renewed.id, renewed.address, None)
        await leader.cluster.change_membership([1, 2, 3, 4, 5], retain=False)
        await leader.cluster.transfer_leadership(renewed.id)
        position = await renewed.commit(b"one")

        await away.start()
        await until(lambda: away.replica.applied_index >= position.log_index)

        assert await away.payloads() == [b"one"]
        await others[0].crash()
        await leader.crash()
        await renewed.commit(b"two")  # with the vote of the one that was away


# Handing over.


async def test_leadership_is_handed_over(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        old = cluster.leader
        to = next(node for node in cluster.running if node is not old)

        assert await old.cluster.transfer_leadership(to.id) == to.id

        assert to.replica.is_leader
        await to.commit(b"one")


async def test_while_leadership_is_handed_over_nothing_is_taken(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        old = cluster.leader
        to = next(node for node in cluster.running if node is not old)

        async with asyncio.TaskGroup() as group:
            group.create_task(old.cluster.transfer_leadership(to.id))
            await asyncio.sleep(0)
            with pytest.raises(HandingOverError):
                old.replica.propose(b"one")
            await old.replica.wait_handed_over(5)
            with pytest.raises(NotLeaderError) as raised:
                old.replica.propose(b"one")

        assert raised.value.leader_id == to.id


async def test_leadership_is_not_handed_to_a_dead_node(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        old = cluster.leader
        dead = next(node for node in cluster.running if node is not old)
        await dead.crash()

        with pytest.raises(TransferError):
            await old.cluster.transfer_leadership(dead.id)

        await cluster.until_led()
        await cluster.leader.commit(b"one")


# A disk that hangs.


async def test_a_leader_whose_disk_hangs_leads_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(tick_s=0.01, heartbeat_ticks=2, election_ticks=20, hung_s=0.2)
    async with formed(tmp_path, options=options) as cluster:
        old = cluster.leader
        hangs = asyncio.Event()
        append = old.log.append

        async def hang(*arguments: object) -> None:
            await hangs.wait()
            await append(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(old.log, "append", hang)
        old.replica.propose(b"one")
        await until(lambda: any(node.replica.is_leader for node in cluster.running if node is not old))
        new = cluster.leader
        await new.commit(b"two")
        assert not old.replica.is_leader

        hangs.set()
        await cluster.until_equal()

        payloads = await new.payloads()
        assert b"two" in payloads
        assert await old.payloads() == payloads
