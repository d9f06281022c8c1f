"""`engram cluster`: look at a cluster and change it, over the HTTP of a node that runs."""

import argparse
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self, TextIO, TypeVar

import aiohttp
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engram.api.schemas import ClusterMember, ClusterView, Problem, Transferred
from engram.cli.progress import Progress
from engram.config import ANY_HOSTS, Config
from engram.errors import CatchUpError, ConfigError, EngramError
from engram.settings import Address

CONNECT_S = 5.0
ANSWER_S = 90.0
"""How long a node may take to answer: longer than it waits itself for others, to catch up for one."""

MOVED = 307
"""The status of an answer that only says who leads."""

REDIRECTS_MAX = 5
"""More of them are a circle: an election is as good as sure to end in fewer."""

WIDE = 1000
"""Columns of an output that is no terminal: nothing is cut off for a file."""

LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - replaced, not bound to

Answer = TypeVar("Answer")


class ClusterError(EngramError):
    """What a node refused, and why; or that there is none where one was looked for."""


class Wanted(NamedTuple):
    """What to do, with what, and which node to ask."""

    action: str
    url: str | None
    """None: this machine's, as the settings have it."""
    node_id: int | None
    address: str | None
    http_address: str | None
    is_learner: bool
    is_json: bool

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Self:
        """Return what the arguments ask for."""
        return cls(
            action=arguments.cluster_command,
            url=arguments.url,
            node_id=getattr(arguments, "node_id", None),
            address=getattr(arguments, "address", None),
            http_address=getattr(arguments, "http_address", None),
            is_learner=getattr(arguments, "learner", False),
            is_json=getattr(arguments, "json", False),
        )


async def run(config: Config, wanted: Wanted, out: TextIO, progress: Progress) -> int:
    """Do what is wanted; print what was asked for to `out`.

    Raises:
        ConfigError: The settings do not say where the node is.
        ClusterError: It does not answer, or refuses.
    """
    timeout = aiohttp.ClientTimeout(total=ANSWER_S, connect=CONNECT_S)
    async with aiohttp.ClientSession(timeout=timeout) as client:
        remote = Remote(client, wanted.url or _own_url(config))
        match wanted.action:
            case "status":
                await _status(remote, out, is_json=wanted.is_json)
            case "init":
                view = await remote.ask("POST", "/cluster/init", ClusterView)
                progress.say(
                    f"cluster {view.cluster_id} has nodes {_listed(view.members)}; node {view.leader_id} leads"
                )
            case "add":
                await _add(remote, wanted, progress)
            case "remove":
                await _remove(remote, wanted, progress)
            case "transfer":
                body = {} if wanted.node_id is None else {"node_id": wanted.node_id}
                done = await remote.ask("POST", "/cluster/transfer-leadership", Transferred, body)
                progress.say(f"node {done.leader_id} leads")
            case other:
                raise AssertionError(other)
    return 0


class Remote:
    """The cluster behind one of its nodes."""

    def __init__(self, client: aiohttp.ClientSession, url: str) -> None:
        self._client = client
        self._url = url

    async def ask(self, method: str, path: str, kind: type[Answer], body: object = None) -> Answer:
        """Return what is answered to a request, by the leader where only it can.

        Raises:
            CatchUpError: A node has not caught up in time; asking again waits on.
            ClusterError: It was refused, or nobody answered.
        """
        url, data = await self.send(method, path, body)
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.MsgspecError:
            raise ClusterError(f"what answers at {url} is no engram node") from None

    async def send(self, method: str, path: str, body: object = None) -> tuple[str, bytes]:
        """Return who answered, and the answer as it came; raise like `ask`."""
        url = self._url + path
        for _ in range(REDIRECTS_MAX):
            try:
                async with self._client.request(method, url, json=body, allow_redirects=False) as answer:
                    data = await answer.read()
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise ClusterError(f"no node answers at {url}: {_reason(error)}") from None
            if answer.status != MOVED:
                if not answer.ok:
                    raise _refusal(url, answer.status, data)
                return url, data
            url = answer.headers.get("Location", "")
        raise ClusterError(f"{self._url} and others send one another the request: no node leads yet, try again")

    async def leader(self) -> ClusterView:
        """Return the cluster as its leader knows it: what a follower knows may be old.

        Raises:
            ClusterError: There is none, or it does not answer.
        """
        view = await self.ask("GET", "/cluster", ClusterView)
        if view.role == "Leader":
            return view
        known = {member.id: member.http_addr for member in view.members}
        address = None if view.leader_id is None else known.get(view.leader_id)
        if address is None:
            raise ClusterError(
                f"node {view.node_id} knows no leader, or not where it is: try again, or ask another node"
            )
        theirs = await Remote(self._client, f"http://{address}").ask("GET", "/cluster", ClusterView)
        if theirs.role != "Leader" or theirs.cluster_id != view.cluster_id:
            raise ClusterError(f"node {theirs.node_id} at {address} does not lead any more: try again")
        return theirs


