"""What "In Search of an Understandable Raft" says a server does: Figure 2, then section 5, each claim by its own words.

Claims that are tested where they belong by subject are listed in `ELSEWHERE`. Differences that are meant: a vote that is
asked for in an older term is not refused but not answered (a pre-vote is refused), and AppendEntries of an older term is
answered by one that carries the newer term, not by `false`. Sections 6 to 8 are in `test_paper_changes`.
"""

import random
from itertools import pairwise

import pytest

from engram.log.consensus.raft import Role
from engram.log.consensus.rawnode import RawNode
from engram.log.consensus.types import NO_NODE, ConfState, Entry, HardState, Message, MessageType
from engram.log.storage import MemoryStorage
from tests.log.consensus import test_elections, test_quorum, test_replication, test_safety
from tests.log.consensus.cluster import ELECTION_TICKS, Cluster, options

ELSEWHERE = {
    "Figure 2, state: term, vote and log are on stable storage before a response": (
        test_elections.test_a_vote_leaves_only_when_it_is_durable,
        test_elections.test_a_crash_does_not_make_a_node_vote_twice,
        test_elections.test_a_majority_of_others_makes_no_leader_before_the_own_vote_is_durable,
        test_replication.test_an_acknowledgement_leaves_only_when_the_entries_are_durable,
    ),
    "AppendEntries 3: delete an existing entry that conflicts, and all that follow it": (
        test_replication.test_only_from_the_first_conflict_on_entries_are_replaced,
        test_replication.test_a_late_and_shorter_append_truncates_nothing,
    ),
    "RequestVote 2: at least as up to date": (
        test_elections.test_a_longer_but_older_log_is_not_voted_for,
        test_elections.test_entries_that_are_not_durable_yet_count_for_the_comparison_of_logs,
    ),
    "RequestVote 2: votedFor is null or candidateId": (
        test_elections.test_a_node_votes_once_in_a_term,
        test_elections.test_a_node_repeats_its_vote_to_the_same_candidate,
    ),
    "Candidates: AppendEntries of a new leader": (test_elections.test_a_candidate_follows_the_leader_of_its_own_term,),
    "Leaders: an entry is of the current term when it is committed by counting": (
        test_replication.test_an_entry_of_an_older_term_is_not_committed_by_counting,
        test_quorum.test_what_is_committed_is_the_highest_index_that_some_majority_holds,
    ),
    "5.2: time-outs are drawn from an interval": (
        test_elections.test_the_time_out_is_drawn_afresh_with_each_change_of_roles,
    ),
    "5.3: a rejected AppendEntries costs one try for a term, not for an entry": (
        test_replication.test_a_follower_is_probed_at_most_once_for_each_term_of_its_log,
    ),
    "5.3: State Machine Safety": (test_safety.test_nothing_that_was_promised_is_broken_on_a_bad_day,),
    "5.5: what a crashed follower missed is sent until it has it": (
        test_replication.test_a_lost_append_is_sent_again_once_it_is_known_to_be_lost,
    ),
    "5.6: heartbeats are more frequent than elections": (
        test_elections.test_options_that_make_no_sense_are_refused,
        test_elections.test_a_heartbeat_puts_off_an_election,
    ),
}

BARE = options(pre_vote=False, check_quorum=False)
ANY_TERM_KINDS = [
    MessageType.APPEND,
    MessageType.APPEND_RESPONSE,
    MessageType.VOTE,
    MessageType.VOTE_RESPONSE,
    MessageType.HEARTBEAT,
    MessageType.HEARTBEAT_RESPONSE,
    MessageType.SNAPSHOT,
]


def entries(*terms: int) -> list[Entry]:
    """Return a log, from entry 1 on, of entries of these terms."""
    return [Entry(term, index) for index, term in enumerate(terms, start=1)]


def boot(cluster: Cluster, node_id: int, *terms: int, term: int, commit: int = 0) -> None:
    """Let the node have been in `term`, with a log of entries of `terms`."""
    storage = MemoryStorage(conf_state=ConfState(voters=tuple(cluster.nodes)))
    storage.append(entries(*terms))
    storage.set_hard_state(HardState(term, NO_NODE, commit))
    cluster.boot(node_id, storage)


def follower(*terms: int, term: int, commit: int = 0) -> Cluster:
    """Return a cluster of three whose first node is looked at."""
    cluster = Cluster(3, configure=BARE)
    boot(cluster, 1, *terms, term=term, commit=commit)
    return cluster


