"""The servers that a quality benchmark starts for itself; they end with it, also when it is killed."""

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.quality_client import Memory, RefusedError
from benchmarks.quality_options import LOCAL_DIMENSION, default_embed_command

STOP_S_MAX = 30.0
POLL_S = 0.05
PR_SET_PDEATHSIG = 1

LAST_CHARACTERS = 2000
"""Of what a server wrote, when it did not come up."""


@contextmanager
def memory(options: argparse.Namespace) -> Iterator[Memory]:
    """Give the memory that is asked, healthy; start and stop what the options say.

    Raises:
        RefusedError: It is not there, does not come up, or something else is there already.
    """
    if options.embedder is not None and not options.start_engram:
        raise RefusedError("--embedder is for a node that is started: add --start-engram")
    with ExitStack() as stack:
        environ: dict[str, str] = {}
        if options.start_local_embed_server:
            environ |= stack.enter_context(_embed_server(options))
        started = stack.enter_context(_engram(options, environ)) if options.start_engram else None
        client = Memory(options.engram_url, options.timeout_secs)
        stack.callback(client.close)
        if started is None:
            client.wait_until_healthy(options.health_timeout_secs)
        yield client


@contextmanager
def _engram(options: argparse.Namespace, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    address = urlsplit(options.engram_url)
    with tempfile.TemporaryDirectory(prefix="engram-quality-") as folder:
        ours = {
            "ENGRAM_BIND_ADDR": f"{address.hostname}:{address.port or 80}",
            "ENGRAM_DATA_DIR": str(Path(folder) / "data"),
            **({} if options.embedder is None else {"EMBEDDER": options.embedder}),
            **({} if options.lance_db_path is None else {"LANCE_DB_PATH": options.lance_db_path}),
            **(
                {} if options.embedding_dimension is None else {"EMBEDDING_DIMENSION": str(options.embedding_dimension)}
            ),
            **environ,
        }
        health = f"{options.engram_url}/health"
        with _process(
            options.engram_command,
            cwd=options.engram_cwd or Path(folder),
            environ=ours,
            health=health,
            timeout_s=options.health_timeout_secs,
            log=options.output_dir / "engram.log",
        ) as process:
            _wait_until_healthy(f"{options.engram_url}/ready", process, options.health_timeout_secs)
            yield process


@contextmanager
def _embed_server(options: argparse.Namespace) -> Iterator[Mapping[str, str]]:
    """Give what a node has to be told to use the server."""
    base_url = options.local_embed_base_url
    dimension = options.embedding_dimension or LOCAL_DIMENSION
    with _process(
        options.local_embed_command or default_embed_command(base_url, dimension),
        cwd=options.local_embed_cwd or Path.cwd(),
        environ={},
        health=options.local_embed_health_url or f"{base_url}/health",
        timeout_s=options.health_timeout_secs,
        log=options.output_dir / "local-embed-server.log",
    ):
        yield {
            "OPENAI_BASE_URL": base_url,
            "OPENAI_API_KEY": "local",
            "EMBEDDING_MODEL": "local",
            "EMBEDDING_DIMENSION": str(dimension),
        }


@contextmanager
def _process(
    command: Sequence[str], *, cwd: Path, environ: Mapping[str, str], health: str, timeout_s: float, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    if _answers(health):
        raise RefusedError(f"something answers at {health} already: stop it, or do not start another")
    if not cwd.is_dir():
        raise RefusedError(f"{command[0]} cannot be started in {cwd}: it is no folder")
    with log.open("wb") as written:
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **environ},
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - no thread of ours runs yet
            )
        except OSError as error:
            raise RefusedError(f"{command[0]} cannot be started: {error.strerror}") from None
        try:
            _wait_until_healthy(health, process, timeout_s)
            yield process
        except RefusedError as error:
            if process.poll() is None:
                raise
            told = log.read_text(errors="replace")[-LAST_CHARACTERS:]
            raise RefusedError(f"{error}\n{told}") from None
        finally:
            _stop(process)


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], timeout_s: float) -> None:
    until_s = time.perf_counter() + timeout_s
    while not _answers(url):
        if process.poll() is not None:
            raise RefusedError(f"the server for {url} ended with exit code {process.returncode}")
        if time.perf_counter() > until_s:
            raise RefusedError(f"{url} is not healthy after {timeout_s:g} s")
        time.sleep(POLL_S)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004 - HTTP's OK
    except urllib.error.HTTPError as error:
        return error.code == 404  # noqa: PLR2004 - a server of another kind, which does not know the path
    except OSError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_with_parent() -> None:
    """Ask the kernel to end this process when its parent dies in whatever way."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
