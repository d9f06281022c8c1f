"""A cluster that is what a test says it is, and only writes down what it is told to do."""

from collections.abc import Sequence

from engram.log.status import ClusterStatus, MemberView


class FakeCluster:
    """One of voters 1 to 3 and learner 4. Node 1 leads until a test says otherwise."""

    def __init__(self, node_id: int = 1) -> None:
        self.node_id = node_id
        self.leader_id = 1
        self.cluster_id = "c1"
        self.http = {1: "127.0.0.1:3001", 2: "127.0.0.1:3002", 3: "[fd00::3]:3003", 4: ""}
        self.refusals: dict[int, str] = {}
        self.done: list[tuple[object, ...]] = []
        """What was asked for, in order."""
        self.refuse_with: Exception | None = None
        self.readable_at = 0
        """What `read_index` answers."""

    @property
    def is_leader(self) -> bool:
        return self.leader_id == self.node_id

    def leader_http(self) -> str | None:
        return self.http.get(self.leader_id) or None

    def status(self) -> ClusterStatus:
        members = [
            MemberView(
                node_id=node_id,
                address=f"node-{node_id}:9001",
                http_address=http,
                is_voter=node_id < 4,
                last_log_index=7 if self.is_leader else None,
                is_active=True if self.is_leader else None,
                state="replicate" if self.is_leader and node_id != self.node_id else None,
            )
            for node_id, http in self.http.items()
        ]
        return ClusterStatus(
            node_id=self.node_id,
            cluster_id=self.cluster_id,
            role="Leader" if self.is_leader else "Follower",
            leader_id=self.leader_id,
            term=3,
            commit_index=7,
            last_index=8,
            base_index=1,
            is_joint=False,
            members=members if self.cluster_id else [],
            refusals=self.refusals,
        )

    async def initialize(self) -> None:
        self._do("initialize")

    async def add_learner(self, node_id: int, address: str, http_address: str | None) -> None:
        self._do("add_learner", node_id, address, http_address)

    async def change_membership(self, members: Sequence[int], *, retain: bool, remove: Sequence[int] = ()) -> None:
        self._do("change_membership", list(members), retain, list(remove))

    async def transfer_leadership(self, node_id: int | None) -> int:
        self._do("transfer_leadership", node_id)
        return node_id or 2

    async def snapshot(self) -> int:
        self._do("snapshot")
        return 7

    async def read_index(self) -> int:
        self._do("read_index")
        return self.readable_at

    def _do(self, *what: object) -> None:
        if self.refuse_with is not None:
            raise self.refuse_with
        self.done.append(what)
