"""Changes of the membership, computed on copies and checked before and after.

A simple change alters one voter at most, so the majorities of before and after overlap. Anything else goes through a
joint configuration, in which both majorities must agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from engram.log.consensus.tracker import Members, Progress, Tracker
from engram.log.consensus.types import NO_NODE, Change, ChangeKind, ConfChange, ConfState


class ConfChangeError(Exception):
    """The change does not fit the configuration; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """The outcome of a change, which shares nothing with the tracker it was computed from."""

    members: Members
    progress: dict[int, Progress]


class Changer:
    """Computes what a change makes of the configuration in `tracker`, which it leaves alone.

    `last_index` is where the leader's log ends: new members are probed from there.
    """

    def __init__(self, tracker: Tracker, last_index: int) -> None:
        self._tracker = tracker
        self._last_index = last_index

    def apply(self, change: ConfChange) -> Configuration:
        """Carry out `change` in whatever way it asks for.

        Raises:
            ConfChangeError: It does not fit.
        """
        if change.leaves_joint:
            return self.leave_joint()
        if change.enters_joint:
            return self.enter_joint(change.changes, auto_leave=change.auto_leave)
        return self.simple(change.changes)

    def simple(self, changes: Sequence[Change]) -> Configuration:
        """Change at most one voter, and any learners."""
        draft = self._draft()
        if draft.outgoing:
            raise ConfChangeError("can't apply simple config change in joint config")
        draft.apply(changes)
        if len(self._tracker.members.incoming ^ draft.incoming) > 1:
            raise ConfChangeError("more than one voter changed without entering joint config")
        return draft.checked()

    def enter_joint(self, changes: Sequence[Change], *, auto_leave: bool) -> Configuration:
        """Keep the voters as the outgoing half, and change the incoming one."""
        draft = self._draft()
        if draft.outgoing:
            raise ConfChangeError("config is already joint")
        if not draft.incoming:
            raise ConfChangeError("can't make a zero-voter config joint")
        draft.outgoing = set(draft.incoming)
        draft.apply(changes)
        draft.auto_leave = auto_leave
        return draft.checked()

    def leave_joint(self) -> Configuration:
        """Let the incoming half decide alone."""
        draft = self._draft()
        if not draft.outgoing:
            raise ConfChangeError("can't leave a non-joint config")
        draft.leave()
        return draft.checked()

    def _draft(self) -> "_Draft":
        draft = _Draft(self._tracker, self._last_index)
        draft.checked()
        return draft


