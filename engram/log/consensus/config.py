"""What a node is told when it is made."""

from dataclasses import dataclass
from typing import Protocol

from engram.log.consensus.readonly import ReadOnlyOption
from engram.log.consensus.types import NO_NODE, UNLIMITED, is_local_thread
from engram.log.storage import Storage


class Rng(Protocol):
    """Where the jitter of elections comes from; a `random.Random` with a seed repeats a run."""

    def randrange(self, start: int, /) -> int:
        """Return an integer in [0, start)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The options of one node. The defaults are those of a cluster that is to survive what networks do.

    Raises:
        ValueError: An option makes no sense; the message says which.
    """

    id: int
    storage: Storage
    rng: Rng
    election_ticks: int = 10
    """A follower campaigns after it has heard of no leader for this to twice this; a leader steps down after this."""
    heartbeat_ticks: int = 1
    applied: int = 0
    """The last index that was applied before a restart; nothing up to it is handed out again.

    Not below the snapshot that the storage names the members of, however far below that its entries reach.
    """
    async_storage_writes: bool = False
    """Ready carries STORAGE_APPEND and STORAGE_APPLY, which are answered when done, in place of advance()."""
    max_bytes_per_message: int = UNLIMITED
    """Of entries in one append; a single entry may be larger. 0: one entry each."""
    max_committed_bytes_per_ready: int = UNLIMITED
    """Of entries that are being applied at the same time."""
    max_uncommitted_bytes: int = UNLIMITED
    """Of payloads a leader appends before the first of them is committed. A proposal into an empty tail may exceed it."""
    max_inflight_messages: int = 256
    """Appends a follower is sent before it answers the first."""
    max_inflight_bytes: int = UNLIMITED
    """Payloads in them; the last may go over it."""
    check_quorum: bool = True
    """A leader that hears of no majority steps down, and nobody votes against a leader it hears of."""
    pre_vote: bool = True
    """Ask whether an election could be won before it disturbs anyone."""
    step_down_on_removal: bool = True
    """A leader that is removed, or made a learner, follows from then on."""
    read_only_option: ReadOnlyOption = ReadOnlyOption.SAFE
    proposal_forwarding: bool = True
    """A follower passes proposals on to its leader."""
    refusals_tell_commit: bool = True
    """Who refuses a vote says what it knows to be committed: a candidate may hold it, and need to know."""
    conf_change_validation: bool = True
    """Refuse a membership change while another is under way. Off, the application must see to that."""

    def __post_init__(self) -> None:
        checks = (
            (self.id != NO_NODE and not is_local_thread(self.id), f"id {self.id} is reserved"),
            (self.heartbeat_ticks > 0, f"heartbeat_ticks {self.heartbeat_ticks} must be greater than 0"),
            (
                self.election_ticks > self.heartbeat_ticks,
                f"election_ticks {self.election_ticks} must be greater than heartbeat_ticks {self.heartbeat_ticks}",
            ),
            (self.max_committed_bytes_per_ready > 0, "max_committed_bytes_per_ready must be greater than 0"),
            (self.max_inflight_messages > 0, "max_inflight_messages must be greater than 0"),
            (
                self.max_inflight_bytes >= self.max_bytes_per_message,
                "max_inflight_bytes must not be less than max_bytes_per_message",
            ),
            (
                self.check_quorum or self.read_only_option is ReadOnlyOption.SAFE,
                "lease-based reads need check_quorum",
            ),
        )
        for holds, complaint in checks:
            if not holds:
                raise ValueError(complaint)
