"""The text forms in which the scripts of etcd/raft show messages, entries, and members."""

import json
from collections.abc import Iterable, Mapping

from engram.log.consensus.rawnode import MemberStatus, Ready
from engram.log.consensus.tracker import Members, Progress
from engram.log.consensus.types import (
    LOCAL_APPEND_THREAD,
    LOCAL_APPLY_THREAD,
    NO_NODE,
    Change,
    ChangeKind,
    Entry,
    EntryKind,
    Message,
    MessageType,
    Role,
    Snapshot,
    decode_conf_change,
)

MESSAGE_NAMES = {
    MessageType.HUP: "MsgHup",
    MessageType.BEAT: "MsgBeat",
    MessageType.PROPOSE: "MsgProp",
    MessageType.APPEND: "MsgApp",
    MessageType.APPEND_RESPONSE: "MsgAppResp",
    MessageType.VOTE: "MsgVote",
    MessageType.VOTE_RESPONSE: "MsgVoteResp",
    MessageType.SNAPSHOT: "MsgSnap",
    MessageType.HEARTBEAT: "MsgHeartbeat",
    MessageType.HEARTBEAT_RESPONSE: "MsgHeartbeatResp",
    MessageType.UNREACHABLE: "MsgUnreachable",
    MessageType.SNAPSHOT_STATUS: "MsgSnapStatus",
    MessageType.CHECK_QUORUM: "MsgCheckQuorum",
    MessageType.TRANSFER_LEADER: "MsgTransferLeader",
    MessageType.TIMEOUT_NOW: "MsgTimeoutNow",
    MessageType.READ_INDEX: "MsgReadIndex",
    MessageType.READ_INDEX_RESPONSE: "MsgReadIndexResp",
    MessageType.PRE_VOTE: "MsgPreVote",
    MessageType.PRE_VOTE_RESPONSE: "MsgPreVoteResp",
    MessageType.STORAGE_APPEND: "MsgStorageAppend",
    MessageType.STORAGE_APPEND_RESPONSE: "MsgStorageAppendResp",
    MessageType.STORAGE_APPLY: "MsgStorageApply",
    MessageType.STORAGE_APPLY_RESPONSE: "MsgStorageApplyResp",
    MessageType.FORGET_LEADER: "MsgForgetLeader",
}

ROLE_NAMES = {
    Role.FOLLOWER: "StateFollower",
    Role.CANDIDATE: "StateCandidate",
    Role.LEADER: "StateLeader",
    Role.PRE_CANDIDATE: "StatePreCandidate",
}

_KIND_NAMES = {
    EntryKind.NORMAL: "EntryNormal",
    EntryKind.CONF_CHANGE: "EntryConfChange",
    EntryKind.CONF_CHANGE_V2: "EntryConfChangeV2",
}

CHANGE_LETTERS = {
    "v": ChangeKind.ADD_VOTER,
    "l": ChangeKind.ADD_LEARNER,
    "r": ChangeKind.REMOVE,
    "u": ChangeKind.UPDATE,
}
_LETTERS_OF_CHANGES = {kind: letter for letter, kind in CHANGE_LETTERS.items()}


def parse_changes(text: str) -> tuple[Change, ...]:
    return tuple(Change(CHANGE_LETTERS[token[0]], int(token[1:])) for token in text.split())


def describe_entry(entry: Entry) -> str:
    if entry.kind is EntryKind.NORMAL:
        content = json.dumps(entry.data.decode())  # quotes as Go does, for what the scripts hold
    else:
        changes = decode_conf_change(entry).changes
        content = " ".join(f"{_LETTERS_OF_CHANGES[change.kind]}{change.node_id}" for change in changes)
    return f"{entry.term}/{entry.index} {_KIND_NAMES[entry.kind]}{' ' if content else ''}{content}"


def describe_entries(entries: Iterable[Entry]) -> str:
    return "".join(f"{describe_entry(entry)}\n" for entry in entries)


def describe_snapshot(snapshot: Snapshot) -> str:
    meta, state = snapshot.meta, snapshot.meta.conf_state
    return (
        f"Index:{meta.index} Term:{meta.term} ConfState:Voters:{_numbers(state.voters)} "
        f"VotersOutgoing:{_numbers(state.voters_outgoing)} Learners:{_numbers(state.learners)} "
        f"LearnersNext:{_numbers(state.learners_next)} AutoLeave:{str(state.auto_leave).lower()}"
    )


