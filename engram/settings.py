"""The names of the environment: each with its default and what it takes.

Only what one value says by itself is checked here; `engram.config` reads them and checks them together.
`docs/settings.md` says what each name means; a test compares the two lists.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

EmbedderChoice = Literal["auto", "builtin", "minilm", "openai"]
LogFormat = Literal["pretty", "json"]
LogLevel = Literal["critical", "error", "warning", "info", "debug"]

OUR_PREFIX = "ENGRAM_"
"""A name that starts like this is meant for us, so a typo in it is an error."""

PORT_MAX = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address; `host` is a name, an IPv4 or a bare IPv6 address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Setting(Generic[T]):
    """One name of the environment. `parse` raises ValueError with what is wrong, without the value."""

    name: str
    default: T
    parse: Callable[[str], T]
    old_name: str | None = None
    secret: bool = False
    """Its value stands in no message, no log line and no `repr`."""
    used: bool = True
    """False: checked, so that a file for a later version is right already, but nothing reads it yet."""


def _text(value: str) -> str:
    return value


LANCE_SCHEMES: Final = (
    "file", "file+uring", "file-object-store", "memory", "shared-memory",
    "s3", "s3+ddb", "gs", "az", "abfss", "oss", "cos", "goosefs", "hf",
)  # fmt: skip
"""What LanceDB opens. LanceDB Cloud (db://) needs a key that there is no setting for."""


def _lance_uri(value: str) -> str:
    """Take a folder, or an address that LanceDB knows how to open."""
    scheme, mark, _ = value.partition("://")
    if mark and scheme not in LANCE_SCHEMES:
        raise ValueError(
            f"its scheme is {scheme!r}; it takes a folder, or an address with one of {', '.join(LANCE_SCHEMES)}"
        )
    return value


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        claim = f"it takes an integer from {low} to {high}"
        digits = value.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()) or not low <= int(value) <= high:
            raise ValueError(claim)
        return int(value)

    return parse


def _choice(options: Mapping[str, T]) -> Callable[[str], T]:
    def parse(value: str) -> T:
        if value.lower() not in options:
            hint = difflib.get_close_matches(value.lower(), options, n=1)
            raise ValueError(f"it takes {', '.join(options)}" + (f"; did you mean {hint[0]}?" if hint else ""))
        return options[value.lower()]

    return parse


def _names(*options: str) -> Callable[[str], str]:
    return _choice({option: option for option in options})


def parse_address(value: str, *, port_min: int = 0) -> Address:
    """Return the address that `host:port` or `[v6]:port` names.

    Raises:
        ValueError: It is neither, or the port is not between `port_min` and 65535.
    """
    host, colon, port = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host.strip("[]") or (":" in host and not bracketed) or any(map(str.isspace, value)):
        raise ValueError("it takes host:port; an IPv6 host stands in brackets, as in [::1]:3000")
    try:
        number = _integer(port_min, PORT_MAX)(port)
    except ValueError:
        raise ValueError(f"its port must be from {port_min} to {PORT_MAX}") from None
    return Address(host[1:-1] if bracketed else host, number)


def _address(value: str) -> Address:
    return parse_address(value)


def _peer(value: str) -> Address:
    return parse_address(value, port_min=1)


def _peers(value: str) -> dict[int, Address]:
    peers: dict[int, Address] = {}
    for item in filter(None, map(str.strip, value.split(","))):
        identifier, _, address = item.partition(":")
        try:
            node_id = _integer(1, 2**63 - 1)(identifier)
            peers[node_id], known = _peer(address), node_id in peers
        except ValueError:
            raise ValueError(f"it takes id:host:port,...; {item!r} is not that") from None
        if known:
            raise ValueError(f"it names node {node_id} twice")
    if len(set(peers.values())) < len(peers):
        raise ValueError("it names one address for two nodes")
    return peers


def _visible(value: str) -> bool:
    return value.isascii() and all("!" <= character <= "~" for character in value)


def _header_text(value: str) -> str:
    """Take what a header can carry. The library that finds out later says so with the value in its message."""
    if not _visible(value):
        raise ValueError("it takes visible ASCII characters only, without spaces")
    return value


def _url(*schemes: str) -> Callable[[str], str]:
    """Take an address of one of `schemes`, with a port or without."""
    starts = " or ".join(f"{scheme}://" for scheme in schemes)
    claim = f"it takes an address that starts with {starts}, with a port, if any, of up to {PORT_MAX}"

    def parse(value: str) -> str:
        try:
            parts = urlsplit(value)
            sound = parts.scheme in schemes and parts.hostname and parts.port != 0 and _visible(value)
        except ValueError:
            raise ValueError(claim) from None  # whose own message can have a part of the value in it
        if not sound:
            raise ValueError(claim)
        return value

    return parse


def _redis_url(value: str) -> str:
    """Take the address of a Redis server; the driver would take another database where this one is no number."""
    address = _url("redis", "rediss")(value)
    database = urlsplit(address).path.removeprefix("/")
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError("its path must be the number of a database, as in redis://localhost:6379/0")
    return address


LOG_LEVELS: Mapping[str, LogLevel] = {
    "off": "critical",
    "critical": "critical",
    "error": "error",
    "warn": "warning",
    "warning": "warning",
    "info": "info",
    "debug": "debug",
    "trace": "debug",
}