def append(*new: Entry, term: int, index: int, log_term: int, commit: int = 0) -> Message:
    return Message(
        type=MessageType.APPEND,
        sender=2,
        to=1,
        term=term,
        index=index,
        log_term=log_term,
        entries=new,
        commit=commit,
    )


def vote(sender: int, *, term: int, index: int = 9, log_term: int = 9) -> Message:
    return Message(type=MessageType.VOTE, sender=sender, to=1, term=term, index=index, log_term=log_term)


def answers(cluster: Cluster, kind: MessageType) -> list[Message]:
    """Let the first node write all it has to, and return what it then says."""
    while cluster[1].appends:
        cluster.write(1)
    return [message for message in cluster.messages if message.sender == 1 and message.type is kind]


def campaign(cluster: Cluster, node_id: int, *voters: int) -> None:
    """Let the node stand, and be heard by `voters` and itself; nothing else is delivered."""
    cluster.do(node_id, RawNode.campaign)
    while cluster[node_id].appends:
        cluster.write(node_id)
    for message in [message for message in cluster.messages if message.type is MessageType.VOTE]:
        cluster.messages.remove(message)
        if message.to in voters:
            cluster.deliver(message)
    for voter in voters:
        while cluster[voter].appends:
            cluster.write(voter)
    for message in [message for message in cluster.messages if message.type is MessageType.VOTE_RESPONSE]:
        cluster.messages.remove(message)
        cluster.deliver(message)


def pass_on(cluster: Cluster, sender: int, to: int) -> None:
    """Deliver what is on its way from one node to another now, and let that one write."""
    for message in [message for message in cluster.messages if (message.sender, message.to) == (sender, to)]:
        cluster.messages.remove(message)
        cluster.deliver(message)
    while cluster[to].appends:
        cluster.write(to)


# Figure 2: state.


def test_a_first_boot_is_in_term_zero_with_no_vote_nothing_committed_and_nothing_applied() -> None:
    raft = Cluster(3)[1].raft

    assert (raft.term, raft.vote, raft.log.committed, raft.log.applied) == (0, NO_NODE, 0, 0)
    assert raft.role is Role.FOLLOWER


def test_the_current_term_only_increases() -> None:
    cluster = Cluster(3, configure=BARE)
    seen = []
    for term in (3, 1, 5, 4, 5, 2):
        cluster.deliver(Message(type=MessageType.HEARTBEAT, sender=2, to=1, term=term))
        while cluster[1].appends:
            cluster.write(1)
        seen.append((cluster[1].raft.term, cluster[1].storage.initial_state()[0].term))

    assert seen == [(term, term) for term in (3, 3, 5, 5, 5, 5)]


def test_on_election_next_index_is_the_last_index_plus_one_and_match_index_is_zero() -> None:
    cluster = follower(1, 1, 1, term=1)
    campaign(cluster, 1, 2)

    progress = cluster[1].raft.tracker.progress

    assert [(progress[node_id].next_index, progress[node_id].match) for node_id in (2, 3)] == [(4, 0)] * 2


# Figure 2: AppendEntries.


def test_reply_false_if_term_is_below_current_term() -> None:
    cluster = Cluster(3)  # with the answer that brings the leader of an older term back
    boot(cluster, 1, 1, term=5)

    cluster.deliver(append(Entry(4, 2), term=4, index=1, log_term=1, commit=1))

    assert [(answer.term, answer.index) for answer in answers(cluster, MessageType.APPEND_RESPONSE)] == [(5, 0)]
    assert (cluster[1].log(), cluster[1].raft.log.committed, cluster[1].raft.leader_id) == ([(1, 1)], 0, NO_NODE)


@pytest.mark.parametrize(("index", "log_term"), [(3, 1), (9, 2), (2, 2)])
def test_reply_false_if_no_entry_at_prev_log_index_has_prev_log_term(index: int, log_term: int) -> None:
    cluster = follower(1, 1, term=2)

    cluster.deliver(append(Entry(2, index + 1), term=2, index=index, log_term=log_term))

    assert [answer.reject for answer in answers(cluster, MessageType.APPEND_RESPONSE)] == [True]
    assert cluster[1].log() == [(1, 1), (1, 2)]


