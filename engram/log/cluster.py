"""What an operator does to a cluster: form it, look at it, bring nodes in and take them out, hand leadership over.

Nothing is remembered here: every step is an entry of the log, so that each may be repeated on whichever node leads.
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from engram.errors import (
    CatchUpError,
    ConflictError,
    InvalidError,
    NoLeaderError,
    NotLeaderError,
    NotReadyError,
    TimedOutError,
    TransferError,
    UnavailableError,
)
from engram.log.codec import Introduction
from engram.log.consensus.types import NO_NODE, Change, ChangeKind, ConfChange, ConfState
from engram.log.exchange import Exchange
from engram.log.handshake import FORMING
from engram.log.members import Book, Member, encode_book
from engram.log.overview import overview
from engram.log.peer import StreamError
from engram.log.replica import Replica
from engram.log.sqlite import SqliteLog
from engram.log.status import ClusterStatus

INTRODUCE_S = 3.0
"""How long a node has to say who it is."""

CHANGE_S = 10.0
"""How long a change of the membership may take: two entries, and as many elections as there are in bad times."""

CATCH_UP_S = 30.0
"""How long a request waits for a new node to catch up. Repeating it waits on."""

HAND_OVER_S = 1.5
"""How long a leader that is to stop waits for another: all may be told to stop at once, and then there is none."""

ROUND_S = 1.0
"""A node has caught up when it takes no longer than this to get what was committed meanwhile (Ongaro 2014, 4.2.1)."""

POLL_S = 0.02

RECONCILE_S = 1.0
"""How often the leader looks whether members have moved."""

NOWHERE: Mapping[int, str] = {}


class Cluster:
    """The cluster as one of its nodes sees it, or the node that is yet to belong to one.

    Args:
        replica: The node of the log.
        log: Its disk.
        exchange: Its way to the others.
        peers: host:port of the nodes to form a cluster with, by node id.
        http_peers: host:port where clients reach nodes that have not said so themselves, by node id.
        read_s: How long a linearizable read may wait for the leader's word.
    """

    def __init__(
        self,
        replica: Replica,
        log: SqliteLog,
        exchange: Exchange,
        *,
        peers: Mapping[int, str],
        http_peers: Mapping[int, str] = NOWHERE,
        read_s: float,
    ) -> None:
        self._replica = replica
        self._log = log
        self._exchange = exchange
        self._own = exchange.own
        self._peers = peers
        self._http_peers = http_peers
        self._read_s = read_s

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows."""
        return self._replica.is_leader

    def leader_http(self) -> str | None:
        """Return `host:port` of the leader's HTTP; None while no leader that lives, or no address of it, is known."""
        leader_id = self._replica.leader_id
        if leader_id == NO_NODE:
            return None
        member = self._exchange.member(leader_id)
        said = "" if member is None else member.http_address
        return said or self._http_peers.get(leader_id)

    def status(self) -> ClusterStatus:
        """Return what this node knows of its cluster now."""
        return overview(self._replica, self._log, self._exchange)

    async def read_index(self) -> int:
        """Return the index that a read must see to miss nothing that was acknowledged before.

        Raises:
            NoLeaderError: There is none to ask.
            NotReadyError: The leader did not answer, or has not heard a majority, in time.
        """
        return await self._replica.read_index(self._read_s)

    async def initialize(self) -> None:
        """Make a cluster of this node and its configured peers. Again on the same cluster: nothing changes.

        A node that has run standalone keeps what it holds, and the others get it.

        Raises:
            ConflictError: A peer belongs to a cluster already: `already_clustered`.
            NotReadyError: A peer cannot be reached. The message names it; nothing was changed.
        """
        state, transport = self._log.state, self._exchange.transport
        if state.cluster_id:
            if not self._replica.roster.ids:
                raise ConflictError(
                    f"node {state.node_id} is about to join cluster {state.cluster_id}", code="already_clustered"
                )
            return
        transport.join(FORMING)
        try:
            book = await self._introduced()
            cluster_id = uuid.uuid4().hex
            if self._replica.roster.ids:
                await self._log.adopt_cluster(cluster_id)
            else:
                await self._replica.initialize(cluster_id, ConfState(voters=tuple(sorted(book))), book)
        finally:
            transport.join(self._log.state.cluster_id)
        await self._wait(self._is_settled, CHANGE_S, "no leader was elected")
        if self._replica.roster.ids != frozenset(book):
            await self._bring_in(book)

    async def add_learner(self, node_id: int, address: str, http_address: str | None) -> None:
        """Make a node a learner, and return when it has caught up. Again: wait on.

        Raises:
            CatchUpError: It has not within the time for it; it remains a learner.
            ConflictError: Another change is under way (`membership_change_pending`), the node belongs to another
                cluster (`already_clustered`), or the id is that of a member with another disk (`member_conflict`).
            InvalidError: Another node answers at that address.
            NotReadyError: Nobody does.
        """
        self._replica.check_leads()
        member = _member(await self._introduce(node_id, address), address, http_address)
        known = self._replica.roster.book.get(node_id)
        if node_id in self._replica.roster.ids and known is not None:
            if known.store_id not in {"", member.store_id}:
                raise ConflictError(
                    f"node {node_id} is a member, but the node at {address} has another disk: it has forgotten what it "
                    f"promised. Remove node {node_id} first, then add it again",
                    code="member_conflict",
                )
            if known != member:
                await self._change([Change(ChangeKind.UPDATE, node_id)], {node_id: member})
        else:
            await self._change([Change(ChangeKind.ADD_LEARNER, node_id)], {node_id: member})
        await self._wait_caught_up(node_id)

    async def change_membership(self, members: Sequence[int], *, retain: bool, remove: Sequence[int] = ()) -> None:
        """Make `members` the voters, and return when they are.

        A voter that is dropped is removed, or stays as a learner with `retain`. Learners stay, but for those in
        `remove`; who is no member there changes nothing.

        Raises:
            CatchUpError: One of `members` is too far behind to vote.
            ConflictError: Another change is under way: `membership_change_pending`.
            InvalidError: One of `members` is no member.
        """
        self._replica.check_leads()
        roster = self._replica.roster
        if strangers := sorted(set(members) - roster.ids):
            raise InvalidError(f"node {strangers[0]} is no member: add it as a learner first")
        for node_id in sorted(set(members) - roster.voters):
            await self._wait_caught_up(node_id)
        voters = set(roster.members.voters)
        dropped = ChangeKind.ADD_LEARNER if retain else ChangeKind.REMOVE
        changes = [Change(ChangeKind.ADD_VOTER, node_id) for node_id in sorted(set(members) - voters)]
        changes += [Change(dropped, node_id) for node_id in sorted(voters - set(members) - set(remove))]
        changes += [Change(ChangeKind.REMOVE, node_id) for node_id in sorted(set(remove) & roster.ids)]
        if changes:
            await self._change(changes, {})

    async def transfer_leadership(self, node_id: int | None) -> int:
        """Hand leadership to a voter, by default the one that is furthest; return who leads.

        Raises:
            TransferError: It did not take over in time, or no other voter is alive.
        """
        self._replica.check_leads()
        to = self._successor() if node_id is None else node_id
        if to == self._replica.node_id:
            return to
        self._replica.transfer_leadership(to)
        try:
            await self._wait(self._is_handed_over, CHANGE_S, "")
        except TimedOutError:
            raise TransferError(f"node {to} did not take over within {CHANGE_S:g} s") from None
        if self._replica.leader_id != to:
            raise TransferError(f"node {to} did not take over: node {self._replica.leader_id} leads")
        return to

    def _is_handed_over(self) -> bool:
        """Whether it is known who leads: another node, or still this one, which has given up by then."""
        if self._replica.is_leader:
            return not self._replica.status().is_handing_over
        return self._replica.leader_id != NO_NODE

    async def snapshot(self) -> int:
        """Move the base of the log up to what is applied; return its index."""
        return await self._replica.move_base()

    async def hand_over(self) -> None:
        """Let another node lead, if this one does and there is one that can: before it stops."""
        if not self._replica.is_leader or len(self._replica.roster.voters) == 1:
            return
        with suppress(NoLeaderError, NotLeaderError, TimeoutError):  # the others will find out
            async with asyncio.timeout(HAND_OVER_S):
                while self._replica.is_leader:
                    with suppress(TransferError):
                        await self.transfer_leadership(None)
                    await asyncio.sleep(POLL_S)

    async def run(self) -> None:
        """See to it, while this node leads, that the book says where the members are."""
        while True:
            await asyncio.sleep(RECONCILE_S)
            moved = self._moved() if self._replica.is_leader else {}
            if moved:
                try:  # one change carries all addresses: it need not name whose they are
                    await self._change([Change(ChangeKind.UPDATE, min(moved))], moved)
                except (ConflictError, UnavailableError, TimedOutError):
                    continue  # it is looked at again

    # Forming.

    async def _introduced(self) -> dict[int, Member]:
        """Return the book of this node and all its peers, each of which has said who it is."""
        async with asyncio.TaskGroup() as group:
            asked = {
                node_id: group.create_task(self._answer(node_id, address)) for node_id, address in self._peers.items()
            }
        book = {self._replica.node_id: self._own}
        for node_id, task in asked.items():
            answer = task.result()
            if isinstance(answer, Exception):
                raise answer
            book[node_id] = _member(answer, self._peers[node_id], None)
        return book

    async def _answer(self, node_id: int, address: str) -> "Introduction | Exception":
        try:
            introduction = await self._introduce(node_id, address)
        except (ConflictError, InvalidError, NotReadyError) as error:
            return error
        if introduction.cluster_id:
            return ConflictError(
                f"node {node_id} at {address} belongs to a cluster already, or is forming one", code="already_clustered"
            )
        return introduction

    def _is_settled(self) -> bool:
        """Whether a leader is known, and, if it is this node, has committed all that it has."""
        status = self._replica.status()
        return status.leader_id != NO_NODE and status.applied_index == status.last_index

    async def _bring_in(self, book: Book) -> None:
        """Give a log that is not empty to all peers: this node alone cannot just say that they hold it."""
        own_id = self._replica.node_id
        # It votes already; but those who read the log from its first entry have yet to learn that anybody does.
        await self._change([Change(ChangeKind.ADD_VOTER, own_id)], {own_id: self._own})
        for node_id in sorted(book.keys() - {own_id}):
            await self._change([Change(ChangeKind.ADD_LEARNER, node_id)], {node_id: book[node_id]})
            await self._wait_caught_up(node_id)
        await self.change_membership(sorted(book), retain=False)

    async def _introduce(self, node_id: int, address: str) -> Introduction:
        try:
            introduction = await self._exchange.transport.introduce(address, INTRODUCE_S)
        except StreamError as error:
            raise NotReadyError(f"node {node_id} does not answer at {address}: {error}") from None
        if introduction.node_id != node_id:
            raise InvalidError(f"node {introduction.node_id} answers at {address}, not node {node_id}")
        own = self._log.state.cluster_id
        if introduction.cluster_id not in {"", own} and own:
            raise ConflictError(
                f"node {node_id} belongs to cluster {introduction.cluster_id}, this node to {own}",
                code="already_clustered",
            )
        return introduction

    # Changing.

    async def _change(self, changes: Sequence[Change], book: Book) -> None:
        """Append a change once none is under way, and wait until it has taken effect."""
        await self._wait_quiet()
        position = self._replica.propose_change(ConfChange(changes=tuple(changes), context=encode_book(book)))

        def is_done() -> bool:
            return self._replica.applied_index >= position.log_index and not self._replica.status().is_joint

        await self._wait(is_done, CHANGE_S, "the change of the membership did not take effect")
        if not self._holds(changes):
            raise NoLeaderError("another leader's entry stands where the change was appended; nothing was changed")

    def _holds(self, changes: Sequence[Change]) -> bool:
        roster = self._replica.roster
        return all((one.kind is ChangeKind.REMOVE) == (one.node_id not in roster.ids) for one in changes)

    async def _wait_quiet(self) -> None:
        def is_quiet() -> bool:
            self._replica.check_leads()
            status = self._replica.status()
            return not (status.is_joint or status.has_pending_change)

        try:
            await self._wait(is_quiet, ROUND_S, "")
        except TimedOutError:
            raise ConflictError(
                "another change of the membership is under way; try again when it is done",
                code="membership_change_pending",
            ) from None

    async def _wait_caught_up(self, node_id: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CATCH_UP_S):
                round_s = CATCH_UP_S
                while round_s > ROUND_S:
                    started_s, goal = loop.time(), self._replica.commit_index
                    while self._match(node_id) < goal:  # noqa: ASYNC110  what others hold moves without a sound
                        await asyncio.sleep(POLL_S)
                    round_s = loop.time() - started_s
        except TimeoutError:
            raise CatchUpError(
                f"node {node_id} holds the log up to entry {self._match(node_id)} of {self._replica.commit_index} after "
                f"{CATCH_UP_S:g} s; repeat the request to wait on"
            ) from None

    def _match(self, node_id: int) -> int:
        self._replica.check_leads()
        progress = self._replica.status().progress.get(node_id)
        if progress is None:
            raise InvalidError(f"node {node_id} is no member any more")
        return progress.match

    async def _wait(self, holds: Callable[[], bool], timeout_s: float, complaint: str) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not holds():  # noqa: ASYNC110  what others hold moves without a sound
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise TimedOutError(f"{complaint} within {timeout_s:g} s; it may yet") from None

    def _successor(self) -> int:
        progress = self._replica.status().progress
        others = sorted(self._replica.roster.voters - {self._replica.node_id})
        alive = [node_id for node_id in others if node_id in progress and progress[node_id].recent_active]
        if not alive:
            raise TransferError("no other voter is alive")
        return max(alive, key=lambda node_id: progress[node_id].match)

    def _moved(self) -> Book:
        """Return the members that are somewhere else than the book says."""
        book = self._replica.roster.book
        said = {**self._exchange.announced, self._replica.node_id: self._own}
        return {node_id: said[node_id] for node_id, known in book.items() if said.get(node_id, known) != known}


def _member(introduction: Introduction, address: str, http_address: str | None) -> Member:
    return Member(
        address=address, http_address=http_address or introduction.http_address, store_id=introduction.store_id
    )