class _Draft:
    """A configuration while it is being changed."""

    def __init__(self, tracker: Tracker, last_index: int) -> None:
        members = tracker.members
        self.incoming = set(members.incoming)
        self.outgoing = set(members.outgoing)
        self.learners = set(members.learners)
        self.learners_next = set(members.learners_next)
        self.auto_leave = members.auto_leave
        self.progress = tracker.copy_progress()
        self._tracker = tracker
        self._last_index = last_index

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.node_id == NO_NODE:  # the application decided, at apply, against this one
                continue
            match change.kind:
                case ChangeKind.ADD_VOTER:
                    self._make_voter(change.node_id)
                case ChangeKind.ADD_LEARNER:
                    self._make_learner(change.node_id)
                case ChangeKind.REMOVE:
                    self._remove(change.node_id)
                case ChangeKind.UPDATE:
                    pass
                case _:
                    assert_never(change.kind)
        if not self.incoming:
            raise ConfChangeError("removed all voters")

    def leave(self) -> None:
        for node_id in self.learners_next:
            self.learners.add(node_id)
            self.progress[node_id].is_learner = True
        for node_id in self.outgoing - self.incoming - self.learners:
            del self.progress[node_id]
        self.outgoing, self.learners_next, self.auto_leave = set(), set(), False

    def checked(self) -> Configuration:
        members = Members(
            incoming=frozenset(self.incoming),
            outgoing=frozenset(self.outgoing),
            learners=frozenset(self.learners),
            learners_next=frozenset(self.learners_next),
            auto_leave=self.auto_leave,
        )
        check_configuration(members, self.progress)
        return Configuration(members, self.progress)

    def _make_voter(self, node_id: int) -> None:
        progress = self.progress.get(node_id)
        if progress is None:
            self._add(node_id, is_learner=False)
            return
        progress.is_learner = False
        self.learners.discard(node_id)
        self.learners_next.discard(node_id)
        self.incoming.add(node_id)

    def _make_learner(self, node_id: int) -> None:
        progress = self.progress.get(node_id)
        if progress is None:
            self._add(node_id, is_learner=True)
            return
        if progress.is_learner:
            return
        self._remove(node_id)
        self.progress[node_id] = progress
        if node_id in self.outgoing:  # a voter there still, so it cannot be a learner until the joint one is left
            self.learners_next.add(node_id)
        else:
            progress.is_learner = True
            self.learners.add(node_id)

    def _remove(self, node_id: int) -> None:
        if node_id not in self.progress:
            return
        self.incoming.discard(node_id)
        self.learners.discard(node_id)
        self.learners_next.discard(node_id)
        if node_id not in self.outgoing:
            del self.progress[node_id]

    def _add(self, node_id: int, *, is_learner: bool) -> None:
        (self.learners if is_learner else self.incoming).add(node_id)
        progress = self._tracker.new_progress(match=0, next_index=max(self._last_index, 1), is_learner=is_learner)
        # It had no chance to be heard of yet: a check of the quorum right now must not hold that against the leader.
        progress.recent_active = True
        self.progress[node_id] = progress


def check_configuration(members: Members, progress: dict[int, Progress]) -> None:
    """Check that `members` makes sense, and that `progress` goes with it.

    Raises:
        ConfChangeError: It does not.
    """
    for node_id in sorted(members.voters | members.learners | members.learners_next):
        if node_id not in progress:
            raise ConfChangeError(f"no progress for {node_id}")
    _check_learners(members, progress)
    if not members.is_joint and members.auto_leave:
        raise ConfChangeError("AutoLeave must be false when not joint")


def _check_learners(members: Members, progress: dict[int, Progress]) -> None:
    for node_id in sorted(members.learners_next):
        if node_id not in members.outgoing:
            raise ConfChangeError(f"{node_id} is in LearnersNext, but not Voters[1]")
        if progress[node_id].is_learner:
            raise ConfChangeError(f"{node_id} is in LearnersNext, but is already marked as learner")
    for node_id in sorted(members.learners):
        if node_id in members.voters:
            raise ConfChangeError(f"{node_id} is in Learners and in Voters")
        if not progress[node_id].is_learner:
            raise ConfChangeError(f"{node_id} is in Learners, but is not marked as learner")


def restore(tracker: Tracker, state: ConfState, last_index: int) -> Configuration:
    """Return the configuration that `state` describes, from changes to the empty one in `tracker`.

    A joint one comes about as it once did: first the outgoing voters, then a change of them into the incoming half.

    Raises:
        ConfChangeError: No changes lead there.
    """
    incoming = [
        *(Change(ChangeKind.REMOVE, node_id) for node_id in state.voters_outgoing),
        *(Change(ChangeKind.ADD_VOTER, node_id) for node_id in state.voters),
        *(Change(ChangeKind.ADD_LEARNER, node_id) for node_id in (*state.learners, *state.learners_next)),
    ]
    outgoing = [Change(ChangeKind.ADD_VOTER, node_id) for node_id in state.voters_outgoing]
    scratch = replace(tracker)
    for change in outgoing or incoming:
        _adopt(scratch, Changer(scratch, last_index).simple([change]))
    if outgoing:
        _adopt(scratch, Changer(scratch, last_index).enter_joint(incoming, auto_leave=state.auto_leave))
    return Configuration(scratch.members, scratch.progress)


def _adopt(tracker: Tracker, configuration: Configuration) -> None:
    tracker.members, tracker.progress = configuration.members, configuration.progress