def test_append_any_new_entries_not_already_in_the_log() -> None:
    cluster = follower(1, 1, 1, term=2)

    cluster.deliver(append(Entry(1, 2), Entry(1, 3), Entry(2, 4), Entry(2, 5), term=2, index=1, log_term=1))

    assert cluster[1].log() == [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5)]
    assert [entry.index for message in cluster[1].appends for entry in message.entries] == [4, 5]
    (answer,) = answers(cluster, MessageType.APPEND_RESPONSE)
    assert (answer.reject, answer.index) == (False, 5)


@pytest.mark.parametrize(("leader_commit", "commit"), [(1, 2), (2, 2), (3, 3), (4, 4), (5, 4), (9, 4)])
def test_commit_index_becomes_the_lower_of_leader_commit_and_last_new_entry_if_that_is_more(
    leader_commit: int, commit: int
) -> None:
    cluster = follower(1, 1, 1, 1, 1, 1, term=1, commit=2)

    cluster.deliver(append(Entry(1, 4), term=1, index=3, log_term=1, commit=leader_commit))

    assert cluster[1].raft.log.committed == commit


# Figure 2: RequestVote.


def test_grant_no_vote_if_term_is_below_current_term() -> None:
    cluster = follower(term=5)

    cluster.deliver(vote(2, term=4))

    assert answers(cluster, MessageType.VOTE_RESPONSE) == []
    assert (cluster[1].raft.term, cluster[1].raft.vote) == (5, NO_NODE)


@pytest.mark.parametrize(
    ("index", "log_term", "granted"),
    [(2, 2, True), (3, 2, True), (1, 3, True), (1, 2, False), (9, 1, False), (0, 0, False)],
)
def test_grant_a_vote_if_the_candidates_log_is_at_least_as_up_to_date(
    index: int, log_term: int, *, granted: bool
) -> None:
    cluster = follower(1, 2, term=3)

    cluster.deliver(vote(2, term=4, index=index, log_term=log_term))

    assert [not answer.reject for answer in answers(cluster, MessageType.VOTE_RESPONSE)] == [granted]
    assert cluster[1].storage.initial_state()[0].vote == (2 if granted else NO_NODE)


# Figure 2: rules for all servers.


def test_what_is_committed_is_applied_in_order_and_once() -> None:
    cluster = follower(1, 1, 1, 1, term=1)

    for commit in (2, 2, 1, 4):
        cluster.deliver(append(term=1, index=4, log_term=1, commit=commit))

    assert [entry.index for message in cluster[1].applies for entry in message.entries] == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", ANY_TERM_KINDS)
@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_a_message_with_a_higher_term_makes_any_server_a_follower_in_it(role: Role, kind: MessageType) -> None:
    cluster = Cluster(3, configure=BARE)
    if role is not Role.FOLLOWER:
        campaign(cluster, 1, *((2,) if role is Role.LEADER else ()))
    assert cluster[1].raft.role is role

    cluster.deliver(Message(type=kind, sender=2, to=1, term=7, index=9, log_term=6))

    assert (cluster[1].raft.term, cluster[1].raft.role) == (7, Role.FOLLOWER)
    answers(cluster, kind)
    assert cluster[1].storage.initial_state()[0].term == 7


# Figure 2: followers.


@pytest.mark.parametrize(
    ("request_kind", "response_kind"),
    [
        (MessageType.APPEND, MessageType.APPEND_RESPONSE),
        (MessageType.HEARTBEAT, MessageType.HEARTBEAT_RESPONSE),
        (MessageType.VOTE, MessageType.VOTE_RESPONSE),
        (MessageType.PRE_VOTE, MessageType.PRE_VOTE_RESPONSE),
    ],
)
def test_a_follower_responds_to_candidates_and_leaders(request_kind: MessageType, response_kind: MessageType) -> None:
    cluster = Cluster(3)

    cluster.deliver(Message(type=request_kind, sender=2, to=1, term=1))

    assert [answer.to for answer in answers(cluster, response_kind)] == [2]


