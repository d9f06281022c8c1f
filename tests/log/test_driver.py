"""What leaves a node, and when: between its core, its disk and the other nodes, which are made up here."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engram.clock import Clock, SystemClock
from engram.errors import NotReadyError
from engram.log.changes import Append
from engram.log.consensus.types import (
    Change,
    ChangeKind,
    ConfChange,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageType,
    encode_conf_change,
)
from engram.log.driver import next_tick_s
from engram.log.members import Member, encode_book
from engram.log.options import Options
from engram.log.replica import Replica
from engram.log.sqlite import SqliteLog
from tests.log.clusters import formed
from tests.log.logs import entry, opened, run
from tests.log.nodes import until
from tests.log.replicas import Transactions

pytestmark = pytest.mark.usefixtures("channels_end_here")

VOTERS = ConfState(voters=(1, 2, 3))
PATIENT = Options(tick_s=0.01, heartbeat_ticks=2, election_ticks=10_000)
"""Nothing happens by itself."""


class HandClock(Clock):
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time_s = 1_000.0

    def now_ms(self) -> int:
        return int(self.time_s * 1000)

    def monotonic_s(self) -> float:
        return self.time_s


class Others:
    """The other nodes: they keep what they are sent, and what the disk held when it left."""

    def __init__(self, log: SqliteLog) -> None:
        self.sent: list[Message] = []
        self.unfounded: list[Message] = []
        """Promises that the disk did not hold when they left."""
        self.is_running = False
        """The node knows its members, and takes messages."""
        self._log = log

    def send(self, messages: Sequence[Message]) -> None:
        self.sent += messages
        self.unfounded += [message for message in messages if not self._is_kept(message)]

    def members_changed(self) -> None:
        self.is_running = True

    def of(self, kind: MessageType) -> list[Message]:
        return [message for message in self.sent if message.type is kind]

    def _is_kept(self, message: Message) -> bool:
        state = self._log.state
        if message.reject:
            return True
        match message.type:
            case MessageType.VOTE_RESPONSE:
                return (state.term, state.vote) == (message.term, message.to)
            case MessageType.APPEND_RESPONSE:
                return state.term >= message.term and state.last_index >= message.index
            case _:
                return True


@asynccontextmanager
async def node(
    path: Path, *, written: Sequence[Append] = (), clock: Clock | None = None
) -> AsyncIterator[tuple[Replica, SqliteLog, Others]]:
    """Run node 1 of three on a log that holds what was `written`."""
    async with opened(path, members=VOTERS) as log:
        await log.append(written)
        replica = Replica(
            log, clock=clock or SystemClock(), rng=random.Random(1), observer=Transactions(), options=PATIENT
        )
        others = Others(log)
        replica.connect(others)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(replica.run())
            await until(lambda: others.is_running)
            try:
                yield replica, log, others
            finally:
                task.cancel()


def vote(term: int, sender: int, *, last: int = 0) -> Message:
    return Message(type=MessageType.VOTE, to=1, sender=sender, term=term, index=last, log_term=min(last, 1))


def append(term: int, entries: Sequence[Entry], *, previous: int = 0, commit: int = 0) -> Message:
    """Return what node 2, leading in `term`, sends."""
    return Message(
        type=MessageType.APPEND,
        to=1,
        sender=2,
        term=term,
        index=previous,
        log_term=min(previous, 1),
        entries=tuple(entries),
        commit=commit,
    )


async def elect(replica: Replica, others: Others) -> None:
    """Let the other voters make node 1 the leader, without holding anything of its log."""
    term = replica.status().term + 1
    replica.lose(0)
    await until(lambda: others.of(MessageType.PRE_VOTE) != [])
    answers = (MessageType.PRE_VOTE_RESPONSE, MessageType.VOTE_RESPONSE)
    for kind in answers:
        replica.receive([Message(type=kind, to=1, sender=2, term=term)])
        await until(lambda: others.of(MessageType.VOTE) != [])
    await until(lambda: replica.is_leader)


def hung(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Let the disk be asked, which sets the first event, but answer only when the second is set."""
    writing, answers, real = asyncio.Event(), asyncio.Event(), log.append

    async def wait_first(appends: Sequence[Append]) -> None:
        writing.set()
        await answers.wait()
        await real(appends)

    monkeypatch.setattr(log, "append", wait_first)
    return writing, answers


