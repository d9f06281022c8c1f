"""Names of keys: no two sessions share one, and each can be read back."""

from hypothesis import given
from hypothesis import strategies as st

from engram.projections.redis_keys import KeySpace, SessionName

names = st.text(st.sampled_from("a:%3A25é *{}[]"), min_size=1, max_size=6)
sessions = st.builds(SessionName, names, names)


@given(sessions)
def test_a_key_tells_whose_it_is(name: SessionName) -> None:
    space = KeySpace(7)

    assert {space.session_of(key) for key in space.of(name)} == {name}


@given(sessions, sessions)
def test_two_sessions_never_share_a_key(one: SessionName, other: SessionName) -> None:
    space = KeySpace(1)

    assert (one == other) == bool(set(space.of(one)) & set(space.of(other)))


@given(sessions)
def test_no_session_has_the_key_of_the_state(name: SessionName) -> None:
    space = KeySpace(1)

    assert space.state not in space.of(name)


def test_keys_are_as_they_are_published() -> None:
    keys = KeySpace(3).of(SessionName("default", "a:b"))

    assert keys.messages == "engram:3:default:a%3Ab:messages"
    assert keys.core == "engram:3:default:a%3Ab:core"
    assert keys.header == "engram:3:default:a%3Ab:session"


def test_what_was_not_written_here_is_nobodys() -> None:
    space = KeySpace(1)

    for key in ("engram:1:state", "engram:1:a:b:c", "engram:1:a:messages", "engram:2:a:b:core", "x", "engram:1:"):
        assert space.session_of(key) is None