@pytest.mark.parametrize(
    ("message", "puts_off"),
    [
        (append(term=3, index=0, log_term=0), True),
        (append(Entry(3, 9), term=3, index=8, log_term=3), True),  # rejected, but it is the leader
        (vote(2, term=3), True),
        (append(term=2, index=0, log_term=0), False),  # of no current leader
        (vote(2, term=3, index=0, log_term=0), False),  # not granted
    ],
)
def test_only_the_current_leader_or_a_granted_vote_puts_off_an_election(message: Message, *, puts_off: bool) -> None:
    cluster = follower(1, 3, term=3)
    ticks = cluster[1].raft.randomized_election_ticks
    for _ in range(ticks - 1):
        cluster.tick(1)

    cluster.deliver(message)
    cluster.tick(1)

    assert (cluster[1].raft.role is Role.FOLLOWER) is puts_off


# Figure 2: candidates.


def test_on_conversion_to_candidate_a_server_starts_an_election() -> None:
    cluster = follower(1, 2, term=3)
    for _ in range(cluster[1].raft.randomized_election_ticks):
        cluster.tick(1)

    raft = cluster[1].raft
    assert (raft.role, raft.term, raft.vote, raft.election_elapsed) == (Role.CANDIDATE, 4, 1, 0)
    asked = [(message.to, message.term, message.index, message.log_term) for message in cluster.messages]
    assert asked == [(2, 4, 2, 2), (3, 4, 2, 2)]
    cluster.write(1)
    assert cluster[1].storage.initial_state()[0] == HardState(4, 1, 0)


def test_votes_of_a_majority_of_servers_make_a_leader_and_fewer_do_not() -> None:
    cluster = Cluster(5, configure=BARE)

    campaign(cluster, 1, 2)
    before = cluster[1].raft.role
    cluster.deliver(Message(type=MessageType.VOTE_RESPONSE, sender=3, to=1, term=1))

    assert (before, cluster[1].raft.role) == (Role.CANDIDATE, Role.LEADER)


def test_a_candidate_whose_election_times_out_starts_a_new_one() -> None:
    cluster = Cluster(3, configure=BARE)
    campaign(cluster, 1)

    for _ in range(cluster[1].raft.randomized_election_ticks):
        cluster.tick(1)

    assert (cluster[1].raft.role, cluster[1].raft.term) == (Role.CANDIDATE, 2)
    assert {(message.to, message.term) for message in cluster.messages} == {(2, 2), (3, 2)}


# Figure 2: leaders.


def test_a_leader_speaks_to_each_server_on_election_and_again_whenever_idle() -> None:
    cluster = Cluster(3, configure=BARE)
    campaign(cluster, 1, 2)
    assert {(message.type, message.to) for message in cluster.messages} == {
        (MessageType.APPEND, 2),
        (MessageType.APPEND, 3),
    }

    for _ in range(3 * ELECTION_TICKS):
        cluster.messages.clear()
        cluster.tick(1)
        heartbeats = [message.to for message in cluster.messages if message.type is MessageType.HEARTBEAT]
        assert heartbeats == [2, 3]


def test_a_command_is_appended_to_the_leaders_log_and_applied_when_a_majority_holds_it() -> None:
    cluster = Cluster(3)
    cluster.elect(1)

    cluster.propose(1, b"x")
    assert cluster[1].log()[-1] == (1, 2)
    cluster.write(1)
    assert not cluster[1].applies
    cluster.settle(only=[1, 2])

    assert cluster[1].applied_index == 2


def test_a_follower_is_sent_what_begins_at_its_next_index() -> None:
    cluster = follower(1, 1, 1, term=1)
    campaign(cluster, 1, 2)

    sent = [message for message in cluster.messages if message.to == 3]

    assert cluster[1].raft.log.last_index == 4
    assert [(message.index, message.log_term, list(message.entries)) for message in sent] == [(3, 1, [Entry(2, 4)])]


def test_success_updates_next_index_and_match_index() -> None:
    cluster = follower(1, 1, 1, term=1)
    campaign(cluster, 1, 2)
    progress = cluster[1].raft.tracker.progress[3]

    cluster.deliver(Message(type=MessageType.APPEND_RESPONSE, sender=3, to=1, term=2, index=3))

    assert (progress.match, progress.next_index) == (3, 5)  # entry 4, its own, was sent right after


def test_inconsistency_lowers_next_index_and_tries_again() -> None:
    cluster = follower(1, 1, 1, term=1)
    campaign(cluster, 1, 2)
    cluster.messages.clear()

    cluster.deliver(
        Message(
            type=MessageType.APPEND_RESPONSE, sender=3, to=1, term=2, index=3, reject=True, reject_hint=1, log_term=1
        )
    )

    (message,) = cluster.messages
    assert (message.type, message.to, message.index, message.log_term) == (MessageType.APPEND, 3, 1, 1)
    assert cluster[1].raft.tracker.progress[3].match == 0


