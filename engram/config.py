"""The settings of one node: read once, checked together, never changed afterwards.

Every wrong or unknown value is reported at start-up, all of them in one `ConfigError`. An empty value counts as unset,
because that is what `${NAME:-}` in a compose file makes of a name that is not there. The environment wins over `.env`.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from dotenv.parser import parse_stream

from engram import settings
from engram.errors import ConfigError
from engram.settings import OLD_NAMES, OUR_PREFIX, SETTINGS, Address, LogFormat, LogLevel, Setting

T = TypeVar("T")

Embedder = Literal["builtin", "minilm", "openai"]

OWN_DIMENSIONS: Mapping[Embedder, int] = {"builtin": 256, "minilm": 384}
"""Of the embedders that run in the node; each has one model."""

MODEL_DIMENSIONS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
"""Widths that need no EMBEDDING_DIMENSION, as the API documents them."""

MEBIBYTE = 1024 * 1024

ANY_HOSTS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to
"""Addresses that bind all interfaces, and so tell a peer nothing."""

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})

CLUSTER_SETTINGS: Sequence[Setting[Any]] = (
    settings.RAFT_ADDR,
    settings.RAFT_ADVERTISE_ADDR,
    settings.ADVERTISE_ADDR,
    settings.CLUSTER_PEERS,
    settings.CLUSTER_HTTP_PEERS,
)
"""What a node without NODE_ID has no use for."""

RESEMBLANCE = 0.85
"""How close a name in `.env` must be to one of ours before it is taken for a typo: 1 is equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a node was told; only the composition root and the command line read it."""

    bind_host: str
    bind_port: int
    """0: any free port."""
    data_dir: Path
    log_path: Path
    projections_path: Path
    lance_uri: str
    redis_url: str | None = field(repr=False)
    """May carry a password. None: the primary store serves short-term memory alone."""
    embedder: Embedder
    openai_api_key: str | None = field(repr=False)
    openai_base_url: str | None = field(repr=False)
    """May carry a user name and a password."""
    embedding_model: str
    """For `openai`; the others name their own."""
    embedding_dimension: int
    embedding_max_concurrency: int
    embedding_claim_max: int
    """Messages that one pass of the embedding worker takes on at most."""
    short_term_count: int
    snapshot_log_threshold: int
    recall_cache_bytes_max: int
    history_days: int | None
    """None: all of the history is kept."""
    heartbeat_ms: int
    election_ms: int
    write_timeout_s: float
    node_id: int | None
    """None: a node of its own, in no cluster, and the five below are empty."""
    raft_bind: Address | None
    """Where its log listens."""
    raft_address: str
    """host:port where the other nodes reach its log."""
    http_address: str
    """host:port where clients reach it: what other nodes redirect them to while it leads."""
    peers: Mapping[int, str]
    """host:port of the other nodes' logs, by node id."""
    http_peers: Mapping[int, str]
    """host:port where clients reach the other nodes, by node id."""
    log_level: LogLevel
    log_format: LogFormat
    warnings: tuple[str, ...]
    """What is worth saying at start-up, once the log is set up: old names, and settings that nothing reads."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str], dotenv: Path | None = None) -> Self:
        """Return the settings in `environ`, and in the file `dotenv` where that exists.

        Raises:
            ConfigError: Something is wrong; the message lists every problem.
        """
        reader = _Reader(environ, dotenv)
        bind = reader.take(settings.BIND_ADDR)
        data_dir = reader.take(settings.DATA_DIR)
        embedder = _embedder(reader)
        member = _member(reader, bind)
        config = cls(
            bind_host=bind.host,
            bind_port=bind.port,
            data_dir=data_dir,
            log_path=reader.take(settings.LOG_PATH) or data_dir / "raft" / "engram.db",
            projections_path=data_dir / "projections.db",
            lance_uri=reader.take(settings.LANCE_URI) or str(data_dir / "lancedb"),
            redis_url=reader.take(settings.REDIS_URL),
            embedder=embedder,
            openai_api_key=reader.take(settings.OPENAI_API_KEY),
            openai_base_url=reader.take(settings.OPENAI_BASE_URL),
            embedding_model=reader.take(settings.EMBEDDING_MODEL),
            embedding_dimension=_dimension(reader, embedder),
            embedding_max_concurrency=reader.take(settings.EMBEDDING_MAX_CONCURRENCY),
            embedding_claim_max=reader.take(settings.MPSC_CHANNEL_SIZE),
            short_term_count=reader.take(settings.SHORT_TERM_COUNT),
            snapshot_log_threshold=reader.take(settings.SNAPSHOT_LOG_THRESHOLD),
            recall_cache_bytes_max=reader.take(settings.RECALL_CACHE_MB) * MEBIBYTE,
            history_days=reader.take(settings.HISTORY_DAYS),
            heartbeat_ms=reader.take(settings.HEARTBEAT_MS),
            election_ms=reader.take(settings.ELECTION_MS),
            write_timeout_s=reader.take(settings.WRITE_TIMEOUT_MS) / 1000,
            node_id=member.node_id,
            raft_bind=member.bind,
            raft_address=member.address,
            http_address=member.http_address,
            peers=member.peers,
            http_peers=member.http_peers,
            log_level=reader.take(settings.LOG_LEVEL),
            log_format=reader.take(settings.LOG_FORMAT),
            warnings=(),
        )
        _check_pairs(reader)
        return replace(config, warnings=reader.finish())


class _Reader:
    """Takes values one by one and collects what is wrong with them."""

    def __init__(self, environ: Mapping[str, str], dotenv: Path | None) -> None:
        self.problems: list[str] = []
        self.warnings: list[str] = []
        given = {**self._file(dotenv), **{name: value for name, value in environ.items() if value}}
        self._values = {name: value.strip() for name, value in given.items() if value.strip()}

    def take(self, setting: Setting[T]) -> T:
        """Return the value of `setting`; its default when it is unset or wrong."""
        name = setting.name
        if setting.old_name and name not in self._values and setting.old_name in self._values:
            name = setting.old_name
        if name not in self._values:
            return setting.default
        value = self._values[name]
        try:
            return setting.parse(value)
        except ValueError as error:
            shown = "is malformed (its value is not shown)" if setting.secret else f"is {value!r}"
            self.note(f"{name} {shown}: {error}")
            return setting.default

    def given(self, setting: Setting[T]) -> bool:
        """Whether somebody set it."""
        return setting.name in self._values

    def check(self, holds: bool, problem: str) -> None:  # noqa: FBT001 - reads like an assertion
        """Note `problem` unless `holds`."""
        if not holds:
            self.note(problem)

    def note(self, problem: str) -> None:
        """Keep `problem` for `finish`, once."""
        if problem not in self.problems:
            self.problems.append(problem)

    def finish(self) -> tuple[str, ...]:
        """Return the warnings.

        Raises:
            ConfigError: There were problems.
        """
        self._check_names()
        for setting in SETTINGS:
            if not setting.used and setting.name in self._values:
                self.take(setting)
                self.warnings.append(f"{setting.name} is set, but nothing in this version uses it yet")
        if self.problems:
            count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
            raise ConfigError(f"{count} with the settings:\n" + "\n".join(f"  - {item}" for item in self.problems))
        return tuple(self.warnings)

    def _check_names(self) -> None:
        known = [setting.name for setting in SETTINGS]
        for name in sorted(self._values):
            if name in OLD_NAMES:
                self.warnings.append(f"{name} is an old name; use {OLD_NAMES[name]}")
            elif name.startswith(OUR_PREFIX) and name not in known:
                hint = difflib.get_close_matches(name, known, n=1)
                self.note(f"{name} is not a setting" + (f"; did you mean {hint[0]}?" if hint else ""))

    def _file(self, path: Path | None) -> dict[str, str]:
        if path is None or not path.exists():
            return {}
        values: dict[str, str] = {}
        try:
            with path.open(encoding="utf-8") as stream:
                bindings = list(parse_stream(stream))
        except (OSError, UnicodeDecodeError) as error:
            self.note(f"{path} cannot be read: {error}")
            return {}
        for binding in bindings:
            if binding.error:
                self.note(f"{path} line {binding.original.line} is not NAME=value")
            elif binding.key and binding.value:
                values[binding.key] = binding.value
        self._check_typos(path, values)
        return values

    def _check_typos(self, path: Path, values: Mapping[str, str]) -> None:
        known = [*(setting.name for setting in SETTINGS), *OLD_NAMES]
        for name in values:
            if name not in known and not name.startswith(OUR_PREFIX):
                hint = difflib.get_close_matches(name, known, n=1, cutoff=RESEMBLANCE)
                self.warnings.extend(f"{path}: {name} is not a setting; did you mean {near}?" for near in hint)


def _embedder(reader: _Reader) -> Embedder:
    """Resolve `auto`: a key or a server of one's own means `openai`."""
    choice = reader.take(settings.EMBEDDER)
    remote = reader.given(settings.OPENAI_API_KEY) or reader.given(settings.OPENAI_BASE_URL)
    if choice == "auto":
        choice = "openai" if remote else "builtin"
    reader.check(choice != "openai" or remote, "EMBEDDER is 'openai': it needs OPENAI_API_KEY or OPENAI_BASE_URL")
    if choice != "openai" and reader.given(settings.EMBEDDING_MODEL):
        reader.warnings.append(f"EMBEDDING_MODEL is set, but EMBEDDER is {choice!r}, which has one model")
    return choice


