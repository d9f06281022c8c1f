import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.api.errors import MalformedError, MethodError, UnknownPathError
from engram.api.paths import Paths, decode_percent, encode_header, encode_segment, split_target


@pytest.fixture
def paths() -> Paths[str]:
    paths: Paths[str] = Paths()
    paths.add("GET", "/sessions", "list")
    paths.add("POST", "/sessions", "create")
    paths.add("GET", "/sessions/{session_id}", "get")
    paths.add("POST", "/sessions/{session_id}/messages", "add")
    paths.add("GET", "/swagger-ui/", "page")
    paths.add("GET", "/swagger-ui/{asset}", "asset")
    return paths


FOUND = [
    ("GET", "/sessions", "list", []),
    ("HEAD", "/sessions", "list", []),
    ("GET", "/sessions/s1", "get", ["s1"]),
    ("GET", "/sessions/messages", "get", ["messages"]),
    ("GET", "/sessions/a%2Fb%3F%25", "get", ["a/b?%"]),
    ("GET", "/sessions/%252F", "get", ["%2F"]),
    ("GET", "/sessions/caf%C3%A9+", "get", ["café+"]),
    ("GET", "/%73essions", "list", []),
    ("POST", "/sessions//messages", "add", [""]),
    ("GET", "/swagger-ui/", "page", []),
    ("GET", "/swagger-ui/x.js", "asset", ["x.js"]),
]


@pytest.mark.parametrize(("method", "path", "route", "segments"), FOUND)
def test_a_path_leads_to_its_route(paths: Paths[str], method: str, path: str, route: str, segments: list[str]) -> None:
    branch, found = paths.locate(path)

    assert (branch.route(method), found) == (route, segments)


@pytest.mark.parametrize("path", ["/", "", "/session", "/sessions/s1/", "/sessions/s1/messages/x", "/swagger-ui"])
def test_another_path_leads_nowhere(paths: Paths[str], path: str) -> None:
    with pytest.raises(UnknownPathError):
        paths.locate(path)


def test_another_method_is_told_which_ones_there_are(paths: Paths[str]) -> None:
    branch, _ = paths.locate("/sessions")

    with pytest.raises(MethodError) as caught:
        branch.route("PUT")

    assert list(caught.value.allowed) == ["GET", "HEAD", "POST"]


@pytest.mark.parametrize("text", ["%", "%4", "%zz", "a%f", "%ff", "%C3", "%ED%A0%80", "%-1"])
def test_wrong_percent_encoding_is_refused(text: str) -> None:
    with pytest.raises(MalformedError) as caught:
        decode_percent("the path", text)

    assert caught.value.code == "invalid_encoding"


@given(st.text())
def test_a_segment_survives_encoding(text: str) -> None:
    encoded = encode_segment(text)

    assert decode_percent("the path", encoded) == text
    assert not set(encoded) & set("/?# ")


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_an_id_survives_a_header(text: str) -> None:
    encoded = encode_header(text)

    assert decode_percent("the header", encoded) == text
    assert encoded.isascii()
    assert encoded == encoded.strip()


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a?b=c?d", "/a", "b=c?d"),
        ("http://host:3000/a?b", "/a", "b"),
        ("HTTPS://host", "/", ""),
        ("*", "*", ""),
    ],
)
def test_a_target_is_split_at_its_first_question_mark(target: str, path: str, query: str) -> None:
    assert split_target(target) == (path, query)
