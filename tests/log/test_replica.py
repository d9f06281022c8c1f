import asyncio
import random
from pathlib import Path

import pytest

from engram.clock import SystemClock
from engram.errors import NoLeaderError, NotReadyError, OverloadedError, TooLargeError
from engram.log.consensus.types import Entry, Role
from engram.log.options import PROPOSAL_BYTES_MAX, UNCOMMITTED_BYTES_MAX
from engram.log.position import Position
from engram.log.replica import Replica
from tests.log.logs import bytes_on_disk, opened, read_outside, retained
from tests.log.replicas import Transactions, collected, committed_alone, payloads, running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raft.db"


async def test_a_node_alone_leads_at_once_and_commits_what_it_is_given(path: Path) -> None:
    async with running(path) as replica:
        position = replica.propose(b"hello")
        entries = await collected(replica, after=0, up_to=position.log_index)

        assert position == Position(log_index=2, term=1)
        assert entries == [Entry(term=1, index=1), Entry(term=1, index=2, data=b"hello")]


async def test_what_many_propose_at_once_is_committed_in_the_order_of_the_proposals(path: Path) -> None:
    async def propose(replica: Replica, name: int) -> list[tuple[Position, bytes]]:
        made = []
        for number in range(20):
            data = b"%d-%d" % (name, number)
            made.append((replica.propose(data), data))
            await replica.read(0, 1)  # let others come between
            await asyncio.sleep(0)
        return made

    async with running(path) as replica:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(propose(replica, name)) for name in range(16)]
        made = {position.log_index: (position.term, data) for task in tasks for position, data in task.result()}
        entries = await collected(replica, after=1, up_to=max(made))

        assert {entry.index: (entry.term, entry.data) for entry in entries} == made
        assert [entry.index for entry in entries] == list(range(2, 2 + 16 * 20))


async def test_a_restart_keeps_every_entry_and_begins_a_new_term(path: Path) -> None:
    for restart in range(3):
        async with running(path) as replica:
            position = replica.propose(b"%d" % restart)
            entries = await collected(replica, after=0, up_to=position.log_index)

            assert position.term == restart + 1
            assert payloads(entries) == [b"%d" % number for number in range(restart + 1)]


async def test_a_crash_before_the_commit_index_is_recorded_loses_nothing(path: Path) -> None:
    async with running(path, crash=True) as replica:
        position = replica.propose(b"acknowledged")
        await collected(replica, after=0, up_to=position.log_index)
    async with opened(path) as log:
        assert log.initial_state()[0].commit < position.log_index

    async with running(path) as replica:
        assert replica.commit_index > position.log_index
        assert payloads(await collected(replica, after=0, up_to=position.log_index)) == [b"acknowledged"]


async def test_a_clean_stop_finishes_what_is_under_way_and_records_the_commit_index(path: Path) -> None:
    async with running(path) as replica:
        position = [replica.propose(b"%d" % number) for number in range(300)][-1]

    async with opened(path) as log:
        assert log.last_index() == position.log_index
        assert log.initial_state()[0].commit == position.log_index


async def test_readers_get_the_rest_and_end_when_the_node_stops(path: Path) -> None:
    async def read_all(replica: Replica) -> list[bytes]:
        return [data async for batch in replica.entries(0) for data in payloads(batch)]

    async with asyncio.TaskGroup() as group, running(path) as replica:
        readers = [group.create_task(read_all(replica)) for _ in range(3)]
        await asyncio.sleep(0)
        replica.propose(b"last")

    assert [reader.result() for reader in readers] == [[b"last"]] * 3


async def test_a_reader_that_goes_away_disturbs_no_other(path: Path) -> None:
    async with running(path) as replica, asyncio.TaskGroup() as group:
        leaving = group.create_task(collected(replica, after=1, up_to=2))
        staying = group.create_task(collected(replica, after=1, up_to=2))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        replica.propose(b"news")

        assert payloads(await staying) == [b"news"]


async def test_a_reader_far_behind_reads_the_file_in_bounded_batches(path: Path) -> None:
    sent = [bytes([number % 251]) * 3000 for number in range(1500)]
    async with running(path, window_bytes_max=50_000) as replica:
        last = [replica.propose(data).log_index for data in sent][-1]
        found: list[Entry] = []
        async for batch in replica.entries(0):
            assert len(batch) <= 1024
            found.extend(batch)
            if batch[-1].index == last:
                break

        assert payloads(found) == sent