async def test_what_is_acknowledged_is_on_the_disk(tmp_path: Path) -> None:
    async with node(tmp_path / "raft.db") as (replica, _, others):
        for first in range(1, 40, 2):
            replica.receive([append(1, run(first, first + 1), previous=first - 1)])
            await until(lambda index=first + 1: any(one.index == index for one in others.sent))  # type: ignore[misc]

        assert others.unfounded == []


async def test_a_vote_that_leaves_is_on_the_disk(tmp_path: Path) -> None:
    async with node(tmp_path / "raft.db") as (replica, log, others):
        replica.receive([vote(3, sender=2)])
        await until(lambda: others.of(MessageType.VOTE_RESPONSE) != [])

        assert others.unfounded == []
        assert (log.state.term, log.state.vote) == (3, 2)


async def test_a_vote_in_a_term_that_was_known_is_on_the_disk_too(tmp_path: Path) -> None:
    held = [Append(entries=run(1, 2), hard_state=HardState(term=3, vote=0, commit=0))]
    async with node(tmp_path / "raft.db", written=held) as (replica, log, others):
        replica.receive([vote(3, sender=3, last=0)])  # whose log is too short
        replica.receive([vote(3, sender=2, last=2)])
        await until(lambda: len(others.of(MessageType.VOTE_RESPONSE)) == 2)

        assert [(one.to, one.reject) for one in others.of(MessageType.VOTE_RESPONSE)] == [(3, True), (2, False)]
        assert others.unfounded == []
        assert log.state.vote == 2


async def test_a_vote_is_remembered_by_the_next_run(tmp_path: Path) -> None:
    async with node(tmp_path / "raft.db") as (replica, _, others):
        replica.receive([vote(3, sender=2)])
        await until(lambda: others.of(MessageType.VOTE_RESPONSE) != [])
    async with node(tmp_path / "raft.db") as (replica, _, others):
        replica.receive([vote(3, sender=3)])
        await until(lambda: others.of(MessageType.VOTE_RESPONSE) != [])

        assert others.of(MessageType.VOTE_RESPONSE)[0].reject


async def test_a_node_whose_disk_hangs_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock()
    async with node(tmp_path / "raft.db", clock=clock) as (replica, log, _):

        def is_taken() -> bool:
            replica.receive([append(1, run(1, 2))])
            return replica.status().last_index == 2

        writing, answers = hung(log, monkeypatch)
        replica.receive([append(1, run(1, 1))])
        await writing.wait()
        clock.time_s += 2
        assert not is_taken()

        answers.set()
        await until(is_taken)