def _dimension(reader: _Reader, embedder: Embedder) -> int:
    given = reader.take(settings.EMBEDDING_DIMENSION)
    if embedder in OWN_DIMENSIONS:
        own = OWN_DIMENSIONS[embedder]
        reader.check(
            given in {None, own},
            f"EMBEDDING_DIMENSION is {given}: vectors of the embedder {embedder!r} have {own} dimensions",
        )
        return own
    if given is not None:
        return given
    model = reader.take(settings.EMBEDDING_MODEL)
    reader.check(
        model in MODEL_DIMENSIONS or reader.given(settings.EMBEDDING_DIMENSION),
        f"EMBEDDING_DIMENSION must be set: the width of {model!r} is not known here",
    )
    return MODEL_DIMENSIONS.get(model, 0)


def _check_pairs(reader: _Reader) -> None:
    heartbeat_ms, election_ms = reader.take(settings.HEARTBEAT_MS), reader.take(settings.ELECTION_MS)
    reader.check(
        election_ms >= 2 * heartbeat_ms,
        f"ENGRAM_ELECTION_MS is {election_ms}: it must be twice ENGRAM_HEARTBEAT_MS, which is {heartbeat_ms}, or more",
    )
    threshold = reader.take(settings.CONSOLIDATION_THRESHOLD)
    window = reader.take(settings.CONSOLIDATION_TARGET_WINDOW)
    reader.check(
        window < threshold,
        f"CONSOLIDATION_TARGET_WINDOW is {window}: it must be below CONSOLIDATION_THRESHOLD, which is {threshold}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """What a node is to its cluster; of one that is in none, all is empty."""

    node_id: int | None = None
    bind: Address | None = None
    address: str = ""
    http_address: str = ""
    peers: Mapping[int, str] = field(default_factory=dict)
    http_peers: Mapping[int, str] = field(default_factory=dict)


def _member(reader: _Reader, http_bind: Address) -> _Member:
    for setting in CLUSTER_SETTINGS:
        reader.take(setting)  # what is malformed is said even where nothing uses it
    if not reader.given(settings.NODE_ID):
        reader.warnings.extend(
            f"{setting.name} is set, but NODE_ID is not: the node runs alone and does not use it"
            for setting in CLUSTER_SETTINGS
            if reader.given(setting)
        )
        return _Member()
    node_id, bind = reader.take(settings.NODE_ID), reader.take(settings.RAFT_ADDR)
    address = _raft_address(reader)
    http_address = _http_address(reader, node_id, http_bind, address)
    return _Member(
        node_id=node_id,
        bind=bind,
        address=str(address or ""),
        http_address=str(http_address or ""),
        peers=_others(reader, settings.CLUSTER_PEERS, node_id, address),
        http_peers=_others(reader, settings.CLUSTER_HTTP_PEERS, node_id, http_address),
    )


def _raft_address(reader: _Reader) -> Address | None:
    """Return where other nodes reach this one's log; None is a problem that has been noted."""
    reader.check(reader.given(settings.RAFT_ADDR), "NODE_ID is set: it needs RAFT_ADDR")
    address = reader.take(settings.RAFT_ADVERTISE_ADDR) or reader.take(settings.RAFT_ADDR)
    reader.check(
        address is None or address.host not in ANY_HOSTS,
        f"{address} tells other nodes nothing: RAFT_ADVERTISE_ADDR must name an address that they can reach",
    )
    return address


def _http_address(reader: _Reader, node_id: int | None, bind: Address, raft: Address | None) -> Address | None:
    """Return where clients reach this node: what is said, else the address it binds, else that of its log."""
    said = reader.take(settings.ADVERTISE_ADDR) or reader.take(settings.CLUSTER_HTTP_PEERS).get(node_id or 0)
    if said is None:
        reader.check(
            bind.port != 0, "ENGRAM_BIND_ADDR has port 0: ENGRAM_ADVERTISE_ADDR must say where clients reach it"
        )
        if bind.host in LOOPBACK_HOSTS and raft is not None and raft.host not in LOOPBACK_HOSTS:
            reader.warnings.append(
                f"clients are redirected to {bind}, which only this machine reaches: set ENGRAM_ADVERTISE_ADDR"
            )
        if bind.host not in ANY_HOSTS:
            return bind
        return Address(raft.host, bind.port) if raft is not None else None
    reader.check(
        said.host not in ANY_HOSTS,
        f"{said} tells clients nothing: ENGRAM_ADVERTISE_ADDR must name an address that they can reach",
    )
    return said


def _others(
    reader: _Reader, setting: Setting[dict[int, Address]], node_id: int | None, own: Address | None
) -> Mapping[int, str]:
    """Return the addresses of the other nodes in `setting`; this node may be listed, with the address it announces."""
    nodes = reader.take(setting)
    for other, address in nodes.items():
        if other == node_id:
            reader.check(own in {None, address}, f"{setting.name} has this node at {address}, but it announces {own}")
        else:
            reader.check(address != own, f"{setting.name} has node {other} at {address}, which is this node's own")
            reader.check(
                address.host not in ANY_HOSTS, f"{setting.name} has node {other} at {address}: nobody is there"
            )
    return {other: str(address) for other, address in nodes.items() if other != node_id}
