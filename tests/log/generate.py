"""Write the generated code of engram/log/raft.proto: `python -m tests.log.generate`; it needs grpcio-tools."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PROTO = "engram/log/raft.proto"
GENERATED = ("engram/log/raft_pb2.py", "engram/log/raft_pb2.pyi")


def generate(folder: Path) -> None:
    """Write GENERATED below `folder`."""
    outputs = [f"--python_out={folder}", f"--pyi_out={folder}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, PROTO], cwd=PROJECT, check=True)


if __name__ == "__main__":
    generate(PROJECT)
