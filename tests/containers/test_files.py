"""What the container files say: settings that exist, and only what old and new builders and Compose take."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from engram.config import Config
from engram.settings import OUR_PREFIX, SETTINGS

PROJECT = Path(__file__).parents[2]
EXAMPLE = PROJECT / ".env.example"
ONE, CLUSTER = PROJECT / "docker-compose.yml", PROJECT / "docker-compose.cluster.yml"
COMPOSE_FILES = [pytest.param(ONE, id="one"), pytest.param(CLUSTER, id="cluster")]


def variables(path: Path) -> dict[str, str]:
    """Return the names that a compose file takes from outside, with their defaults."""
    return dict(re.findall(r"\$\{([A-Z0-9_]+):-([^}]*)\}", path.read_text()))


def environment(path: Path, service: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return what a node is told when `given` is set outside: what all share, and what is its own."""
    text = path.read_text()
    shared = text[text.index("x-settings") : text.index("x-redis")] if "x-settings" in text else ""
    own = re.search(rf"^  {service}:\n(.*?)^  \w", text, re.MULTILINE | re.DOTALL)
    assert own is not None
    return {
        name: re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: given.get(found[1], found[2]), value).strip('"')
        for name, value in re.findall(r"^ +([A-Z][A-Z0-9_]+): (.*)$", shared + own[1], re.MULTILINE)
        if name != "PYTHON_IMAGE"
    }


def examples() -> Iterator[tuple[str, str]]:
    """Yield each name in `.env.example` with its value."""
    yield from re.findall(r"^#([A-Z][A-Z0-9_]*)=(.*)$", EXAMPLE.read_text(), re.MULTILINE)


class TestExample:
    def test_as_it_is_it_changes_nothing(self) -> None:
        assert Config.from_env({}, EXAMPLE) == Config.from_env({})

    def test_with_every_line_in_force_it_is_right(self, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        file.write_text("\n".join(f"{name}={value}" for name, value in examples()))

        config = Config.from_env({}, file)

        assert config.peers == {2: "127.0.0.1:9002", 3: "127.0.0.1:9003"}
        assert config.warnings == ()

    def test_it_says_each_name_once(self) -> None:
        names = [name for name, _ in examples()]

        assert len(set(names)) == len(names)

    def test_what_is_no_setting_is_for_the_compose_files(self) -> None:
        known = {setting.name for setting in SETTINGS}

        assert {name for name, _ in examples()} - known == (variables(ONE) | variables(CLUSTER)).keys() - known

    @pytest.mark.parametrize("path", COMPOSE_FILES)
    def test_it_has_the_defaults_of_the_compose_files(self, path: Path) -> None:
        told = dict(examples())

        assert {name: told[name] for name, default in variables(path).items() if default} == {
            name: default for name, default in variables(path).items() if default
        }


class TestCompose:
    @pytest.mark.parametrize("path", COMPOSE_FILES)
    def test_no_name_of_its_own_is_taken_for_a_setting(self, path: Path) -> None:
        """A server that is started in the same folder reads the same `.env`."""
        own = variables(path).keys() - {setting.name for setting in SETTINGS}

        assert not any(name.startswith(OUR_PREFIX) for name in own)

    def test_one_node_runs_alone(self) -> None:
        config = Config.from_env(environment(ONE, "engram", {}))

        assert config.node_id is None
        assert config.warnings == ()

    def test_the_nodes_know_one_another_by_what_each_announces(self) -> None:
        nodes = {number: Config.from_env(environment(CLUSTER, f"node-{number}", {})) for number in (1, 2, 3)}
        announced = {number: node.raft_address for number, node in nodes.items()}

        for number, node in nodes.items():
            assert node.node_id == number
            assert {**node.peers, number: node.raft_address} == announced
            assert node.warnings == ()

    def test_redirects_lead_to_the_ports_that_are_published(self) -> None:
        given = {"HTTP_PORT_2": "8081", "ADVERTISE_HOST": "memory.example"}
        nodes = [Config.from_env(environment(CLUSTER, f"node-{number}", given)) for number in (1, 2, 3)]

        assert [node.http_address for node in nodes] == [
            "memory.example:3000",
            "memory.example:8081",
            "memory.example:3002",
        ]
        for number in (1, 2, 3):
            assert f"${{HTTP_PORT_{number}:-{2999 + number}}}:3000" in CLUSTER.read_text()

    def test_an_election_timeout_outlasts_the_stalls_of_a_shared_disk(self) -> None:
        assert Config.from_env(environment(CLUSTER, "node-1", {})).election_ms >= 1000

    @pytest.mark.parametrize("path", COMPOSE_FILES)
    @pytest.mark.parametrize(
        "newer",
        [r"^version:", r"^name:", r"^include:", "start_interval", "host_ip", r"\$\{[^}]*\$\{", r"^ +develop:"],
    )
    def test_it_has_nothing_that_one_of_the_compose_versions_refuses(self, path: Path, newer: str) -> None:
        assert re.search(newer, path.read_text(), re.MULTILINE) is None


class TestDockerfile:
    @pytest.mark.parametrize("newer", ["# syntax", "--mount", "--chmod", "--link", "<<", "--start-interval"])
    def test_it_has_nothing_that_only_one_builder_takes(self, newer: str) -> None:
        assert newer not in (PROJECT / "Dockerfile").read_text()

    def test_the_node_is_not_root_and_owns_its_data(self) -> None:
        lines = (PROJECT / "Dockerfile").read_text().splitlines()

        assert lines[-1] == "USER engram"
        assert next(number for number, line in enumerate(lines) if "chown engram:engram /data" in line) < lines.index(
            "VOLUME /data"
        )