# 5.1, 5.2: terms and elections.


@pytest.mark.parametrize("seed", range(30))
def test_at_most_one_leader_is_elected_in_a_term_however_the_votes_fall(seed: int) -> None:
    """The referee compares all leaders that there ever are."""
    cluster = Cluster(5, configure=BARE, rng=random.Random(seed))
    for _ in range(3):
        for node_id in cluster.nodes:
            cluster.do(node_id, RawNode.campaign)
        while cluster.messages or any(node.appends for node in cluster.nodes.values()):
            writers = [node.id for node in cluster.nodes.values() if node.appends]
            if writers and cluster.rng.random() < 0.5:
                cluster.write(cluster.rng.choice(writers))
            elif cluster.messages:
                cluster.deliver_next(cluster.rng.randrange(len(cluster.messages)))

    assert len({cluster[leader].raft.term for leader in cluster.leaders}) == len(cluster.leaders)


def test_a_split_vote_elects_nobody_and_random_time_outs_end_it() -> None:
    cluster = Cluster(4, configure=BARE)
    for candidate, voter in ((1, 3), (2, 4)):
        campaign(cluster, candidate, voter)
    assert [cluster[node_id].raft.role for node_id in (1, 2)] == [Role.CANDIDATE] * 2
    assert {node.raft.term for node in cluster.nodes.values()} == {1}

    cluster.pass_time(6 * ELECTION_TICKS)

    assert len(cluster.leaders) == 1


def test_a_candidate_rejects_a_leader_of_an_older_term_and_remains_a_candidate() -> None:
    cluster = follower(1, term=3)
    campaign(cluster, 1)

    cluster.deliver(append(Entry(3, 2), term=3, index=1, log_term=1))

    assert (cluster[1].raft.role, cluster[1].raft.term, cluster[1].log()) == (Role.CANDIDATE, 4, [(1, 1)])


# 5.3: logs.

FIGURE_7 = {
    "a: lacks one": (1, 1, 1, 4, 4, 5, 5, 6, 6),
    "b: lacks many": (1, 1, 1, 4),
    "c: has one more": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    "d: has two more": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    "e: lacks some and has others": (1, 1, 1, 4, 4, 4, 4),
    "f: has what nobody else has": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}
LEADER_OF_FIGURE_7 = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)


def figure_7(case: str) -> Cluster:
    """Return the leader of Figure 7, elected in term 8, and the follower of `case`, which has not heard of it."""
    cluster = Cluster(3, configure=BARE)
    boot(cluster, 1, *LEADER_OF_FIGURE_7, term=7)
    boot(cluster, 2, *FIGURE_7["a: lacks one"], term=7)
    boot(cluster, 3, *FIGURE_7[case], term=7)
    campaign(cluster, 1, 2)
    return cluster


@pytest.mark.parametrize("case", FIGURE_7)
def test_log_matching_a_leader_makes_the_logs_of_its_followers_equal_to_its_own(case: str) -> None:
    cluster = figure_7(case)

    cluster.settle()
    cluster.pass_time(2)

    assert cluster[3].log() == cluster[1].log()
    assert [term for term, _ in cluster[3].log()] == [*LEADER_OF_FIGURE_7, 8]


@pytest.mark.parametrize("case", FIGURE_7)
def test_log_matching_equal_index_and_term_mean_equal_logs_up_to_there_after_every_message(case: str) -> None:
    cluster = figure_7(case)
    while cluster.messages or any(node.appends or node.applies for node in cluster.nodes.values()):
        cluster.step_once()
        for one, other in pairwise(node.log() for node in cluster.nodes.values()):
            shared = max((place + 1 for place, pair in enumerate(one) if pair in other), default=0)
            assert one[:shared] == other[:shared]


def test_a_leader_never_overwrites_or_deletes_entries_of_its_own_log() -> None:
    cluster = figure_7("d: has two more")
    seen = cluster[1].log()

    cluster.deliver(append(Entry(8, 4), term=8, index=3, log_term=1))  # who sends this is no leader
    for number in range(5):
        cluster.propose(1, b"%d" % number)
        cluster.settle()
        assert cluster[1].log()[: len(seen)] == seen
        seen = cluster[1].log()

    assert len(seen) == 16


