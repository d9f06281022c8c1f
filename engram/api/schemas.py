"""What goes over the wire: one struct a request or answer, from which decoders, encoders and OpenAPI are made.

Unknown fields of a request are ignored: existing clients send some. `null` stands for an optional field left out.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from engram.api.filters import Filter
from engram.api.times import RFC3339
from engram.commands import BATCH_MESSAGES_MAX, ID_CHARACTERS_MAX, METADATA_KEYS_MAX, TEXT_BYTES_MAX
from engram.events import Role, Scalar
from engram.log.status import RoleName
from engram.projections.rows import EmbeddingStatus
from engram.recall.explanation import HitExplained, ScopeExplained
from engram.recall.reader import Scope

ID_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f]+$"
NOT_BLANK = r"[^\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
"""Anything but what `str.strip` takes off, in letters that every dialect of JSON Schema reads the same way."""

ADDRESS_PATTERN = r"^([A-Za-z0-9._\-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}$"
INDEX_MAX = 2**63 - 1

Id = Annotated[
    str,
    Meta(
        extra_json_schema={"minLength": 1, "maxLength": ID_CHARACTERS_MAX, "pattern": ID_PATTERN},
        description="1 to 200 characters, any Unicode but control characters",
    ),
]
Text = Annotated[
    str,
    Meta(
        extra_json_schema={"minLength": 1, "maxLength": TEXT_BYTES_MAX, "pattern": NOT_BLANK},
        description="not blank; at most 256 KiB in UTF-8",
    ),
]
When = Annotated[
    str, Meta(extra_json_schema={"format": "date-time", "pattern": RFC3339}, description="RFC 3339, with an offset")
]
Metadata = Annotated[
    dict[Annotated[str, Meta(extra_json_schema={"pattern": ID_PATTERN, "maxLength": ID_CHARACTERS_MAX})], Scalar],
    Meta(
        extra_json_schema={"maxProperties": METADATA_KEYS_MAX},
        description="your own labels; at most 64 keys and 16 KiB",
    ),
]
Visible = Literal["Private", "Shared"]
Index = Annotated[int, Meta(ge=0, description="log index")]
Count = Annotated[int, Meta(ge=0)]
NodeId = Annotated[int, Meta(ge=1, le=INDEX_MAX)]
Address = Annotated[str, Meta(extra_json_schema={"pattern": ADDRESS_PATTERN})]


class NewSession(Struct, kw_only=True):
    """A session to make."""

    session_id: Id | None = None
    agent_id: Id | None = None
    user_id: Id | None = None
    metadata: Metadata | None = None


class SessionMade(Struct, kw_only=True):
    """The session's id."""

    session_id: Id


class NewMessage(Struct, kw_only=True):
    """A message to append. Without `id` it gets one, which comes back in `Engram-Message-Id`."""

    role: Role
    content: Text
    id: Id | None = None
    name: Annotated[Id, Meta(description="who speaks, where the role does not say it")] | None = None
    timestamp: When | None = None
    metadata: Metadata | None = None


class NewMessages(Struct, kw_only=True):
    """Messages to append together: all of them or none."""

    messages: Annotated[list[NewMessage], Meta(min_length=1, max_length=BATCH_MESSAGES_MAX)]


class Posted(Struct, kw_only=True):
    """Either of the two above, for decoding in one pass: which one it is shows in `messages`."""

    role: Role | UnsetType = UNSET
    content: str | UnsetType = UNSET
    id: str | None = None
    name: str | None = None
    timestamp: str | None = None
    metadata: dict[str, Scalar] | None = None
    messages: list[NewMessage] | UnsetType = UNSET


class MessageDone(Struct, kw_only=True):
    """What became of one message of a batch."""

    id: Id
    index: Index
    status: Literal["created", "duplicate"]


class MessagesDone(Struct, kw_only=True):
    """What became of a batch, in its order."""

    messages: list[MessageDone]


class MessageView(Struct, kw_only=True):
    """A message."""

    id: Id
    role: Role
    content: str
    name: str | None
    timestamp: Annotated[str, Meta(description="the client's time, else `created_at`")]
    created_at: str
    tokens: Count
    index: Index
    embedding: EmbeddingStatus
    metadata: Mapping[str, Scalar]


class MessageList(Struct, kw_only=True):
    """A page of messages."""

    messages: list[MessageView]
    next_cursor: str | None


class Counts(Struct, kw_only=True):
    """How much a session holds."""

    messages: Count
    facts: Count
    tokens: Annotated[int, Meta(ge=0, description="of all its messages")]


class Work(Struct, kw_only=True):
    """Messages that wait for background work, or that it was given up for."""

    embedding: Count


class SessionView(Struct, kw_only=True):
    """A session."""

    session_id: Id
    agent_id: str | None
    user_id: str | None
    metadata: Mapping[str, Scalar]
    visibility: Visible
    created_at: str
    updated_at: str
    index: Annotated[int, Meta(ge=0, description="log index of its last change")]
    counts: Counts
    pending: Work
    abandoned: Work


class SessionList(Struct, kw_only=True):
    """A page of sessions."""

    sessions: list[SessionView]
    next_cursor: str | None


