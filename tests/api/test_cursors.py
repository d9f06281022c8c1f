import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.api.cursors import read_cursor, write_cursor
from engram.errors import InvalidError

positions = st.integers(-(2**63), 2**63 - 1)


@given(positions, st.lists(st.text() | st.integers() | st.none()))
def test_a_cursor_leads_back_to_its_position(position: int, of: list[object]) -> None:
    assert read_cursor(write_cursor(position, of), of) == position


@given(positions, st.data())
def test_a_cursor_with_one_character_changed_is_refused(position: int, data: st.DataObject) -> None:
    cursor = write_cursor(position, ["messages", 1])
    place = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda character: character != cursor[place]))

    with pytest.raises(InvalidError) as caught:
        read_cursor(cursor[:place] + other + cursor[place + 1 :], ["messages", 1])

    assert caught.value.code == "invalid_cursor"


@given(st.text(max_size=40))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        read_cursor(text, ["messages", 1])


def test_a_cursor_of_another_list_is_refused() -> None:
    cursor = write_cursor(7, ["messages", 1, False])

    for other in (["messages", 2, False], ["messages", 1, True], ["sessions", 1, False]):
        with pytest.raises(InvalidError):
            read_cursor(cursor, other)