async def test_a_leader_whose_disk_hangs_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its followers would hear of it, and elect nobody who can write."""
    clock = HandClock()
    async with node(tmp_path / "raft.db", clock=clock) as (replica, log, others):
        await elect(replica, others)
        writing, _ = hung(log, monkeypatch)
        replica.propose(b"one")
        await writing.wait()
        clock.time_s += 2

        await until(lambda: not replica.is_leader, within_s=5)


async def test_the_base_moves_as_soon_as_the_membership_changes(tmp_path: Path) -> None:
    """A snapshot from before would tell a new member that it is none."""
    change = ConfChange(changes=(Change(ChangeKind.ADD_LEARNER, 4),))
    added = Entry(term=1, index=2, kind=EntryKind.CONF_CHANGE_V2, data=encode_conf_change(change))
    async with node(tmp_path / "raft.db") as (replica, log, _):
        replica.receive([append(1, [entry(1), added, entry(3)], commit=3)])

        await until(lambda: log.state.base_index == 3, within_s=5)
        assert log.state.base_members == ConfState(voters=(1, 2, 3), learners=(4,))


async def test_a_base_holds_nothing_that_is_not_committed(tmp_path: Path) -> None:
    held = [Append(entries=run(1, 5), hard_state=HardState(term=1, vote=2, commit=3))]
    async with node(tmp_path / "raft.db", written=held) as (replica, log, _):
        assert await replica.move_base() == 3
        assert (log.state.base_index, log.state.commit, log.last_index()) == (3, 3, 5)


async def test_what_was_not_known_to_be_committed_is_not_handed_out_after_a_start(tmp_path: Path) -> None:
    held = [Append(entries=run(1, 5), hard_state=HardState(term=1, vote=2, commit=3))]
    async with node(tmp_path / "raft.db", written=held) as (replica, _, __):
        assert replica.applied_index == replica.commit_index == 3
        assert await replica.read(0) == run(1, 3)

        newer = [entry(4, 2), entry(5, 2)]
        replica.receive([append(2, newer, previous=3, commit=5)])
        await until(lambda: replica.applied_index == 5)
        assert await replica.read(3) == newer


async def test_members_that_came_after_the_base_are_known_after_a_start(tmp_path: Path) -> None:
    four = Member(address="10.0.0.4:9001", store_id="disk-4")
    change = ConfChange(changes=(Change(ChangeKind.ADD_LEARNER, 4),), context=encode_book({4: four}))
    added = Entry(term=1, index=2, kind=EntryKind.CONF_CHANGE_V2, data=encode_conf_change(change))
    held = [Append(entries=[entry(1), added, entry(3)], hard_state=HardState(term=1, vote=2, commit=3))]
    async with node(tmp_path / "raft.db", written=held) as (replica, _, __):
        await until(lambda: 4 in replica.roster.ids)

        assert replica.roster.book == {4: four}
        assert replica.roster.members == ConfState(voters=(1, 2, 3), learners=(4,))


async def test_changes_up_to_the_base_are_not_taken_up_again(tmp_path: Path) -> None:
    changes = [
        Entry(term=1, index=index, kind=EntryKind.CONF_CHANGE_V2, data=encode_conf_change(ConfChange((change,))))
        for index, change in enumerate(
            [Change(ChangeKind.ADD_LEARNER, 4), Change(ChangeKind.REMOVE, 4), Change(ChangeKind.ADD_LEARNER, 5)],
            start=1,
        )
    ]
    async with opened(tmp_path / "raft.db", members=VOTERS) as log:
        await log.append([Append(entries=changes, hard_state=HardState(term=1, vote=2, commit=3))])
        assert await log.membership_changes(2) == changes[:2]

        await log.move_base(2, VOTERS, {})

        assert await log.membership_changes(3) == changes[2:]
        assert await log.membership_changes(2) == []


async def test_a_follower_asks_its_leader_before_it_reads(tmp_path: Path) -> None:
    async with node(tmp_path / "raft.db") as (replica, _, others):
        replica.receive([append(1, run(1, 2))])
        await until(lambda: replica.leader_id == 2)
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(replica.read_index(timeout_s=10))
            await until(lambda: others.of(MessageType.READ_INDEX) != [])
            question = others.of(MessageType.READ_INDEX)[0]
            assert not asked.done()
            answer = Message(
                type=MessageType.READ_INDEX_RESPONSE, to=1, sender=2, term=1, index=7, entries=question.entries
            )
            replica.receive([answer])

        assert asked.result() == 7


async def test_a_read_that_no_leader_confirms_is_refused(tmp_path: Path) -> None:
    async with node(tmp_path / "raft.db") as (replica, _, __):
        replica.receive([append(1, run(1, 2))])
        await until(lambda: replica.leader_id == 2)

        with pytest.raises(NotReadyError):
            await replica.read_index(timeout_s=0.05)


async def test_only_what_is_committed_may_be_erased(tmp_path: Path) -> None:
    async with node(tmp_path / "raft.db") as (replica, log, _):
        replica.receive([append(1, run(1, 3), commit=2)])
        await until(lambda: replica.applied_index == 2 and log.last_index() == 3)

        await replica.rewrite({2: b""})
        with pytest.raises(AssertionError, match="only what is committed"):
            await replica.rewrite({3: b""})


async def test_the_cluster_that_a_node_joined_is_on_its_disk(tmp_path: Path) -> None:
    async with formed(tmp_path) as cluster:
        joined = {one.log.state.cluster_id for one in cluster.running}

        assert len(joined) == 1
        assert joined != {""}


@pytest.mark.parametrize(
    ("now_s", "due_s"),
    [(10.0, 10.5), (10.2, 10.5), (10.5, 11.0), (17.0, 17.5)],
    ids=["in time", "late", "a tick late", "after a pause"],
)
def test_a_late_tick_delays_no_other_and_missed_ones_are_not_made_up_for(now_s: float, due_s: float) -> None:
    assert next_tick_s(10.0, now_s, 0.5) == due_s
