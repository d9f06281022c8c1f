"""The options that the quality benchmarks share: names and defaults are those that scripts have known for long."""

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

TOP_K_MAX = 200
"""The most that a search can be asked for."""

LOCAL_DIMENSION = 256
"""Of the built-in embedder, which the local embedding server runs."""

CONTEXT_TOKENS_MAX = 1_000_000

CONTEXT_TOKENS = (1_000, 2_000, 4_000, 8_000)
"""Budgets of the contexts that are looked at in a retrieval run."""

EMBEDDERS = ("builtin", "minilm")
"""That a node runs itself."""

PUBLIC_LLM_URL = "https://api.openai.com/v1"


def build_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that each benchmark has."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    _add_run(parser)
    _add_ingest(parser)
    add_waiting(parser)
    add_servers(parser)
    _add_llm(parser)
    return parser


def add_waiting(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how long to wait for what."""
    group = parser.add_argument_group("waiting")
    group.add_argument("--timeout-secs", type=_seconds, default=30.0, help="of one request (30)")
    group.add_argument("--health-timeout-secs", type=_seconds, default=120.0, help="for the server to come up (120)")
    group.add_argument("--wait-timeout-secs", type=_seconds, default=120.0, help="for embeddings to be done (120)")
    group.add_argument(
        "--queue-metric-name",
        default="engram_memory_embedding_queue_size",
        help="gauge of /metrics that counts messages without a vector",
    )
    group.add_argument(
        "--queue-settle-secs",
        type=_seconds,
        help="how long it must stay at 0. Default: 2 if it was above, 0 if there was nothing to wait for",
    )
    group.add_argument("--queue-poll-interval-secs", type=_seconds, default=1.0)


def add_servers(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which server is asked, and which are started."""
    group = parser.add_argument_group("servers")
    group.add_argument("--engram-url", type=_url, default="http://127.0.0.1:3002")
    group.add_argument("--start-engram", action="store_true", help="start a node at --engram-url, on fresh data")
    group.add_argument("--engram-command", type=shlex.split, default=[sys.executable, "-m", "engram", "serve"])
    group.add_argument("--engram-cwd", type=Path, help="folder that it is started in")
    group.add_argument(
        "--embedder",
        choices=EMBEDDERS,
        help="of the node that is started; default: EMBEDDER, or what it does by itself",
    )
    group.add_argument("--lance-db-path", help="LANCE_DB_PATH of the node that is started")
    group.add_argument(
        "--start-local-embed-server", action="store_true", help="start tools/local_embed_server.py for the node"
    )
    group.add_argument("--local-embed-command", type=shlex.split)
    group.add_argument("--local-embed-cwd", type=Path)
    group.add_argument("--local-embed-base-url", type=_url, default="http://127.0.0.1:8085")
    group.add_argument("--local-embed-health-url", type=_url, help="default: the base URL and /health")
    group.add_argument(
        "--embedding-dimension", type=integer(1, 65_536), help=f"default: {LOCAL_DIMENSION} with the local server"
    )


def default_embed_command(base_url: str, dimension: int) -> list[str]:
    """Return what starts the local embedding server."""
    server = Path(__file__).parents[1] / "tools" / "local_embed_server.py"
    address = urlsplit(base_url)
    place = ["--host", address.hostname or "127.0.0.1", "--port", str(address.port or 80)]
    return [sys.executable, str(server), *place, "--embedding-dimension", str(dimension)]


def _add_run(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the run")
    group.add_argument("--dataset", type=Path, required=True, help="the data; .xz and .gz are unpacked")
    group.add_argument("--mode", choices=("retrieval", "qa"), default="retrieval")
    group.add_argument("--output-dir", type=Path, required=True, help="folder of the results; is made")
    group.add_argument(
        "--top-k", type=integer(1, TOP_K_MAX), default=10, help="hits of a search (10); sessions need about 100"
    )
    group.add_argument(
        "--max-tokens", type=integer(1, CONTEXT_TOKENS_MAX), default=4096, help="budget of a context, in QA"
    )
    group.add_argument("--limit", type=integer(0, 10**9), default=0, help="only the first N; 0: all")
    group.add_argument("--resume", action="store_true", help="go on after an interrupted run, with the same options")
    group.add_argument("--progress-every", type=integer(1, 10**9), default=50, help="a line every N questions (50)")
    group.add_argument("--keep-sessions", action="store_true", help="leave what was written in the memory")
    group.add_argument(
        "--baselines",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also search with plain BM25 and plain vectors, in this process",
    )
    group.add_argument(
        "--context-tokens",
        type=_budgets,
        default=CONTEXT_TOKENS,
        help="budgets of the contexts in which the evidence is looked for (1000,2000,4000,8000); none: ask for none",
    )
    group.add_argument(
        "--plot", action=argparse.BooleanOptionalAction, default=True, help="draw recall against latency"
    )


def _add_ingest(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("writing")
    group.add_argument(
        "--sleep-between-messages", type=_seconds, default=0.0, help="if above 0, messages are sent one by one"
    )
    group.add_argument(
        "--inject-session-markers",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write a system message before each session; it never counts as found",
    )
    group.add_argument(
        "--timestamps",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="send when things were said and when the question is asked, where the data says so",
    )


def _add_llm(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the model that answers, in QA")
    group.add_argument("--llm-model", default="gpt-4o")
    group.add_argument("--llm-base-url", type=_url, default=PUBLIC_LLM_URL, help="any server with /chat/completions")
    group.add_argument("--llm-api-key-env", default="OPENAI_API_KEY", help="the variable that has the key")


def integer(low: int, high: int) -> Callable[[str], int]:
    """Return what reads an option that is an integer from `low` to `high`."""

    def number(text: str) -> int:
        if not text.lstrip("-").isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no integer from {low} to {high}")
        return int(text)

    return number


def _budgets(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    parts = text.split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= CONTEXT_TOKENS_MAX for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of numbers from 1 to {CONTEXT_TOKENS_MAX}, as in 1000,2000, and not none"
        )
    return tuple(sorted({int(part) for part in parts}))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, 0 or more")
    return seconds


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_sound = False
    if not is_sound:
        raise argparse.ArgumentTypeError(f"{text!r} is no address like http://127.0.0.1:3002")
    return text.rstrip("/")
