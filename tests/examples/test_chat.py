"""The example, as a person would run it: a process with lines on its standard input."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.server_process import PROJECT, ServerProcess, find_free_port

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Start one server for the module; each test talks in a session of its own."""
    with ServerProcess(tmp_path_factory.mktemp("chat"), find_free_port()) as running:
        yield running


def chat(url: str, session_id: str, *lines: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROJECT / "examples" / "chat.py", "--url", url, "--session", session_id],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_what_was_said_is_remembered_by_the_next_process(server: ServerProcess) -> None:
    chat(server.url, "pets", "My cat is called Miso.", "The car needs new tyres in May.")

    said = chat(server.url, "pets", "What is my cat called?")

    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("bot> I remember what you said on 20")
    assert said.stdout.rstrip().endswith(": My cat is called Miso.")


def test_a_pinned_fact_stands_in_the_context(server: ServerProcess) -> None:
    said = chat(server.url, "facts", "/pin Allergic to nuts.", "Hello there.", "/context lunch")

    assert "Core memories:\n- Allergic to nuts." in said.stdout
    assert "user: Hello there." in said.stdout


def test_commands_need_no_text_behind_them(server: ServerProcess) -> None:
    said = chat(server.url, "bare", "The bus leaves at nine.", "/pin", "/context", "/forget", "/context")

    assert said.returncode == 0, said.stderr
    assert "user: The bus leaves at nine." in said.stdout
    assert said.stdout.endswith("bot> Forgotten.\nbot> (nothing yet)\n")


def test_nothing_is_left_of_a_forgotten_session(server: ServerProcess) -> None:
    said = chat(server.url, "secret", "The code is 4711.", "/forget", "/context code")

    assert said.stdout.splitlines() == ["bot> I will remember that.", "bot> Forgotten.", "bot> (nothing yet)"]


def test_a_missing_server_is_said_in_one_line(free_port: int) -> None:
    said = chat(f"http://127.0.0.1:{free_port}", "x", "Hello?")

    assert (said.returncode, said.stdout, len(said.stderr.splitlines())) == (1, "", 1)
    assert "make serve" in said.stderr