def _log_level(value: str) -> LogLevel:
    """Take a level, or directives as RUST_LOG has them: in `info,engram=debug,hyper=warn` ours is debug."""
    levels: dict[str, str] = {}
    for directive in value.lower().split(","):
        target, _, level = directive.strip().rpartition("=")
        levels[target] = level
    level = levels.get("engram", levels.get("", ""))
    if level not in LOG_LEVELS:
        raise ValueError(f"it takes {', '.join(LOG_LEVELS)}")
    return LOG_LEVELS[level]


EMBEDDERS: Mapping[str, EmbedderChoice] = {
    "auto": "auto",
    "builtin": "builtin",
    "minilm": "minilm",
    "openai": "openai",
}
LOG_FORMATS: Mapping[str, LogFormat] = {"pretty": "pretty", "json": "json"}

BIND_ADDR = Setting("ENGRAM_BIND_ADDR", Address("127.0.0.1", 3000), _address)
ADVERTISE_ADDR = Setting[Address | None]("ENGRAM_ADVERTISE_ADDR", None, _peer)
DATA_DIR = Setting("ENGRAM_DATA_DIR", Path("./data"), Path)
LOG_PATH = Setting[Path | None]("RAFT_DB_PATH", None, Path)
LANCE_URI = Setting[str | None]("LANCE_DB_PATH", None, _lance_uri, old_name="LANCEDB_PATH")
REDIS_URL = Setting[str | None]("REDIS_URL", None, _redis_url, secret=True)
OPENAI_API_KEY = Setting[str | None]("OPENAI_API_KEY", None, _header_text, secret=True)
OPENAI_BASE_URL = Setting[str | None]("OPENAI_BASE_URL", None, _url("http", "https"), secret=True)
EMBEDDER = Setting[EmbedderChoice]("EMBEDDER", "auto", _choice(EMBEDDERS))
EMBEDDING_MODEL = Setting("EMBEDDING_MODEL", "text-embedding-3-small", _text)
EMBEDDING_DIMENSION = Setting[int | None]("EMBEDDING_DIMENSION", None, _integer(1, 65536))
SHORT_TERM_COUNT = Setting("SHORT_TERM_COUNT", 20, _integer(1, 100_000))
EMBEDDING_MAX_CONCURRENCY = Setting("EMBEDDING_MAX_CONCURRENCY", 10, _integer(1, 1000))
MPSC_CHANNEL_SIZE = Setting("MPSC_CHANNEL_SIZE", 1000, _integer(1, 100_000))
LOG_LEVEL = Setting[LogLevel]("LOG_LEVEL", "info", _log_level, old_name="RUST_LOG")
LOG_FORMAT = Setting[LogFormat]("LOG_FORMAT", "pretty", _choice(LOG_FORMATS))
NODE_ID = Setting[int | None]("NODE_ID", None, _integer(1, 2**63 - 1))
RAFT_ADDR = Setting[Address | None]("RAFT_ADDR", None, _peer)
RAFT_ADVERTISE_ADDR = Setting[Address | None]("RAFT_ADVERTISE_ADDR", None, _peer)
CLUSTER_PEERS = Setting[dict[int, Address]]("CLUSTER_PEERS", {}, _peers)
CLUSTER_HTTP_PEERS = Setting[dict[int, Address]]("CLUSTER_HTTP_PEERS", {}, _peers)
SNAPSHOT_LOG_THRESHOLD = Setting("SNAPSHOT_LOG_THRESHOLD", 1000, _integer(1, 2**31 - 1))
RECALL_CACHE_MB = Setting("ENGRAM_RECALL_CACHE_MB", 128, _integer(1, 1_048_576))
HISTORY_DAYS = Setting[int | None]("ENGRAM_HISTORY_DAYS", None, _integer(1, 36_500))
HEARTBEAT_MS = Setting("ENGRAM_HEARTBEAT_MS", 100, _integer(1, 60_000))
ELECTION_MS = Setting("ENGRAM_ELECTION_MS", 300, _integer(2, 600_000))
WRITE_TIMEOUT_MS = Setting("ENGRAM_WRITE_TIMEOUT_MS", 5000, _integer(1, 600_000))
CONSOLIDATION_THRESHOLD = Setting("CONSOLIDATION_THRESHOLD", 50, _integer(2, 100_000), used=False)
CONSOLIDATION_TARGET_WINDOW = Setting("CONSOLIDATION_TARGET_WINDOW", 20, _integer(1, 100_000), used=False)
KNOWLEDGE_EXTRACTOR = Setting("KNOWLEDGE_EXTRACTOR", "rules", _names("rules", "mock", "openai", "off"), used=False)
KNOWLEDGE_MAX_WORKERS = Setting("KNOWLEDGE_MAX_WORKERS", 4, _integer(1, 1000), used=False)
KNOWLEDGE_CHANNEL_SIZE = Setting("KNOWLEDGE_CHANNEL_SIZE", 500, _integer(1, 100_000), used=False)
SUMMARIZER = Setting("SUMMARIZER", "extractive", _names("extractive", "mock", "openai", "off"), used=False)
CONSOLIDATION_MAX_WORKERS = Setting("CONSOLIDATION_MAX_WORKERS", 2, _integer(1, 1000), used=False)
CONSOLIDATION_CHANNEL_SIZE = Setting("CONSOLIDATION_CHANNEL_SIZE", 100, _integer(1, 100_000), used=False)

SETTINGS: Sequence[Setting[Any]] = [value for value in list(globals().values()) if isinstance(value, Setting)]
"""All of them, in the order above."""

OLD_NAMES: Mapping[str, str] = {setting.old_name: setting.name for setting in SETTINGS if setting.old_name}
"""Names of earlier versions: taken for one more minor version, with a warning."""
