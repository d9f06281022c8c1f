"""What a data folder is opened as."""

from pathlib import Path

import pytest

from engram.clock import SystemClock
from engram.config import Config
from engram.errors import ConfigError
from engram.foundation import open_foundation, open_log


def config(folder: Path, **settings: str) -> Config:
    return Config.from_env({"ENGRAM_DATA_DIR": str(folder), "RAFT_DB_PATH": str(folder / "log.db"), **settings})


async def test_the_log_of_a_clusters_node_is_not_opened_alone(tmp_path: Path) -> None:
    log = await open_log(config(tmp_path, NODE_ID="1", RAFT_ADDR="127.0.0.1:9001"))
    await log.adopt_cluster("c1")
    await log.close()

    with pytest.raises(ConfigError, match="belongs to node 1 of cluster c1: set NODE_ID"):
        await open_log(config(tmp_path))

    again = await open_log(config(tmp_path, NODE_ID="1", RAFT_ADDR="127.0.0.1:9001"))
    await again.close()


async def test_the_log_of_another_node_is_not_opened(tmp_path: Path) -> None:
    log = await open_log(config(tmp_path, NODE_ID="1", RAFT_ADDR="127.0.0.1:9001"))
    await log.close()

    with pytest.raises(ConfigError, match="node 1; this is node 2"):
        await open_log(config(tmp_path, NODE_ID="2", RAFT_ADDR="127.0.0.1:9001"))


async def test_a_node_that_ran_alone_may_join(tmp_path: Path) -> None:
    alone = await open_log(config(tmp_path))
    await alone.close()

    joining = await open_log(config(tmp_path, NODE_ID="1", RAFT_ADDR="127.0.0.1:9001"))

    assert joining.state.base_members.voters == (1,)
    await joining.close()


async def test_a_start_removes_the_copies_that_a_killed_command_left(tmp_path: Path) -> None:
    left = tmp_path / ".verify-abc"
    left.mkdir()
    (left / "projections.db").write_text("somebody's text")

    async with open_foundation(config(tmp_path), clock=SystemClock()):
        assert not left.exists()
