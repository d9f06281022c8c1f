"""Requests made up from the published document, hundreds of ways, against a whole node in a process of its own."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.server_process import ServerProcess

CONFIG = Path(__file__).with_name("schemathesis.toml")
SEARCHED_S = 50 if os.environ.get("THOROUGH") else 5
"""How long requests are made up: most of what a change breaks shows in the first seconds."""
ARGUMENTS = [
    "--seed=1",
    "--generation-deterministic",
    "--max-examples=25",
    f"--max-time={SEARCHED_S}",
    "--no-color",
    "--workers=1",
]


@pytest.mark.timeout(180)
async def test_whatever_the_document_allows_or_forbids_is_answered_as_it_says(tmp_path: Path, free_port: int) -> None:
    command = [str(Path(sys.executable).with_name("schemathesis")), f"--config-file={CONFIG}", "run"]
    server = ServerProcess(tmp_path / "node", free_port)
    await asyncio.to_thread(server.start)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            f"{server.url}/api-docs/openapi.json",
            *ARGUMENTS,
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        code = await asyncio.to_thread(server.stop)
    finally:
        await asyncio.to_thread(server.kill)

    assert process.returncode == 0, output.decode()
    assert code == 0
    assert "ERROR" not in server.log
    assert "Traceback" not in server.log
