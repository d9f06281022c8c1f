"""What the command line takes."""

import argparse
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

from engram.events import Event

EVENT_TYPES = tuple(kind.__name__ for kind in get_args(Event))

PORT_MAX = 65_535

EPILOG = """\
Settings come from the environment, and from .env in the current folder. All commands but serve and cluster need the
node stopped; those that take --url then work on the running node that it names.
"""


def parser(version: str) -> argparse.ArgumentParser:
    """Return the parser; `command` in its result names what to run."""
    top = argparse.ArgumentParser(
        prog="engram", description="A memory service for LLM agents.", epilog=EPILOG, allow_abbrev=False
    )
    top.add_argument("--version", action="version", version=f"engram {version}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="run a node until SIGTERM or Ctrl-C")
    verify = commands.add_parser(
        "verify",
        aliases=["check"],
        help="read the whole log and all projections, and name what is not as it was written; changes nothing",
    )
    verify.add_argument("--url", type=_url, help="of a running node; default: the data folder of a stopped one")
    _add_diff(commands)
    _add_replay(commands)
    _add_moving(commands)
    _add_cluster(commands)
    _add_log(commands)
    _add_reembed(commands)
    rebuild = commands.add_parser("rebuild", help="drop read models and build them again from the log")
    rebuild.add_argument(
        "target", nargs="?", choices=("projections", "lancedb", "redis", "all"), default="all", help="default: all"
    )
    rebuild.add_argument("--url", type=_url, help="of a running node; default: the data folder of a stopped one")
    return top


def _add_diff(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    diff = commands.add_parser("diff", help="tell what changed in a session between two log indexes or times")
    diff.add_argument("--url", type=_url, help="of a running node; default: the data folder of a stopped one")
    diff.add_argument("--session", required=True, metavar="ID", help="the session")
    diff.add_argument("--from", dest="first", default="0", metavar="INDEX|TIME", help="default: since the beginning")
    diff.add_argument("--to", dest="last", metavar="INDEX|TIME", help="default: up to now")
    diff.add_argument("--query", metavar="TEXT", help="also tell how the context for this query changed")
    diff.add_argument("--json", action="store_true", help="print everything, as GET /sessions/ID/diff answers")


def _add_replay(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    replay = commands.add_parser(
        "replay", help="print, or serve to be read only, memory as it was at a log index or time"
    )
    replay.add_argument("--to", required=True, metavar="INDEX|TIME", help="the last log index, or a time")
    replay.add_argument("--session", metavar="ID", help="print this session: facts, messages, and where they come from")
    replay.add_argument("--tenant", metavar="NAME", help="whose sessions; default: those of the default tenant")
    replay.add_argument("--backup", type=Path, metavar="FILE", help="of this backup; default: the data folder")
    replay.add_argument("--json", action="store_true", help="print one JSON document")
    replay.add_argument("--serve", action="store_true", help="answer the reads of the HTTP interface until Ctrl-C")
    replay.add_argument("--port", type=_port, metavar="PORT", default=0, help="with --serve; default: any free one")


def _add_reembed(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    reembed = commands.add_parser(
        "reembed", help="give every message vectors of another embedder; may be stopped and repeated"
    )
    reembed.add_argument(
        "--url",
        type=_url,
        help="of a running node, which goes on serving; default: the data folder of a stopped one, by its settings",
    )
    reembed.add_argument(
        "--embedder", choices=("builtin", "minilm", "openai"), help="with --url: the new one; default: only watch"
    )
    reembed.add_argument("--model", metavar="NAME", help="with --embedder openai: a model of the server")
    reembed.add_argument("--dimension", type=_index, metavar="N", help="with --model: numbers in its vectors")
    reembed.add_argument(
        "--base-url", type=_url, metavar="URL", help="with --model: a server without a key; default: that of the node"
    )


def _add_moving(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    running = argparse.ArgumentParser(add_help=False)
    running.add_argument("--url", type=_url, help="of a running node; default: the data folder of a stopped one")
    backup = commands.add_parser(
        "backup", parents=[running], help="write the log, as it is at one index, into a file with checksums"
    )
    backup.add_argument("target", type=Path, metavar="FILE|FOLDER", help="a new file, or the folder to make one in")
    export = commands.add_parser("export", parents=[running], help="write events, oldest first, as lines of JSON")
    export.add_argument("file", metavar="FILE", help="a new file; - for standard output")
    export.add_argument("--after", type=_after, default=0, metavar="INDEX", help="only what is behind this log index")
    export.add_argument("--session", metavar="ID", help="events of this session only")
    imported = commands.add_parser(
        "import",
        help="take exports into a running node, or make a node of its own from them where there is no data yet",
    )
    imported.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="what export wrote, and what --after wrote behind it; - for standard input",
    )
    where = imported.add_mutually_exclusive_group()
    where.add_argument("--url", type=_url, help="of a running node; default: a new data folder")
    where.add_argument("--data-dir", metavar="FOLDER", help="default: ENGRAM_DATA_DIR")
    imported.add_argument(
        "--on-conflict",
        choices=("stop", "skip"),
        default="stop",
        help="with --url, at a line whose id stands for something else there: stop, or leave the line out",
    )
    imported.add_argument(
        "--deletions",
        choices=("apply", "skip"),
        default="apply",
        help="with --url: whether what was deleted in the source is deleted there",
    )
    imported.add_argument(
        "--from-line", type=_index, default=2, metavar="N", help="with --url: go on with this line of the first file"
    )
    restore = commands.add_parser("restore", help="make a node of its own from a backup, where there is no data yet")
    restore.add_argument("file", metavar="FILE", help="what backup wrote")
    restore.add_argument("--data-dir", metavar="FOLDER", help="default: ENGRAM_DATA_DIR")


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


def _port(value: str) -> int:
    if not value.isdecimal() or int(value) > PORT_MAX:
        raise argparse.ArgumentTypeError(f"{value!r} is not a port, 0 to {PORT_MAX}")
    return int(value)


def _after(value: str) -> int:
    return 0 if value == "0" else _index(value)


def _index(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number of 1 or more")
    return int(value)
