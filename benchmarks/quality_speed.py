"""How long do search and context take over HTTP while very much is stored? On the messages and questions of the data.

    python -m benchmarks.quality_speed --data longmemeval_s.json --data locomo10.json --output-dir out --start-engram

What was said in all of the data, one after the other and from the beginning again, fills sessions of 500 messages until
so many are stored; the first forty belong to one user: a scope of 20 000 messages. Then the questions of the data are
asked, of one of those sessions or of all of them. Writes speed_metrics.json. docs/QUALITY_BENCHMARKS.md says more.
"""

import argparse
import itertools
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from rich.console import Console
from rich.progress import track

from benchmarks import quality_servers
from benchmarks.quality_aims import CONTEXT, NARROW, WIDE, judge_speed
from benchmarks.quality_beam import USUAL_KEYS, Wanted, load_beam
from benchmarks.quality_client import OK, Http, Memory, Message, RefusedError
from benchmarks.quality_data import (
    LOCOMO_KINDS,
    Haystack,
    Turn,
    WrongDataError,
    load_locomo,
    load_longmemeval,
    read_json,
)
from benchmarks.quality_metrics import Speed, spread
from benchmarks.quality_options import CONTEXT_TOKENS, add_servers, add_waiting, integer
from benchmarks.quality_report import show_aims, show_times
from benchmarks.quality_results import pretty, replace
from benchmarks.timing import describe_machine

PROG = "quality_speed"
WRONG_INPUT = 2

SESSION_MESSAGES = 500
USER_SESSIONS = 40
"""Of the one user who has many: 20 000 messages."""
SEARCHED_SESSIONS = 20
"""Of those; each is searched once before, so that no search pays for an index that is made on demand."""
USER = "someone"

WIDE_SHARE, BUDGET_SHARE = 5, 4
"""One in so many requests searches the whole scope; asks for a context of one budget."""
TOP_K = 10
MESSAGE_CHARACTERS_MAX = 60_000
"""What is longer is cut: it may have 256 KiB, and a character up to four bytes."""


class Asked(NamedTuple):
    """A request of which the time is taken."""

    method: str
    path: str
    body: object = None