async def test_what_queues_while_the_disk_is_busy_goes_into_one_transaction(path: Path) -> None:
    observer = Transactions()
    async with running(path, observer=observer) as replica:
        del observer.entries[:]
        last = [replica.propose(b"%d" % number) for number in range(500)][-1].log_index
        await collected(replica, after=0, up_to=last)

    assert sum(observer.entries) == 500
    assert len(observer.entries) <= 2
    assert len(observer.waits_s) == 500


async def test_a_commit_costs_no_transaction_of_its_own(path: Path) -> None:
    observer = Transactions()
    async with running(path, observer=observer) as replica:
        del observer.entries[:]
        for _ in range(5):
            await committed_alone(replica, b"one")

        assert observer.entries == [1] * 5


async def test_the_base_follows_and_the_history_stays(path: Path) -> None:
    async with running(path, snapshot_threshold=10) as replica:
        last = [await committed_alone(replica, b"%d" % number) for number in range(100)][-1]

        assert replica.status().base_index >= last - 12
    async with running(path, snapshot_threshold=10) as replica:
        assert replica.status().term == 2
        assert payloads(await collected(replica, after=0, up_to=last)) == [b"%d" % number for number in range(100)]


@pytest.mark.parametrize("snapshot_threshold", [5, 1000], ids=["in the history", "in the live log"])
async def test_an_erased_payload_is_nowhere_and_its_neighbours_are_unharmed(
    path: Path, snapshot_threshold: int
) -> None:
    async with running(path, snapshot_threshold=snapshot_threshold) as replica:
        sent = [b"secret-%d" % number * 300 if number in {3, 11} else b"open-%d" % number for number in range(20)]
        last = [await committed_alone(replica, data) for data in sent][-1]
        erased = [entry.index for entry in await replica.read(0) if entry.data.startswith(b"secret")]

        await replica.rewrite(dict.fromkeys(erased, b""))

        entries = await collected(replica, after=0, up_to=last)
        assert [entry.index for entry in entries] == list(range(1, last + 1))
        assert payloads(entries) == [data for data in sent if data.startswith(b"open")]
        assert b"secret" not in await asyncio.to_thread(read_outside, path.parent)
    assert b"secret" not in bytes_on_disk(path.parent)
    async with opened(path) as log:
        assert len(await retained(log)) == last


async def test_nothing_is_taken_before_a_leader_is_known_and_after_the_stop(path: Path) -> None:
    async with opened(path) as log:
        replica = Replica(log, clock=SystemClock(), rng=random.Random(1), observer=Transactions())
        with pytest.raises(NoLeaderError):
            replica.propose(b"early")
    async with running(path) as replica:
        pass

    with pytest.raises(NotReadyError, match="stopping"):
        replica.propose(b"late")


async def test_a_proposal_over_the_limit_is_refused_and_one_at_the_limit_is_not(path: Path) -> None:
    async with running(path) as replica:
        with pytest.raises(TooLargeError, match=str(PROPOSAL_BYTES_MAX)):
            replica.propose(bytes(PROPOSAL_BYTES_MAX + 1))

        last = replica.propose(b"x" * PROPOSAL_BYTES_MAX).log_index
        (entry,) = await collected(replica, after=last - 1, up_to=last)
        assert len(entry.data) == PROPOSAL_BYTES_MAX


async def test_too_much_that_is_not_committed_is_refused_until_it_is(path: Path) -> None:
    data = b"x" * (4 * 1024 * 1024)
    async with running(path) as replica:
        last = [replica.propose(data).log_index for _ in range(UNCOMMITTED_BYTES_MAX // len(data))][-1]
        with pytest.raises(OverloadedError):
            replica.propose(data)
        async for batch in replica.entries(last - 1):
            assert batch[-1].index == last
            break

        assert replica.propose(b"again").log_index == last + 1


async def test_the_status_says_who_leads_and_how_far_the_log_is(path: Path) -> None:
    async with running(path) as replica:
        last = replica.propose(b"one").log_index
        await collected(replica, after=0, up_to=last)
        status = replica.status()

        assert (status.node_id, status.role, status.leader_id, status.term) == (1, Role.LEADER, 1, 1)
        assert (status.commit_index, status.last_index, status.applied_index, status.base_index) == (2, 2, 2, 0)
        assert replica.roster.ids == {1}