def _own_url(config: Config) -> str:
    if config.bind_port == 0:
        raise ConfigError("ENGRAM_BIND_ADDR has port 0, which stands for any: --url says where the node is")
    host = LOOPBACK[config.bind_host] if config.bind_host in ANY_HOSTS else config.bind_host
    return f"http://{Address(host, config.bind_port)}"


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it takes too long"
    if isinstance(error, aiohttp.ClientConnectorError):
        number, said = error.os_error.errno, error.os_error.strerror
        return os.strerror(number) if number is not None and number > 0 else said or str(error)
    return str(error) or type(error).__name__


def _refusal(url: str, status: int, data: bytes) -> EngramError:
    try:
        problem = msgspec.json.decode(data, type=Problem)
    except msgspec.MsgspecError:
        return ClusterError(f"what answers at {url} with status {status} is no engram node")
    if problem.code == CatchUpError.code:
        return CatchUpError(problem.detail)
    return ClusterError(f"{problem.detail} ({problem.code})")


async def _add(remote: Remote, wanted: Wanted, progress: Progress) -> None:
    node_id = wanted.node_id
    progress.say(f"node {node_id} at {wanted.address} joins as a learner and gets the log")
    learner = {"node_id": node_id, "addr": wanted.address, "http_addr": wanted.http_address}
    view = await _ask_until_caught_up(remote, "/cluster/add-learner", learner, progress)
    voters = [member.id for member in view.members if member.voter]
    if node_id not in voters and not wanted.is_learner:
        progress.say(f"node {node_id} has caught up and gets a vote")
        body = {"members": [*voters, node_id]}
        view = await _ask_until_caught_up(remote, "/cluster/change-membership", body, progress)
    progress.say(f"members are {_listed(view.members)}")


async def _ask_until_caught_up(remote: Remote, path: str, body: object, progress: Progress) -> ClusterView:
    while True:
        try:
            return await remote.ask("POST", path, ClusterView, body)
        except CatchUpError as error:
            progress.say(str(error))


async def _remove(remote: Remote, wanted: Wanted, progress: Progress) -> None:
    view = await remote.leader()
    if wanted.node_id not in {member.id for member in view.members}:
        raise ClusterError(f"node {wanted.node_id} is no member; members are {_listed(view.members)}")
    voters = [member.id for member in view.members if member.voter and member.id != wanted.node_id]
    if not voters:
        raise ClusterError(f"node {wanted.node_id} is the only one that votes: it cannot be removed")
    body = {"members": voters, "remove": [wanted.node_id]}
    view = await remote.ask("POST", "/cluster/change-membership", ClusterView, body)
    progress.say(f"node {wanted.node_id} is removed; members are {_listed(view.members)}")


async def _status(remote: Remote, out: TextIO, *, is_json: bool) -> None:
    if is_json:
        _, data = await remote.send("GET", "/cluster")
        out.write(data.decode() + "\n")
        return
    view = await remote.ask("GET", "/cluster", ClusterView)
    console = Console(file=out, highlight=False, width=None if out.isatty() else WIDE)
    for line in _lines(view):
        console.print(line, markup=False, soft_wrap=True)
    if view.members:
        console.print(_table(view))
    for refused in view.refusals:
        console.print(f"node {refused.node_id} and this one refuse each other: {refused.reason}", markup=False)


def _lines(view: ClusterView) -> Iterator[str]:
    if view.cluster_id is None:
        yield f"node {view.node_id} belongs to no cluster yet"
        return
    yield f"node {view.node_id}: {view.role} in cluster {view.cluster_id}, term {view.term}"
    leader = "no leader is known" if view.leader_id is None else f"node {view.leader_id} leads"
    if view.node_id not in {member.id for member in view.members}:
        yield f"node {view.node_id} is no member any more"
    yield leader + (", a change of the membership is under way" if view.is_joint else "")
    yield (
        f"log: {view.last_log_index}, committed: {view.commit_index}, applied: {view.last_applied_index}, "
        f"base: {view.base_index}"
    )
    if view.role != "Leader":
        yield "only the leader knows how far the members are"


def _table(view: ClusterView) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("node", "address", "http", "member", "last index", "lag", "state"):
        table.add_column(name, justify="right" if name in {"node", "last index", "lag"} else "left", no_wrap=True)
    for member in view.members:
        table.add_row(*(Text(cell) for cell in _cells(member, view)))
    return table


def _cells(member: ClusterMember, view: ClusterView) -> Iterator[str]:
    yield str(member.id)
    yield member.addr
    yield member.http_addr or "?"
    yield "voter" if member.voter else "learner"
    index = member.last_log_index
    yield "" if index is None else str(index)
    yield "" if index is None else str(max(0, view.last_log_index - index))
    yield _state(member, view)


def _state(member: ClusterMember, view: ClusterView) -> str:
    if member.id == view.leader_id:
        return "leads"
    return "away" if member.active is False else member.state or ""


def _listed(members: Iterable[ClusterMember]) -> str:
    return ", ".join(str(member.id) if member.voter else f"{member.id} (learner)" for member in members)
