"""The public scripts of etcd/raft, run against this implementation."""

from pathlib import Path

import pytest

from engram.log.consensus.confchange import Changer, ConfChangeError, Configuration
from engram.log.consensus.tracker import Tracker
from tests.log.consensus import quorums
from tests.log.consensus.datadriven import Directive, run, scripts
from tests.log.consensus.describe import describe_members, describe_progress, parse_changes
from tests.log.consensus.interaction import Interaction


@pytest.mark.parametrize("path", scripts("quorum/testdata"))
def test_majorities_are_counted_as_etcd_counts_them(path: Path) -> None:
    run(path, quorums.handle)


@pytest.mark.parametrize("path", scripts("confchange/testdata"))
def test_the_membership_changes_as_it_does_in_etcd(path: Path) -> None:
    run(path, Changes().handle)


@pytest.mark.parametrize("path", scripts("testdata"))
def test_nodes_interact_as_those_of_etcd_do(path: Path) -> None:
    run(path, Interaction().handle, semantic=True)


class Changes:
    """A configuration that is changed step by step; the log grows by an entry with each."""

    def __init__(self) -> None:
        self.tracker = Tracker(inflight_messages_max=10, inflight_bytes_max=10)
        self.last_index = 0

    def handle(self, directive: Directive) -> str:
        try:
            configuration = self.change(directive)
        except ConfChangeError as error:
            return f"{error}\n"
        finally:
            self.last_index += 1
        self.tracker.members, self.tracker.progress = configuration.members, configuration.progress
        return f"{describe_members(self.tracker.members)}\n{describe_progress(self.tracker.progress)}"

    def change(self, directive: Directive) -> Configuration:
        changer, changes = Changer(self.tracker, self.last_index), parse_changes(directive.text)
        if directive.command == "simple":
            return changer.simple(changes)
        if directive.command == "leave-joint":
            return changer.leave_joint()
        assert directive.command == "enter-joint"
        auto_leave = directive.argument("autoleave")
        return changer.enter_joint(changes, auto_leave=auto_leave is not None and auto_leave.value == "true")
