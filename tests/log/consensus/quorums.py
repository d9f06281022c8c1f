"""Runs the directives of a quorum script, with its drawings of who holds what."""

from collections.abc import Mapping, Sequence

from engram.log.consensus.quorum import (
    joint_committed_index,
    joint_vote,
    majority_committed_index,
    majority_vote,
)
from engram.log.consensus.types import UNLIMITED
from tests.log.consensus.datadriven import Directive


def handle(directive: Directive) -> str:
    incoming, outgoing = _ids(directive, "cfg"), _ids(directive, "cfgj")
    is_joint = directive.argument("cfgj") is not None
    words = _words(directive, "idx" if directive.command == "committed" else "votes")
    in_order = list(dict.fromkeys([*incoming, *outgoing]))
    if len(words) != len(in_order):
        return "error: mismatched input"
    given = {node_id: word for node_id, word in zip(in_order, words, strict=True) if word != "_"}
    if directive.command == "vote":
        votes = {node_id: word == "y" for node_id, word in given.items()}
        return _vote(set(incoming), set(outgoing), votes, is_joint=is_joint)
    held = {node_id: int(word) for node_id, word in given.items()}
    return _committed(set(incoming), set(outgoing), held, is_joint=is_joint)


def _vote(incoming: set[int], outgoing: set[int], votes: Mapping[int, bool], *, is_joint: bool) -> str:
    result = joint_vote(incoming, outgoing, votes)
    if not is_joint:
        assert result is majority_vote(incoming, votes)
    assert result is joint_vote(outgoing, incoming, votes)
    return f"{result.value}\n"


def _committed(incoming: set[int], outgoing: set[int], held: Mapping[int, int], *, is_joint: bool) -> str:
    index = joint_committed_index(incoming, outgoing, held)
    if not is_joint:
        assert index == majority_committed_index(incoming, held) == joint_committed_index(incoming, incoming, held)
    assert index == joint_committed_index(outgoing, incoming, held)
    shown = "∞" if index == UNLIMITED else str(index)
    return f"{_drawing(incoming | outgoing, held)}{shown}\n"


def _drawing(voters: set[int], held: Mapping[int, int]) -> str:
    if not voters:
        return "<empty majority quorum>"
    size = len(voters)
    bars = {voter: sum(held.get(other, 0) < held.get(voter, 0) for other in voters) for voter in voters}
    lines = [" " * size + "    idx\n"]
    for voter in sorted(voters):
        bar = "?" + " " * size if voter not in held else "x" * bars[voter] + ">" + " " * (size - bars[voter])
        lines.append(f"{bar} {held.get(voter, 0):5d}    (id={voter})\n")
    return "".join(lines)


def _words(directive: Directive, key: str) -> Sequence[str]:
    argument = directive.argument(key)
    return () if argument is None else argument.values


def _ids(directive: Directive, key: str) -> list[int]:
    return [int(word) for word in _words(directive, key) if word != "zero"]
