"""A data folder that has nothing in it yet."""

from pathlib import Path

from engram.cli.stopped import sqlite_files
from engram.config import Config
from engram.errors import ConfigError
from engram.log.restoring import discard_unfinished


def check_empty(config: Config) -> None:
    """Refuse to mix what comes from elsewhere with what is there.

    Raises:
        ConfigError: There is a log, or a read model.
    """
    taken = [path for path in (*sqlite_files(config.log_path), *sqlite_files(config.projections_path)) if path.exists()]
    lance = Path(config.lance_uri)
    if "://" not in config.lance_uri and lance.exists() and (not lance.is_dir() or any(lance.iterdir())):
        taken.append(lance)
    if taken:
        raise ConfigError(
            f"there is data already: {', '.join(map(str, taken))}. A log is made where there is none; name "
            "another folder with --data-dir"
        )


def prepare(config: Config) -> None:
    """Make the folders, and remove what an attempt that was killed has left.

    Raises:
        ConfigError: A folder cannot be made.
    """
    for folder in (config.data_dir, config.log_path.parent):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"the folder {folder} cannot be made: {error.strerror}") from error
    discard_unfinished(config.log_path)
