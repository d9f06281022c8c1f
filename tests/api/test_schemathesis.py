"""Requests made up from the published document, thousands of ways, against a server that runs."""

import asyncio
import sys
from pathlib import Path

import pytest

from engram.api.server import HttpServer

CONFIG = Path(__file__).with_name("schemathesis.toml")
ARGUMENTS = [
    "--seed=1",
    "--generation-deterministic",
    "--max-examples=25",
    "--max-time=50",
    "--no-color",
    "--workers=1",
]


@pytest.mark.timeout(180)
async def test_whatever_the_document_allows_or_forbids_is_answered_as_it_says(
    server: HttpServer, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    command = [str(Path(sys.executable).with_name("schemathesis")), f"--config-file={CONFIG}", "run"]
    process = await asyncio.create_subprocess_exec(
        *command,
        f"{server.url}/api-docs/openapi.json",
        *ARGUMENTS,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()

    assert process.returncode == 0, output.decode()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