# 5.4: safety.


@pytest.mark.parametrize(("candidate", "may_lead"), [(2, True), (3, True), (4, False), (5, False)])
def test_leader_completeness_only_who_holds_what_is_committed_is_elected(candidate: int, *, may_lead: bool) -> None:
    cluster = Cluster(5, configure=BARE)
    cluster.elect(1)
    cluster.isolate(4, 5)
    cluster.propose(1, b"committed")
    cluster.settle()
    assert cluster[1].raft.log.committed == 2
    cluster.heal()
    cluster.isolate(1)

    cluster.do(candidate, RawNode.campaign)
    cluster.settle()

    assert (cluster.nodes[candidate].leads) is may_lead


def figure_8() -> Cluster:
    """Return (c) of Figure 8: S1 leads in term 4, and its entry of term 2 is on S2 and S3 as well."""
    cluster = Cluster(5, configure=options(pre_vote=False, check_quorum=False, max_bytes_per_message=0))
    for node_id, terms in {1: (1, 2), 2: (1, 2), 3: (1,), 4: (1,), 5: (1, 3)}.items():
        boot(cluster, node_id, *terms, term=3, commit=1)
    campaign(cluster, 1, 2, 3)
    assert cluster[1].leads
    pass_on(cluster, 1, 3)  # its entry of term 4, which does not fit yet
    pass_on(cluster, 3, 1)
    pass_on(cluster, 1, 3)
    assert [cluster[node_id].log()[1:] for node_id in (2, 3)] == [[(2, 2)]] * 2
    return cluster


def test_figure_8_d_an_entry_of_an_older_term_on_a_majority_is_not_committed_and_may_be_overwritten() -> None:
    cluster = figure_8()
    for node_id in (2, 3):
        cluster.deliver(Message(type=MessageType.APPEND_RESPONSE, sender=node_id, to=1, term=4, index=2))
    assert cluster[1].raft.log.committed == 1
    cluster.messages.clear()
    cluster.isolate(1)

    for _ in range(2):  # its term is behind
        cluster.do(5, RawNode.campaign)
        cluster.settle()

    assert cluster[5].leads
    assert [cluster[node_id].log()[1] for node_id in (2, 3, 4, 5)] == [(3, 2)] * 4


def test_figure_8_e_an_entry_of_the_current_term_on_a_majority_commits_all_before_it_for_ever() -> None:
    cluster = figure_8()
    cluster.settle(only=[1, 2, 3])
    assert cluster[1].raft.log.committed == 3
    cluster.messages.clear()
    cluster.isolate(1)

    for _ in range(3):
        cluster.do(5, RawNode.campaign)
        cluster.settle()

    assert not cluster[5].leads
    assert cluster[2].log()[:3] == cluster[3].log()[:3] == [(1, 1), (2, 2), (4, 3)]


# 5.5: crashes.


def test_requests_are_idempotent() -> None:
    cluster = follower(1, term=1)
    request = append(Entry(2, 2), Entry(2, 3), term=2, index=1, log_term=1, commit=1)

    for message in (request, request, vote(3, term=3), vote(3, term=3)):
        cluster.deliver(message)

    said = [(answer.reject, answer.index) for answer in answers(cluster, MessageType.APPEND_RESPONSE)]
    assert said == [(False, 3)] * 2
    assert cluster[1].log() == [(1, 1), (2, 2), (2, 3)]
    assert [answer.reject for answer in answers(cluster, MessageType.VOTE_RESPONSE)] == [False] * 2


def test_a_server_that_crashes_after_it_took_entries_takes_them_again() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"x")
    cluster.settle(only=[2])
    cluster.messages = [message for message in cluster.messages if message.sender != 2]  # its answer is lost
    assert cluster[2].storage.last_index() == 2

    cluster.crash(2)
    cluster.isolate(3)
    cluster.pass_time(3)

    assert cluster[1].raft.log.committed == 2
    assert cluster[2].log() == cluster[1].log()


def test_a_server_restarts_with_the_term_vote_and_log_that_it_had() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.propose(1, b"x")
    cluster.settle()
    raft = cluster[1].raft
    before = (raft.term, raft.vote, cluster[1].log())

    cluster.crash(1)

    raft = cluster[1].raft
    assert (raft.term, raft.vote, cluster[1].log()) == before
    assert raft.role is Role.FOLLOWER
