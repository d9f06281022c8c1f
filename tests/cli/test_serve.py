import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engram import __version__
from tests.cli.conftest import Run
from tests.server_process import ServerDiedError, ServerProcess

PROJECT = Path(__file__).parents[2]


def test_a_node_says_where_it_serves_and_stops_cleanly(tmp_path: Path, free_port: int) -> None:
    with ServerProcess(tmp_path, free_port) as server:
        code = server.stop()

    assert code == 0
    assert f"engram {__version__} serves http://127.0.0.1:{free_port}" in server.log


def test_all_that_is_wrong_with_the_settings_is_said_at_once(tmp_path: Path, free_port: int) -> None:
    server = ServerProcess(tmp_path, free_port, {"SHORT_TERM_COUNT": "many", "ENGRAM_NONSENSE": "1"})

    with pytest.raises(ServerDiedError, match="exit code 2"):
        server.start()

    assert "SHORT_TERM_COUNT" in server.log
    assert "ENGRAM_NONSENSE" in server.log
    assert "Traceback" not in server.log


def test_a_damaged_log_stops_it_with_code_1(tmp_path: Path, free_port: int) -> None:
    log_path = tmp_path / "data" / "raft" / "engram.db"
    log_path.parent.mkdir(parents=True)
    log_path.write_bytes(b"this is no database" * 1000)
    server = ServerProcess(tmp_path, free_port)

    with pytest.raises(ServerDiedError, match="exit code 1"):
        server.start()

    assert str(log_path) in server.log
    assert "Traceback" not in server.log


def test_why_a_node_ended_is_one_more_json_line(tmp_path: Path, free_port: int) -> None:
    log_path = tmp_path / "data" / "raft" / "engram.db"
    log_path.parent.mkdir(parents=True)
    log_path.write_bytes(b"this is no database" * 1000)
    server = ServerProcess(tmp_path, free_port, {"LOG_FORMAT": "json"})

    with pytest.raises(ServerDiedError, match="exit code 1"):
        server.start()

    (line,) = map(json.loads, server.log.splitlines())
    assert (line["level"], line["code"]) == ("critical", "corruption")
    assert str(log_path) in line["message"]


def test_a_bug_ends_a_node_with_its_traceback_in_the_log(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from engram import logs, node
from engram.config import Config
from engram.errors import FatalError

def on_ready(address):
    raise LookupError("a bug of ours")

logs.configure(level="info", form="pretty", stream=sys.stderr)
config = Config.from_env({"ENGRAM_BIND_ADDR": "127.0.0.1:0"})
try:
    asyncio.run(node.serve(config, on_ready))
except FatalError as error:
    sys.exit(str(error))
"""
    outcome = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert outcome.returncode == 1
    assert "LookupError: a bug of ours" in outcome.stderr
    assert "Traceback" in outcome.stderr
    assert outcome.stderr.splitlines()[-1] == "an unforeseen error, LookupError: the log has its traceback"


def test_an_address_that_is_taken_is_a_wrong_setting(tmp_path: Path, free_port: int) -> None:
    with ServerProcess(tmp_path / "first", free_port):
        result = subprocess.run(
            [sys.executable, "-m", "engram", "serve"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PROJECT), "ENGRAM_BIND_ADDR": f"127.0.0.1:{free_port}"},
            capture_output=True,
            text=True,
            check=False,
        )

    assert result.returncode == 2
    assert f"cannot listen on 127.0.0.1:{free_port}" in result.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_node_that_is_told_to_stop_before_it_has_begun_just_ends(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    node = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "engram", "serve"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "ENGRAM_BIND_ADDR": "127.0.0.1:0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert node.stderr is not None
    next(line for line in node.stderr if "argparse" in line)  # the first of what the command line imports

    node.send_signal(number)

    said = node.communicate(timeout=20)[1]
    assert node.returncode == code
    assert "Traceback" not in said
    assert not (tmp_path / "data").exists()


def test_a_reader_that_has_seen_enough_is_no_fault(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, "-m", "engram", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": ""},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_said_in_a_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "engram", "--help"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": ""},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert result.returncode == 1
    assert result.stderr == "engram: [Errno 28] No space left on device\n"


def test_the_version_needs_no_settings(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAM_NONSENSE", "1")

    result = run("--version")

    assert (result.code, result.out) == (0, f"engram {__version__}\n")


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["log"], ["rebuild", "everything"]])
def test_a_command_that_does_not_exist_is_explained(run: Run, argv: list[str]) -> None:
    result = run(*argv)

    assert result.code == 2
    assert "usage: engram" in result.err


def test_help_names_every_command(run: Run) -> None:
    result = run("--help")

    assert result.code == 0
    assert all(command in result.out for command in ("serve", "check", "log", "rebuild", "reembed"))
