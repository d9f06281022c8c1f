"""What must hold between any two calls; tests ask after each."""

from collections.abc import Iterator

from engram.log.consensus.confchange import ConfChangeError, check_configuration
from engram.log.consensus.raft import Raft
from engram.log.consensus.tracker import Progress, ProgressState
from engram.log.consensus.types import NO_NODE, InvariantViolation, Role


def check(raft: Raft) -> None:
    """Check all that can be seen from one node alone.

    Raises:
        InvariantViolation: Something does not hold; the message says all of it.
    """
    broken = [claim for claim, holds in _claims(raft) if not holds]
    if broken:
        raise InvariantViolation(f"node {raft.id}, {raft.role.name} in term {raft.term}: not true that {broken}")


def _claims(raft: Raft) -> Iterator[tuple[str, bool]]:
    yield from _claims_of_log(raft)
    yield from _claims_of_members(raft)
    if raft.role is Role.LEADER:
        yield from _claims_of_leader(raft)
    if raft.role is Role.CANDIDATE:
        yield "a candidate votes for itself", raft.vote == raft.id
        yield "a candidate follows nobody", raft.leader_id == NO_NODE
    if raft.role is not Role.LEADER:
        yield "only a leader believes in itself", raft.leader_id != raft.id
        yield "only a leader hands over", raft.transferee == NO_NODE


def _claims_of_log(raft: Raft) -> Iterator[tuple[str, bool]]:
    log, unstable = raft.log, raft.log.unstable
    yield (
        "applied <= applying <= committed <= last",
        (0 <= log.applied <= log.applying <= log.committed <= log.last_index),
    )
    yield "what is not applied is in the log", unstable.snapshot is not None or log.first_index <= log.applied + 1
    yield "no entry is of a later term", log.last_term <= raft.term or raft.term == 0  # not even started
    yield (
        "unstable entries are handed out in order",
        (unstable.offset <= unstable.offset_in_progress <= unstable.offset + len(unstable.entries)),
    )
    yield (
        "unstable entries are numbered by their place",
        all(entry.index == unstable.offset + place for place, entry in enumerate(unstable.entries)),
    )
    yield (
        "terms never fall",
        all(earlier.term <= later.term for earlier, later in zip(unstable.entries, unstable.entries[1:], strict=False)),
    )
    yield (
        "a snapshot precedes the unstable entries",
        (unstable.snapshot is None or unstable.snapshot.meta.index < unstable.offset),
    )


def _claims_of_members(raft: Raft) -> Iterator[tuple[str, bool]]:
    tracker = raft.tracker
    try:
        check_configuration(tracker.members, tracker.progress)
    except ConfChangeError as error:
        yield f"the membership makes sense, but {error}", False
    yield "learners_next are outgoing voters", tracker.members.learners_next <= tracker.members.outgoing


def _claims_of_leader(raft: Raft) -> Iterator[tuple[str, bool]]:
    last_index = raft.log.last_index
    yield "a leader leads itself", raft.leader_id == raft.id
    sessions = {progress.session for progress in raft.tracker.progress.values()}
    yield "each member has a session of its own", len(sessions - {0}) == len(raft.tracker.progress)
    for node_id, progress in raft.tracker.progress.items():
        yield (
            f"{node_id}: 0 <= match < next <= last + 1",
            (0 <= progress.match < progress.next_index and progress.match <= last_index),
        )
        yield f"{node_id}: the window adds up", sum(progress.inflights.sizes()) == progress.inflights.bytes
        yield (
            f"{node_id}: only a replicating member has appends in flight",
            (progress.state is ProgressState.REPLICATE or not len(progress.inflights)),
        )
        yield from _claims_of_snapshot(node_id, progress)


def _claims_of_snapshot(node_id: int, progress: Progress) -> Iterator[tuple[str, bool]]:
    if progress.state is ProgressState.SNAPSHOT:
        yield (
            f"{node_id}: the append after the snapshot is next",
            (progress.next_index >= progress.pending_snapshot + 1),
        )
    else:
        yield f"{node_id}: no snapshot is pending", progress.pending_snapshot == 0
