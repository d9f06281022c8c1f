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

    def test_a_model_that_nothing_would_use_is_said(self) -> None:
        assert "EMBEDDING_MODEL" in Config.from_env({"EMBEDDING_MODEL": "text-embedding-3-large"}).warnings[0]


class TestSecrets:
    def test_no_secret_stands_in_the_repr(self) -> None:
        config = Config.from_env({"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": f"https://user:{SECRET}@host/v1"})

        assert SECRET not in repr(config)
        assert config.openai_api_key == SECRET

    def test_no_secret_stands_in_an_error(self) -> None:
        found = problems({"OPENAI_BASE_URL": f"ftp://user:{SECRET}@host", "REDIS_URL": f"redis://:{SECRET}@host"})

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


class TestWhatThisVersionCannotDo:
    def test_a_node_id_is_refused_rather_than_run_alone(self) -> None:
        found = problems({"NODE_ID": "1", "RAFT_ADDR": "10.0.0.1:5000"})

        assert found == ["NODE_ID is set: clustering is not available in this version; unset it to run alone"]

    def test_redis_is_refused_rather_than_ignored(self) -> None:
        assert "REDIS_URL" in problems({"REDIS_URL": "redis://localhost"})[0]

    def test_settings_that_nothing_uses_yet_are_checked_and_said(self) -> None:
        assert Config.from_env({"SUMMARIZER": "extractive"}).warnings == (
            "SUMMARIZER is set, but nothing in this version uses it yet",
        )
        assert "did you mean extractive?" in problems({"SUMMARIZER": "extractiv"})[0]

    def test_cluster_settings_are_checked(self) -> None:
        found = problems({"NODE_ID": "0", "CLUSTER_PEERS": "1:a:1,1:b:2", "RAFT_ADDR": "0.0.0.0:5000"})

        assert "NODE_ID is '0'" in found[0]
        assert "it names node 1 twice" in found[1]
        assert "RAFT_ADVERTISE_ADDR" in found[2]


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"ENGRAM_HEARTBEAT_MS": "300"}, "ENGRAM_ELECTION_MS"),
        ({"CONSOLIDATION_THRESHOLD": "20"}, "CONSOLIDATION_TARGET_WINDOW"),
    ],
)
def test_settings_that_bound_each_other_are_checked_together(environ: dict[str, str], name: str) -> None:
    assert problems(environ)[0].startswith(name)


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
