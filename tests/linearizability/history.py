"""What clients asked and what they were answered, with times of one clock; kept as JSON, a line for each operation."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import msgspec


class AddMessages(msgspec.Struct, frozen=True, tag="add"):
    """Append messages as one atomic batch; `messages` are ids and texts."""

    messages: tuple[tuple[str, str], ...]


class DeleteMessage(msgspec.Struct, frozen=True, tag="delete"):
    """Delete one message."""

    message_id: str


class ReadMessages(msgspec.Struct, frozen=True, tag="list"):
    """Read the whole list. `min_index` None: linearizable; else what the node has, from that log index on."""

    min_index: int | None = None


class ReadMessage(msgspec.Struct, frozen=True, tag="get"):
    """Read one message, linearizable."""

    message_id: str


class PinFact(msgspec.Struct, frozen=True, tag="pin"):
    """Pin a fact."""

    fact_id: str
    text: str


class UnpinFact(msgspec.Struct, frozen=True, tag="unpin"):
    """Unpin a fact."""

    fact_id: str


class ReadFacts(msgspec.Struct, frozen=True, tag="facts"):
    """Read all facts, linearizable."""


Request = AddMessages | DeleteMessage | ReadMessages | ReadMessage | PinFact | UnpinFact | ReadFacts

READS = (ReadMessages, ReadMessage, ReadFacts)


class Added(msgspec.Struct, frozen=True, tag="added"):
    """For each message of the batch `created` or `duplicate`, and the log index that counts."""

    outcomes: tuple[tuple[str, int], ...]


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """409 with this code."""

    code: str


class Done(msgspec.Struct, frozen=True, tag="done"):
    """204."""


class Listed(msgspec.Struct, frozen=True, tag="listed"):
    """Ids, texts and log indexes, in the order of the answer; empty where the session is unknown."""

    messages: tuple[tuple[str, str, int], ...]


class Got(msgspec.Struct, frozen=True, tag="got"):
    """The text of one message; None where there is none."""

    text: str | None


class FactPlaced(msgspec.Struct, frozen=True, tag="pinned"):
    """The id under which the text is pinned."""

    fact_id: str


class FactsListed(msgspec.Struct, frozen=True, tag="facts"):
    """Ids and texts."""

    facts: tuple[tuple[str, str], ...]


Reply = Added | Refused | Done | Listed | Got | FactPlaced | FactsListed


class Outcome(StrEnum):
    """What a client knows of an operation."""

    ANSWERED = "answered"
    FAILED = "failed"
    """It did not happen: it was never sent, or a node said that nothing was written."""
    UNKNOWN = "unknown"
    """It may have happened, or happen yet."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One request, redirects included."""

    number: int
    client: int
    session_id: str
    request: Request
    called_ns: int
    returned_ns: int
    """When the client knew the outcome, or gave up."""
    outcome: Outcome
    nodes: tuple[int, ...]
    """Who was asked, in order."""
    status: int | None = None
    """Of the last answer; None where none came."""
    reply: Reply | None = None
    """None unless it was answered."""
    log_index: int = 0
    """Engram-Index of the answer."""
    note: str = ""
    """Why there is no answer, or what was answered that must not be."""

    def __str__(self) -> str:
        times = f"{self.called_ns / 1e9:.6f} s to {self.returned_ns / 1e9:.6f} s"
        what = self.reply if self.outcome is Outcome.ANSWERED else f"{self.outcome} {self.note}"
        return f"#{self.number} client {self.client}, nodes {self.nodes}, {times}: {self.request} -> {what}"


class History(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    seed: int
    nemesis: str
    operations: Sequence[Operation] = ()
    events: Sequence[tuple[int, str]] = ()
    """What was done to the nodes, and when."""


_operations = msgspec.json.Decoder(Operation)


def save(history: History, path: Path) -> None:
    """Write a history: one line about the run, then a line for each operation."""
    head = {"seed": history.seed, "nemesis": history.nemesis, "events": history.events}
    lines = [msgspec.json.encode(head), *map(msgspec.json.encode, history.operations)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(lines) + b"\n")


def load(path: Path) -> History:
    """Read what `save` has written.

    Raises:
        msgspec.DecodeError: It is not that.
    """
    head, *lines = path.read_bytes().splitlines()
    run = msgspec.json.decode(head, type=History)
    return msgspec.structs.replace(run, operations=[_operations.decode(line) for line in lines])