def describe_message(message: Message, indent: str = "") -> str:
    text = (
        f"{indent}{_target(message.sender)}->{_target(message.to)} {MESSAGE_NAMES[message.type]} "
        f"Term:{message.term} Log:{message.log_term}/{message.index}"
    )
    if message.reject:
        text += f" Rejected (Hint: {message.reject_hint})"
    if message.commit:
        text += f" Commit:{message.commit}"
    if message.vote:
        text += f" Vote:{message.vote}"
    if len(message.entries) == 1:
        text += f" Entries:[{describe_entry(message.entries[0])}]"
    elif message.entries:
        lines = "".join(f"\n{indent}  {describe_entry(entry)}" for entry in message.entries)
        text += f" Entries:[{lines}\n{indent}]"
    if message.snapshot is not None:
        text += f"\n{indent}  Snapshot: {describe_snapshot(message.snapshot)}"
    if message.responses:
        lines = "".join(f"\n{describe_message(response, indent + '  ')}" for response in message.responses)
        text += f" Responses:[{lines}\n{indent}]"
    return text


def describe_ready(ready: Ready) -> str:
    text = "".join(_parts_of_ready(ready))
    return f"Ready MustSync={str(ready.must_sync).lower()}:\n{text}" if text else "<empty Ready>"


def describe_members(members: Members) -> str:
    text = f"voters={_ids(members.incoming)}"
    if members.outgoing:
        text += f"&&{_ids(members.outgoing)}"
    if members.learners:
        text += f" learners={_ids(members.learners)}"
    if members.learners_next:
        text += f" learners_next={_ids(members.learners_next)}"
    if members.auto_leave:
        text += " autoleave"
    return text


def describe_progress(progress: Mapping[int, Progress | MemberStatus]) -> str:
    return "".join(f"{node_id}: {_member(progress[node_id])}\n" for node_id in sorted(progress))


def _parts_of_ready(ready: Ready) -> Iterable[str]:
    if ready.soft_state is not None:
        yield f"Lead:{ready.soft_state.leader_id} State:{ROLE_NAMES[ready.soft_state.role]}\n"
    if ready.hard_state is not None:
        state = ready.hard_state
        yield f"HardState Term:{state.term}{f' Vote:{state.vote}' if state.vote else ''} Commit:{state.commit}\n"
    if ready.read_states:
        yield f"ReadStates {ready.read_states}\n"
    if ready.entries:
        yield f"Entries:\n{describe_entries(ready.entries)}"
    if ready.snapshot is not None:
        yield f"Snapshot {describe_snapshot(ready.snapshot)}\n"
    if ready.committed_entries:
        yield f"CommittedEntries:\n{describe_entries(ready.committed_entries)}"
    if ready.messages:
        yield "Messages:\n"
        yield from (f"{describe_message(message)}\n" for message in ready.messages)


def _member(progress: Progress | MemberStatus) -> str:
    if isinstance(progress, MemberStatus):
        inflight, full = progress.inflight, progress.inflight_full
    else:
        inflight, full = len(progress.inflights), progress.inflights.full
    words = [progress.state.value, f"match={progress.match}", f"next={progress.next_index}"]
    words += ["learner"] * progress.is_learner + ["paused"] * progress.is_paused
    words += [f"pendingSnap={progress.pending_snapshot}"] * (progress.pending_snapshot > 0)
    words += ["inactive"] * (not progress.recent_active)
    words += [f"inflight={inflight}{'[full]' if full else ''}"] * (inflight > 0)
    return " ".join(words)


def _target(node_id: int) -> str:
    names = {NO_NODE: "None", LOCAL_APPEND_THREAD: "AppendThread", LOCAL_APPLY_THREAD: "ApplyThread"}
    return names.get(node_id, f"{node_id:x}")


def _ids(ids: Iterable[int]) -> str:
    return f"({' '.join(map(str, sorted(ids)))})"


def _numbers(ids: Iterable[int]) -> str:
    return f"[{' '.join(map(str, ids))}]"