class SearchQuery(Struct, kw_only=True):
    """What to look for."""

    query: Text
    top_k: Annotated[int, Meta(ge=1, le=200)]
    now: Annotated[When, Meta(description="what `last week` in the query is relative to; else the clock")] | None = None
    scope: Scope = "session"
    filter: Annotated[Filter, Meta(description="which messages may be found, of all in the scope")] | None = None
    min_score: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    explain: bool = False


class HitView(Struct, kw_only=True, omit_defaults=True):
    """A message that was found."""

    text: str
    score: Annotated[float, Meta(ge=0.0, le=1.0)]
    id: Id
    session_id: Id
    role: Role
    timestamp: str
    index: Index
    explain: HitExplained | None = None


class SearchResults(Struct, kw_only=True, omit_defaults=True):
    """Hits, best first."""

    results: list[HitView]
    degraded: Annotated[bool, Meta(description="no vectors could be used: words and time alone decided")] = False
    sessions_left_out: Annotated[int, Meta(ge=0, description="sessions not searched, as the scope is too wide")] = 0
    explain: ScopeExplained | None = None


class NewFact(Struct, kw_only=True):
    """A fact to pin."""

    fact: Text
    id: Id | None = None


class FactView(Struct, kw_only=True):
    """A pinned fact."""

    id: Id
    fact: str
    tokens: Count
    index: Index
    pinned_at: str


class FactList(Struct, kw_only=True):
    """A session's facts in the order of pinning."""

    facts: list[FactView]


class VisibilityWanted(Struct, kw_only=True):
    """Who may see what a session contributes to shared knowledge."""

    visibility: Annotated[
        str,
        Meta(
            extra_json_schema={"pattern": "^([Ss][Hh][Aa][Rr][Ee][Dd]|[Pp][Rr][Ii][Vv][Aa][Tt][Ee])$"},
            description="`Shared` or `Private`, in any case",
            examples=["Shared"],
        ),
    ]


class Health(Struct, kw_only=True):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class DependencyView(Struct, kw_only=True):
    """One thing that the node stands on."""

    name: str
    ready: bool
    required: Annotated[bool, Meta(description="without it the node is not ready; else it works with less")]
    detail: str


class Ready(Struct, kw_only=True):
    """The node can serve."""

    status: Literal["ready"]
    dependencies: list[DependencyView]


class NewLearner(Struct, kw_only=True):
    """A node to bring in: any address, with nothing to configure on the others."""

    node_id: NodeId
    addr: Annotated[Address, Meta(description="where the others reach its Raft: host:port")]
    http_addr: Annotated[Address, Meta(description="where clients reach it; else what it says itself")] | None = None


class Membership(Struct, kw_only=True):
    """The voters to have."""

    members: Annotated[list[NodeId], Meta(min_length=1, description="members already, as voters or learners")]
    retain: Annotated[bool, Meta(description="voters left out stay as learners")] = False
    remove: Annotated[list[NodeId], Meta(description="learners to remove besides")] = []


class Transfer(Struct, kw_only=True):
    """Who should lead."""

    node_id: Annotated[NodeId, Meta(description="a voter; else the one that is furthest")] | None = None


class Transferred(Struct, kw_only=True):
    """Who leads now."""

    leader_id: NodeId


class SnapshotTaken(Struct, kw_only=True):
    """Where the log begins for a new follower."""

    base_index: Index


class ClusterMember(Struct, kw_only=True):
    """A member of the cluster; what only the leader knows is null elsewhere."""

    id: NodeId
    addr: str
    http_addr: str | None
    voter: Annotated[bool, Meta(description="else a learner")]
    last_log_index: Annotated[Index, Meta(description="up to here its log is the leader's, on its disk")] | None
    active: Annotated[bool, Meta(description="the leader heard of it lately")] | None
    state: Annotated[str, Meta(description="how the leader feeds it: probe, replicate or snapshot")] | None


class Refused(Struct, kw_only=True):
    """A node that this one cannot talk to, because one of them refuses."""

    node_id: NodeId
    reason: str


class DigestsView(Struct, kw_only=True):
    """What this node's read models were at one index: equal on every node whose digests are of the same index."""

    index: Index
    models: Annotated[dict[str, str], Meta(description="SHA-256 by the name of the read model")]


class ClusterView(Struct, kw_only=True):
    """The cluster, as one node knows it."""

    node_id: NodeId
    cluster_id: Annotated[str, Meta(description="null until the node belongs to one")] | None
    role: RoleName
    leader_id: Annotated[NodeId, Meta(description="null while none is known")] | None
    term: Count
    commit_index: Index
    last_log_index: Index
    last_applied_index: Annotated[Index, Meta(description="what reads here see")]
    base_index: Annotated[Index, Meta(description="a follower that lacks more than what is above gets a snapshot")]
    is_joint: Annotated[bool, Meta(description="a change of the membership is under way")]
    members: list[ClusterMember]
    refusals: list[Refused]
    digests: Annotated[DigestsView, Meta(description="null until they were taken")] | None


class Problem(Struct, kw_only=True, omit_defaults=True):
    """What went wrong: RFC 9457 problem details."""

    type: str
    title: str
    status: Annotated[int, Meta(ge=300, le=599)]
    detail: Annotated[str, Meta(description="names the field, its value and the limit")]
    code: Annotated[str, Meta(description="stable: made for programs")]
    request_id: str
    dependencies: Annotated[Sequence[DependencyView], Meta(description="with `not_ready` of GET /ready")] = ()
