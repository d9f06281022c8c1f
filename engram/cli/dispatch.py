"""From the arguments to a command, and from what a command raises to an exit code."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from engram import __version__, logs, node
from engram.cli import (
    backup,
    cluster,
    diff,
    export,
    import_,
    rebuild,
    reembed,
    reembed_running,
    replay,
    restore,
    show,
    upkeep,
    verify,
)
from engram.cli.arguments import parser
from engram.cli.progress import Progress
from engram.config import Config
from engram.errors import ConfigError, EngramError, FatalError, first_of

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    from uvloop import new_event_loop
except ImportError:  # it does not exist for Windows
    from asyncio import new_event_loop

DONE = 0
WRONG = 1
MISCONFIGURED = 2
INTERRUPTED = 130

DOTENV = Path(".env")

_log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run the command that `argv` names and return the process's exit code."""
    try:
        code = _parse_and_run(argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _complain("stopped")
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except EngramError as error:
        return _failed(error)
    except BaseExceptionGroup as errors:
        return _failed(_first_of_ours(errors))
    except OSError as error:  # standard output is on a full disk, for one
        _complain(str(error))
        return WRONG
    return code


def _parse_and_run(argv: Sequence[str]) -> int:
    try:
        arguments = parser(__version__).parse_args(argv)
    except SystemExit as stop:  # --help, --version, or arguments that make no sense: argparse has said why
        return int(stop.code or 0)
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    config = Config.from_env(_environ(arguments), DOTENV)
    level = config.log_level if arguments.command == "serve" else "warning"
    logs.configure(level=level, form=config.log_format, stream=sys.stderr)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_COMMANDS[arguments.command](config, arguments))


def _environ(arguments: argparse.Namespace) -> Mapping[str, str]:
    """Return the environment, with what an argument says instead."""
    data_dir = getattr(arguments, "data_dir", None)
    return os.environ if data_dir is None else {**os.environ, "ENGRAM_DATA_DIR": data_dir}


def _failed(error: EngramError) -> int:
    text = str(error)
    _complain(f"{text}: stop the node first" if "is locked" in text else text)
    return _exit_code(error)


def _exit_code(error: EngramError) -> int:
    return MISCONFIGURED if isinstance(error, ConfigError) else WRONG


def _first_of_ours(errors: BaseExceptionGroup[BaseException]) -> EngramError:
    """Return the first error in a group; what is not ours is a bug and goes on with its traceback."""
    ours, others = errors.split(EngramError)
    if ours is None or others is not None:
        raise errors
    error = first_of(ours)
    assert isinstance(error, EngramError)
    return error


def _verify(config: Config, arguments: argparse.Namespace) -> Coroutine[Any, Any, int]:
    return verify.run(config, Progress()) if arguments.url is None else upkeep.verify(arguments.url, Progress())


def _rebuild(config: Config, arguments: argparse.Namespace) -> Coroutine[Any, Any, int]:
    if arguments.url is not None:
        return upkeep.rebuild(arguments.url, arguments.target, Progress())
    return rebuild.run(config, arguments.target, Progress())


def _reembed(config: Config, arguments: argparse.Namespace) -> Coroutine[Any, Any, int]:
    wanted = reembed_running.Wanted.of(arguments)
    if wanted.url is not None:
        return reembed_running.run(wanted, Progress())
    if wanted.body():
        raise ConfigError("--embedder, --model, --dimension and --base-url need --url: without it the settings count")
    return reembed.run(config, Progress())


Command = Callable[[Config, argparse.Namespace], Coroutine[Any, Any, int]]

_COMMANDS: Mapping[str, Command] = {
    "serve": lambda config, _: _serve(config),
    "backup": lambda config, arguments: backup.run(config, backup.Wanted.of(arguments), Progress()),
    "check": _verify,
    "verify": _verify,
    "cluster": lambda config, arguments: cluster.run(config, cluster.Wanted.of(arguments), sys.stdout, Progress()),
    "diff": lambda config, arguments: diff.run(config, diff.Wanted.of(arguments), sys.stdout, Progress()),
    "export": lambda config, arguments: export.run(config, export.Wanted.of(arguments), Progress()),
    "import": lambda config, arguments: import_.run(config, import_.Wanted.of(arguments), Progress()),
    "log": lambda config, arguments: show.run(config, show.Wanted.of(arguments), sys.stdout),
    "rebuild": _rebuild,
    "replay": lambda config, arguments: replay.run(config, replay.Wanted.of(arguments), sys.stdout, Progress()),
    "reembed": _reembed,
    "restore": lambda config, arguments: restore.run(config, restore.Wanted.of(arguments), Progress()),
}


async def _serve(config: Config) -> int:
    try:
        await node.serve(config, _announce)
    except FatalError as error:
        if config.log_format == "pretty":
            raise
        _log.critical("%s", error, extra={"code": error.code})  # whoever reads the lines of a node reads JSON
        return _exit_code(error)
    return DONE


def _announce(address: str) -> None:
    sys.stdout.write(f"engram {__version__} serves {address}\n")
    sys.stdout.flush()


def _complain(text: str) -> None:
    sys.stderr.write(f"engram: {text}\n")