def main(arguments: Sequence[str]) -> int:
    """Fill, ask, write down; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        turns, questions = load_all(options.data)
        options.output_dir.mkdir(parents=True, exist_ok=True)
        with quality_servers.memory(options) as memory:
            speed = measure(options, memory, turns, questions)
    except (WrongDataError, RefusedError, OSError) as error:
        sys.stderr.write(f"{PROG}: {error}\n")
        return WRONG_INPUT
    replace(options.output_dir / "speed_metrics.json", pretty(speed))
    console = Console()
    show_times(speed, console)
    show_aims({"speed": speed.aims}, console)
    return 0


def load_all(paths: Sequence[Path]) -> tuple[list[Turn], list[str]]:
    """Return all that was said and asked in some data sets, at least one of each.

    Raises:
        WrongDataError: There is nothing, or it is in no form that is known.
    """
    haystacks = [haystack for path in paths for haystack in load_any(path)]
    turns = [turn for haystack in haystacks for turn in haystack.turns]
    questions = [asked.text for haystack in haystacks for asked in haystack.questions]
    if not turns or not questions:
        raise WrongDataError("the data has no message, or no question")
    return turns, questions


def load_any(path: Path) -> list[Haystack]:
    """Return the conversations of a file of LongMemEval or LoCoMo, or of BEAM in any form that has its questions.

    Raises:
        WrongDataError: It is none of them.
    """
    data = None if path.is_dir() else read_json(path)
    first = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
    if "haystack_sessions" in first:
        return load_longmemeval(path)
    if "qa" in first:
        return load_locomo(path, None, frozenset(LOCOMO_KINDS))
    return load_beam(Wanted(path, "auto", "", dict.fromkeys(USUAL_KEYS, ""), 0))[0]


def measure(options: argparse.Namespace, memory: Memory, turns: Sequence[Turn], questions: Sequence[str]) -> Speed:
    """Fill the memory, ask, and return the numbers; forget what was written."""
    sessions = max(1, options.messages // SESSION_MESSAGES)
    said = itertools.cycle(turns)
    started_s = time.perf_counter()
    names, characters = [], []
    for number in track(range(sessions), "writing", console=Console(stderr=True), transient=True):
        name = memory.open_session(f"quality-speed-{number}", USER if number < USER_SESSIONS else None)
        messages = _messages(itertools.islice(said, SESSION_MESSAGES))
        memory.write(name, messages)
        names.append(name)
        characters += [len(message.content) for message in messages]
    memory.wait_until_embedded(
        options.queue_metric_name,
        timeout_s=options.wait_timeout_secs,
        settle_s=options.queue_settle_secs,
        poll_s=options.queue_poll_interval_secs,
    )
    filled_s = time.perf_counter() - started_s
    times_ms = _ask_all(options, names, questions)
    rss_mb = memory.rss_mb()
    for name in () if options.keep_sessions or options.start_engram else names:
        memory.delete_session(name)
    spreads = {name: spread(values) for name, values in times_ms.items()}
    return Speed(
        files=[path.name for path in options.data],
        messages=sessions * SESSION_MESSAGES,
        sessions=sessions,
        characters=round(statistics.fmean(characters), 1),
        messages_per_s=round(sessions * SESSION_MESSAGES / filled_s, 1),
        times_ms=spreads,
        requests={name: len(values) for name, values in times_ms.items()},
        rss_mb=rss_mb,
        aims=judge_speed(spreads, rss_mb),
        machine=describe_machine(),
    )


def _messages(turns: Iterator[Turn]) -> list[Message]:
    return [
        Message(
            str(place),
            turn.role,
            turn.text[:MESSAGE_CHARACTERS_MAX],
            None if turn.when is None else turn.when.isoformat(),
        )
        for place, turn in enumerate(turns)
    ]


def _ask_all(options: argparse.Namespace, names: Sequence[str], questions: Sequence[str]) -> dict[str, list[float]]:
    """Return what each request took, in milliseconds, by what was asked for."""
    pick = random.Random(1)
    near = names[: min(USER_SESSIONS, len(names))][:: max(1, USER_SESSIONS // SEARCHED_SESSIONS)]
    http = Http(options.engram_url, options.timeout_secs)

    def search(name: str, scope: str) -> Asked:
        body = {"query": pick.choice(questions), "top_k": TOP_K, "scope": scope}
        return Asked("POST", f"/sessions/{name}/search", body)

    def context(budget: int) -> Asked:
        query = f"max_tokens={budget}&query={quote(pick.choice(questions), safe='')}"
        return Asked("GET", f"/sessions/{pick.choice(near)}/context?{query}")

    asked: dict[str, Sequence[Asked]] = {
        "search, the first in a session": [search(name, "session") for name in near],
        NARROW: [search(pick.choice(near), "session") for _ in range(options.requests)],
        "search, the first in the scope": [search(near[0], "user")],
        WIDE: [search(near[0], "user") for _ in range(options.requests // WIDE_SHARE)],
    }
    asked |= {
        f"context of {budget} tokens": [context(budget) for _ in range(options.requests // BUDGET_SHARE)]
        for budget in CONTEXT_TOKENS
    }
    try:
        times_ms = {
            name: [_time(http, one) for one in track(requests, name, console=Console(stderr=True), transient=True)]
            for name, requests in asked.items()
        }
    finally:
        http.close()
    return times_ms | {CONTEXT: [took for budget in CONTEXT_TOKENS for took in times_ms[f"context of {budget} tokens"]]}


def _time(http: Http, asked: Asked) -> float:
    started_s = time.perf_counter()
    status, answer = http.send(asked.method, asked.path, asked.body)
    took_s = time.perf_counter() - started_s
    if status != OK:
        told = answer[:300].decode(errors="replace")
        raise RefusedError(f"{asked.method} {asked.path.partition('?')[0]} was answered with {status}: {told}")
    return 1000 * took_s


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROG, description=(__doc__ or "").splitlines()[0])
    group = parser.add_argument_group("the run")
    group.add_argument("--data", type=Path, action="append", required=True, help="a data set; may be given repeatedly")
    group.add_argument("--output-dir", type=Path, required=True, help="folder of the results; is made")
    group.add_argument(
        "--messages", type=integer(SESSION_MESSAGES, 10**9), default=100_000, help="that are stored (100000)"
    )
    group.add_argument("--requests", type=integer(5, 10**6), default=500, help="searches, and contexts (500)")
    group.add_argument("--keep-sessions", action="store_true", help="leave what was written in the memory")
    add_waiting(parser)
    add_servers(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
