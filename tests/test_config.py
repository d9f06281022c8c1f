"""The settings: defaults, what is refused, and that everything wrong is said at once."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.config import Config
from engram.errors import ConfigError
from engram.settings import SETTINGS, Address, parse_address

SECRET = "sk-very-secret"


def problems(environ: dict[str, str], dotenv: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        Config.from_env(environ, dotenv)
    return [line.removeprefix("  - ") for line in str(raised.value).splitlines()[1:]]


def test_nothing_needs_to_be_set() -> None:
    config = Config.from_env({})

    assert (config.bind_host, config.bind_port) == ("127.0.0.1", 3000)
    assert config.log_path == Path("data/raft/engram.db")
    assert config.lance_uri == "data/lancedb"
    assert (config.embedder, config.embedding_dimension) == ("builtin", 256)
    assert (config.short_term_count, config.write_timeout_s) == (20, 5.0)
    assert config.recall_cache_bytes_max == 128 * 1024 * 1024
    assert config.warnings == ()


def test_paths_follow_the_data_directory_unless_they_are_set_themselves() -> None:
    config = Config.from_env({"ENGRAM_DATA_DIR": "/srv/engram", "LANCE_DB_PATH": "s3://bucket/memory"})

    assert config.log_path == Path("/srv/engram/raft/engram.db")
    assert config.projections_path == Path("/srv/engram/projections.db")
    assert config.lance_uri == "s3://bucket/memory"


def test_everything_wrong_is_said_in_one_message() -> None:
    found = problems(
        {"SHORT_TERM_COUNT": "0", "LOG_FORMAT": "xml", "ENGRAM_DATADIR": "x", "OPENAI_BASE_URL": "nowhere"}
    )

    assert len(found) == 4
    assert "SHORT_TERM_COUNT is '0': it takes an integer from 1 to 100000" in found
    assert "LOG_FORMAT is 'xml': it takes pretty, json" in found
    assert "ENGRAM_DATADIR is not a setting; did you mean ENGRAM_DATA_DIR?" in found


def test_a_wrong_value_is_said_once_however_often_it_is_needed() -> None:
    assert len(problems({"ENGRAM_ELECTION_MS": "soon", "EMBEDDING_DIMENSION": "wide", "EMBEDDER": "openia"})) == 3


@pytest.mark.parametrize("name", ["ENGRAM_X", "ENGRAM_BIND_ADDRESS", "ENGRAM_"])
def test_a_name_that_looks_like_ours_and_is_not_known_is_refused(name: str) -> None:
    assert problems({name: "1"})[0].startswith(f"{name} is not a setting")


def test_a_name_of_somebody_else_is_left_alone() -> None:
    assert Config.from_env({"PATH": "/bin", "SHORT_TERM": "1"}).warnings == ()


def test_a_place_for_lancedb_that_it_cannot_open_is_named() -> None:
    [problem] = problems({"LANCE_DB_PATH": "s4://bucket/memories"})

    assert "LANCE_DB_PATH" in problem
    assert "its scheme is 's4'; it takes a folder, or an address with one of file, " in problem
    for address in ("s3://bucket/memories", "gs://b", "az://c/d", "/var/lib/engram", "C:/engram", "file:///srv"):
        assert Config.from_env({"LANCE_DB_PATH": address}).lance_uri == address


def test_an_empty_value_counts_as_unset() -> None:
    assert Config.from_env({"OPENAI_API_KEY": "", "NODE_ID": " ", "EMBEDDING_DIMENSION": ""}).embedder == "builtin"


FREE_TEXT = {"ENGRAM_DATA_DIR", "RAFT_DB_PATH", "LANCE_DB_PATH", "OPENAI_API_KEY", "EMBEDDING_MODEL"}


@pytest.mark.parametrize("name", [setting.name for setting in SETTINGS if setting.name not in FREE_TEXT])
def test_every_setting_that_is_no_free_text_refuses_what_it_does_not_take(name: str) -> None:
    assert any(name in problem for problem in problems({name: "\x01"}))


class TestEmbedder:
    def test_a_key_or_a_server_of_ones_own_means_openai(self) -> None:
        assert Config.from_env({"OPENAI_API_KEY": SECRET}).embedder == "openai"
        assert Config.from_env({"OPENAI_BASE_URL": "http://127.0.0.1:8085/v1"}).embedder == "openai"

    def test_the_builtin_one_can_be_asked_for_beside_a_key(self) -> None:
        assert Config.from_env({"OPENAI_API_KEY": SECRET, "EMBEDDER": "builtin"}).embedder == "builtin"

    def test_openai_without_a_key_and_a_server_is_refused(self) -> None:
        assert problems({"EMBEDDER": "openai"}) == ["EMBEDDER is 'openai': it needs OPENAI_API_KEY or OPENAI_BASE_URL"]

    def test_the_width_is_the_models_own(self) -> None:
        large = {"OPENAI_API_KEY": SECRET, "EMBEDDING_MODEL": "text-embedding-3-large"}

        assert Config.from_env({"OPENAI_API_KEY": SECRET}).embedding_dimension == 1536
        assert Config.from_env(large).embedding_dimension == 3072
        assert Config.from_env({**large, "EMBEDDING_DIMENSION": "1024"}).embedding_dimension == 1024

    def test_a_model_of_unknown_width_needs_one(self) -> None:
        unknown = {"OPENAI_BASE_URL": "http://localhost:1", "EMBEDDING_MODEL": "all-MiniLM-L6-v2"}

        assert problems(unknown) == [
            "EMBEDDING_DIMENSION must be set: the width of 'all-MiniLM-L6-v2' is not known here"
        ]
        assert Config.from_env({**unknown, "EMBEDDING_DIMENSION": "384"}).embedding_dimension == 384

    def test_the_builtin_one_has_one_width(self) -> None:
        assert "256 dimensions" in problems({"EMBEDDING_DIMENSION": "1536"})[0]

    def test_minilm_is_asked_for_by_name_and_has_one_width(self) -> None:
        config = Config.from_env({"EMBEDDER": "minilm", "OPENAI_API_KEY": SECRET})

        assert (config.embedder, config.embedding_dimension) == ("minilm", 384)
        assert problems({"EMBEDDER": "minilm", "EMBEDDING_DIMENSION": "256"}) == [
            "EMBEDDING_DIMENSION is 256: vectors of the embedder 'minilm' have 384 dimensions"
        ]

    def test_a_model_that_nothing_would_use_is_said(self) -> None:
        assert "EMBEDDING_MODEL" in Config.from_env({"EMBEDDING_MODEL": "text-embedding-3-large"}).warnings[0]
        assert "'minilm'" in Config.from_env({"EMBEDDER": "minilm", "EMBEDDING_MODEL": "x"}).warnings[0]


class TestSecrets:
    def test_no_secret_stands_in_the_repr(self) -> None:
        config = Config.from_env({"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": f"https://user:{SECRET}@host/v1"})

        assert SECRET not in repr(config)
        assert config.openai_api_key == SECRET

    def test_no_secret_stands_in_an_error(self) -> None:
        found = problems({"OPENAI_BASE_URL": f"ftp://user:{SECRET}@host", "REDIS_URL": f"http://:{SECRET}@host"})

        assert len(found) == 2
        assert SECRET not in "".join(found)

    @pytest.mark.parametrize("junk", ["é", "\x7f", " two words", "\ttab"])
    def test_a_key_that_no_header_can_carry_is_refused_unseen(self, junk: str) -> None:
        (found,) = problems({"OPENAI_API_KEY": f"{SECRET}{junk}end"})

        assert "OPENAI_API_KEY is malformed (its value is not shown)" in found
        assert SECRET not in found

    @pytest.mark.parametrize(
        "address", ["http://[::1", "http://host:99999/v1", f"http://host:{SECRET}/v1", "http://a b"]
    )
    def test_an_address_that_cannot_be_asked_is_refused_unseen(self, address: str) -> None:
        (found,) = problems({"OPENAI_BASE_URL": address, "EMBEDDER": "builtin"})

        assert "OPENAI_BASE_URL is malformed (its value is not shown)" in found
        assert SECRET not in found


class TestOldNames:
    def test_they_are_taken_with_a_warning(self) -> None:
        config = Config.from_env({"LANCEDB_PATH": "/old", "RUST_LOG": "debug"})

        assert (config.lance_uri, config.log_level) == ("/old", "debug")
        assert config.warnings == (
            "LANCEDB_PATH is an old name; use LANCE_DB_PATH",
            "RUST_LOG is an old name; use LOG_LEVEL",
        )

    def test_the_new_name_wins(self) -> None:
        assert Config.from_env({"LANCEDB_PATH": "/old", "LANCE_DB_PATH": "/new"}).lance_uri == "/new"

    @pytest.mark.parametrize(
        ("value", "level"),
        [("warn", "warning"), ("info,engram=trace", "debug"), ("hyper=debug,ERROR", "error"), ("off", "critical")],
    )
    def test_directives_are_understood(self, value: str, level: str) -> None:
        assert Config.from_env({"RUST_LOG": value}).log_level == level

    def test_directives_without_a_level_for_us_are_refused(self) -> None:
        assert "RUST_LOG" in problems({"RUST_LOG": "hyper=debug"})[0]


class TestRedis:
    def test_its_address_is_taken_and_its_password_is_not_shown(self) -> None:
        url = f"rediss://user:{SECRET}@cache:6380/3"

        config = Config.from_env({"REDIS_URL": url})

        assert config.redis_url == url
        assert config.warnings == ()
        assert SECRET not in repr(config)

    def test_without_an_address_there_is_none(self) -> None:
        assert Config.from_env({}).redis_url is None

    @pytest.mark.parametrize("database", ["cache", "1/2", "-1", "٣"])
    def test_a_database_that_is_no_number_is_refused_unseen(self, database: str) -> None:
        (found,) = problems({"REDIS_URL": f"redis://:{SECRET}@cache/{database}"})

        assert found.startswith("REDIS_URL is malformed (its value is not shown)")
        assert SECRET not in found

    @pytest.mark.parametrize("url", ["cache:6379", "http://cache", "redis://", f"redis://:{SECRET}@cache:65536"])
    def test_an_address_that_is_no_redis_is_refused_unseen(self, url: str) -> None:
        (found,) = problems({"REDIS_URL": url})

        assert found.startswith("REDIS_URL is malformed (its value is not shown): it takes an address")


class TestWhatThisVersionCannotDo:
    def test_settings_that_nothing_uses_yet_are_checked_and_said(self) -> None:
        assert Config.from_env({"SUMMARIZER": "extractive"}).warnings == (
            "SUMMARIZER is set, but nothing in this version uses it yet",
        )
        assert "did you mean extractive?" in problems({"SUMMARIZER": "extractiv"})[0]


NODE = {"NODE_ID": "1", "RAFT_ADDR": "10.0.0.1:9001", "ENGRAM_BIND_ADDR": "10.0.0.1:3000"}
"""The least that a member of a cluster on three machines is told."""


class TestCluster:
    def test_a_node_without_an_id_is_in_no_cluster(self) -> None:
        config = Config.from_env({})

        assert (config.node_id, config.raft_bind, config.raft_address, config.http_address) == (None, None, "", "")
        assert (config.peers, config.http_peers) == ({}, {})

    def test_a_member_is_reached_where_it_listens_unless_it_says_otherwise(self) -> None:
        config = Config.from_env(NODE)

        assert (config.node_id, config.raft_bind) == (1, Address("10.0.0.1", 9001))
        assert (config.raft_address, config.http_address) == ("10.0.0.1:9001", "10.0.0.1:3000")
        assert config.warnings == ()

    def test_what_it_announces_is_said_apart_from_what_it_binds(self) -> None:
        config = Config.from_env(
            {
                "NODE_ID": "1",
                "RAFT_ADDR": "[::]:9001",
                "RAFT_ADVERTISE_ADDR": "[fd00::1]:9001",
                "ENGRAM_BIND_ADDR": "0.0.0.0:3000",
                "ENGRAM_ADVERTISE_ADDR": "memory.example:80",
            }
        )

        assert config.raft_bind == Address("::", 9001)
        assert (config.raft_address, config.http_address) == ("[fd00::1]:9001", "memory.example:80")

    def test_clients_are_sent_to_the_host_of_the_log_when_http_binds_all_interfaces(self) -> None:
        assert Config.from_env({**NODE, "ENGRAM_BIND_ADDR": "0.0.0.0:3000"}).http_address == "10.0.0.1:3000"

    def test_an_address_for_clients_that_only_this_machine_reaches_is_said(self) -> None:
        config = Config.from_env({"NODE_ID": "1", "RAFT_ADDR": "10.0.0.1:9001"})

        assert config.warnings == (
            "clients are redirected to 127.0.0.1:3000, which only this machine reaches: set ENGRAM_ADVERTISE_ADDR",
        )

    def test_one_list_of_peers_serves_all_nodes(self) -> None:
        config = Config.from_env(
            {
                **NODE,
                "CLUSTER_PEERS": "1:10.0.0.1:9001, 2:10.0.0.2:9001, 3:[fd00::3]:9001",
                "CLUSTER_HTTP_PEERS": "1:10.0.0.1:3000,2:10.0.0.2:3000,3:[fd00::3]:3000",
            }
        )

        assert config.peers == {2: "10.0.0.2:9001", 3: "[fd00::3]:9001"}
        assert config.http_peers == {2: "10.0.0.2:3000", 3: "[fd00::3]:3000"}
        assert config.http_address == "10.0.0.1:3000"

    def test_the_nodes_own_line_among_the_peers_says_where_clients_come(self) -> None:
        config = Config.from_env({**NODE, "ENGRAM_BIND_ADDR": "0.0.0.0:3000", "CLUSTER_HTTP_PEERS": "1:web:81"})

        assert config.http_address == "web:81"

    @pytest.mark.parametrize(
        ("changed", "problem"),
        [
            ({"RAFT_ADDR": ""}, "NODE_ID is set: it needs RAFT_ADDR"),
            (
                {"RAFT_ADDR": "0.0.0.0:9001"},
                "0.0.0.0:9001 tells other nodes nothing: RAFT_ADVERTISE_ADDR must name an address that they can reach",
            ),
            (
                {"RAFT_ADVERTISE_ADDR": "[::]:9001"},
                "[::]:9001 tells other nodes nothing: RAFT_ADVERTISE_ADDR must name an address that they can reach",
            ),
            (
                {"ENGRAM_ADVERTISE_ADDR": "0.0.0.0:3000"},
                "0.0.0.0:3000 tells clients nothing: ENGRAM_ADVERTISE_ADDR must name an address that they can reach",
            ),
            (
                {"ENGRAM_BIND_ADDR": "10.0.0.1:0"},
                "ENGRAM_BIND_ADDR has port 0: ENGRAM_ADVERTISE_ADDR must say where clients reach it",
            ),
            (
                {"CLUSTER_PEERS": "1:10.0.0.9:9001"},
                "CLUSTER_PEERS has this node at 10.0.0.9:9001, but it announces 10.0.0.1:9001",
            ),
            (
                {"CLUSTER_HTTP_PEERS": "1:web:80", "ENGRAM_ADVERTISE_ADDR": "web:81"},
                "CLUSTER_HTTP_PEERS has this node at web:80, but it announces web:81",
            ),
            (
                {"CLUSTER_PEERS": "2:10.0.0.1:9001"},
                "CLUSTER_PEERS has node 2 at 10.0.0.1:9001, which is this node's own",
            ),
            (
                {"CLUSTER_PEERS": "2:0.0.0.0:9001"},
                "CLUSTER_PEERS has node 2 at 0.0.0.0:9001: nobody is there",
            ),
            (
                {"CLUSTER_PEERS": "2:b:1,3:b:1"},
                "CLUSTER_PEERS is '2:b:1,3:b:1': it names one address for two nodes",
            ),
        ],
    )
    def test_addresses_that_cannot_work_are_refused(self, changed: dict[str, str], problem: str) -> None:
        assert problems({**NODE, **changed}) == [problem]

    def test_everything_wrong_is_said_at_once(self) -> None:
        found = problems({"NODE_ID": "0", "CLUSTER_PEERS": "1:a:1,1:b:2", "RAFT_ADDR": "0.0.0.0:5000"})

        assert [problem.split(" ")[0] for problem in found] == ["CLUSTER_PEERS", "NODE_ID", "0.0.0.0:5000"]

    def test_settings_of_a_cluster_without_an_id_are_checked_and_said(self) -> None:
        config = Config.from_env({"RAFT_ADDR": "0.0.0.0:9001", "CLUSTER_PEERS": "2:b:9001"})

        assert config.node_id is None
        assert config.warnings == (
            "RAFT_ADDR is set, but NODE_ID is not: the node runs alone and does not use it",
            "CLUSTER_PEERS is set, but NODE_ID is not: the node runs alone and does not use it",
        )
        assert "id:host:port" in problems({"CLUSTER_PEERS": "b:9001"})[0]


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"ENGRAM_HEARTBEAT_MS": "151"}, "ENGRAM_ELECTION_MS"),
        ({"CONSOLIDATION_THRESHOLD": "20"}, "CONSOLIDATION_TARGET_WINDOW"),
    ],
)
def test_settings_that_bound_each_other_are_checked_together(environ: dict[str, str], name: str) -> None:
    assert problems(environ)[0].startswith(name)


def test_an_election_timeout_of_two_heartbeats_is_taken() -> None:
    assert Config.from_env({"ENGRAM_HEARTBEAT_MS": "150", "ENGRAM_ELECTION_MS": "300"}).election_ms == 300


class TestAddresses:
    @pytest.mark.parametrize(
        ("value", "host", "port"),
        [("localhost:80", "localhost", 80), ("[::1]:0", "::1", 0), ("10.0.0.1:65535", "10.0.0.1", 65535)],
    )
    def test_names_and_both_kinds_of_numbers_are_taken(self, value: str, host: str, port: int) -> None:
        assert parse_address(value) == Address(host, port)
        assert str(parse_address(value)) == value

    @pytest.mark.parametrize(
        "value", ["", "3000", ":3000", "host", "host:", "host:65536", "host:-1", "::1:80", "a b:1", "[]:1", "h:٣"]
    )
    def test_everything_else_is_refused(self, value: str) -> None:
        with pytest.raises(ValueError, match="it"):
            parse_address(value)

    @given(st.text())
    def test_no_text_breaks_the_parser(self, value: str) -> None:
        try:
            address = parse_address(value)
        except ValueError:
            return

        assert parse_address(str(address)) == address


class TestDotenv:
    def test_the_environment_wins_over_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        file.write_text("# a comment\nexport SHORT_TERM_COUNT=5 # here too\nLOG_LEVEL='debug'\n\nLOG_FORMAT=\"json\"\n")

        config = Config.from_env({"SHORT_TERM_COUNT": "7"}, file)

        assert (config.short_term_count, config.log_level, config.log_format) == (7, "debug", "json")

    def test_a_missing_file_is_no_fault(self, tmp_path: Path) -> None:
        assert Config.from_env({}, tmp_path / ".env") == Config.from_env({})

    def test_a_line_that_is_no_setting_is_named_by_its_number(self, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        file.write_text(f"SHORT_TERM_COUNT=5\nOPENAI_API_KEY='{SECRET}\n")

        assert problems({}, file) == [f"{file} line 2 is not NAME=value"]

    def test_a_file_of_bytes_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        file.write_bytes(b"\xff\xfe")

        assert "cannot be read" in problems({}, file)[0]

    def test_a_likely_typo_is_said(self, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        file.write_text("SHORT_TERM_COUNTS=5\nPOSTGRES_PASSWORD=x\n")

        assert Config.from_env({}, file).warnings == (
            f"{file}: SHORT_TERM_COUNTS is not a setting; did you mean SHORT_TERM_COUNT?",
        )
