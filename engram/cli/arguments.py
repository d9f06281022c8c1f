"""What the command line takes."""

import argparse
from typing import get_args
from urllib.parse import urlsplit

from engram.events import Event

EVENT_TYPES = tuple(kind.__name__ for kind in get_args(Event))

EPILOG = """\
Settings come from the environment, and from .env in the current folder. All commands but serve and cluster need the
node stopped.
"""


def parser(version: str) -> argparse.ArgumentParser:
    """Return the parser; `command` in its result names what to run."""
    top = argparse.ArgumentParser(
        prog="engram", description="A memory service for LLM agents.", epilog=EPILOG, allow_abbrev=False
    )
    top.add_argument("--version", action="version", version=f"engram {version}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="run a node until SIGTERM or Ctrl-C")
    commands.add_parser(
        "check", help="read the whole log and all read models, and name what is not as it was written; changes nothing"
    )
    _add_cluster(commands)
    _add_log(commands)
    commands.add_parser("reembed", help="give every message vectors of the model that is set now; may be repeated")
    rebuild = commands.add_parser("rebuild", help="drop read models and build them again from the log")
    rebuild.add_argument(
        "target", nargs="?", choices=("projections", "lancedb", "all"), default="all", help="default: all"
    )
    return top


def _add_cluster(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--url", type=_url, help="of any running node; default: http:// and ENGRAM_BIND_ADDR")
    cluster = commands.add_parser("cluster", help="look at a running cluster and change it, through any of its nodes")
    actions = cluster.add_subparsers(dest="cluster_command", required=True, metavar="COMMAND")
    status = actions.add_parser("status", parents=[where], help="show the members, and who leads")
    status.add_argument("--json", action="store_true", help="print the answer of GET /cluster as it is")
    actions.add_parser("init", parents=[where], help="form the cluster of the node and its CLUSTER_PEERS, once")
    add = actions.add_parser("add", parents=[where], help="bring a node in, and let it vote when it has caught up")
    add.add_argument("node_id", type=_index, metavar="ID", help="its NODE_ID")
    add.add_argument("address", metavar="HOST:PORT", help="where the others reach its log: its RAFT_ADVERTISE_ADDR")
    add.add_argument("--http", dest="http_address", metavar="HOST:PORT", help="where clients reach it; else it says so")
    add.add_argument("--learner", action="store_true", help="it gets the log, but does not vote")
    remove = actions.add_parser("remove", parents=[where], help="take a node out")
    remove.add_argument("node_id", type=_index, metavar="ID", help="its NODE_ID")
    transfer = actions.add_parser("transfer", parents=[where], help="let another node lead")
    transfer.add_argument(
        "node_id", type=_index, nargs="?", metavar="ID", help="a voter; default: the one that is furthest"
    )


def _add_log(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    log = commands.add_parser("log", help="look into the log")
    show = log.add_subparsers(dest="log_command", required=True, metavar="COMMAND").add_parser(
        "show", help="print events, oldest first"
    )
    show.add_argument("--from", dest="first", type=_index, default=1, metavar="INDEX", help="first log index")
    show.add_argument("--to", dest="last", type=_index, metavar="INDEX", help="last log index")
    show.add_argument("--session", metavar="ID", help="events of this session only")
    show.add_argument("--type", choices=EVENT_TYPES, metavar="TYPE", help=", ".join(EVENT_TYPES))
    show.add_argument("--limit", type=_index, metavar="N", help="stop after so many")
    show.add_argument("--format", choices=("table", "json"), default="table", help="json: one object a line")
    show.add_argument("--text", action="store_true", help="print texts and metadata, which are left out otherwise")


def _url(value: str) -> str:
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise argparse.ArgumentTypeError(f"{value!r} is not the address of a node, as in http://127.0.0.1:3000")
    return url.rstrip("/")


def _index(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number of 1 or more")
    return int(value)
