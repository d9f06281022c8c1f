import pyarrow as pa
import pytest

from engram.projections import lance_rows
from engram.projections.lance_rows import FRONTIER_SESSIONS_MAX, Erasure, Frontier, Scope, Space
from tests.projections.embedded import MODEL, row


def test_a_row_of_another_session_is_unknown_until_it_is_learnt() -> None:
    frontier = Frontier()
    rows = [row(1, session_id="a"), row(2, session_id="b"), row(3, session_id="a", tenant="other")]
    frontier.learn(rows[:1], [], 1)

    assert frontier.unknown(rows) == rows[1:]


def test_a_row_beyond_all_that_is_there_is_not_behind() -> None:
    frontier = Frontier()
    rows = [row(number) for number in (5, 6, 9)]

    frontier.learn(rows, [("default", "s1", 6), ("default", "somebody else", 99)], 5)

    assert frontier.behind(rows) == rows[:2]


def test_what_was_written_is_behind_from_then_on() -> None:
    frontier = Frontier()
    frontier.learn([row(1)], [], 1)

    before = frontier.behind([row(1), row(2)])
    frontier.move([row(1)])

    assert (before, frontier.behind([row(1), row(2)])) == ([], [row(1)])


def test_only_so_many_sessions_are_remembered_the_latest_ones() -> None:
    frontier = Frontier()
    rows = [row(number, session_id=f"s{number}") for number in range(FRONTIER_SESSIONS_MAX + 10)]
    frontier.learn(rows, [], 0)
    frontier.move(rows)

    frontier.move(rows[10:20])

    assert {known.session_id for known in rows} - {one.session_id for one in frontier.unknown(rows)} >= {"s10", "s19"}
    assert len(frontier.unknown(rows)) == 10


def test_the_columns_say_what_the_vectors_are() -> None:
    columns = lance_rows.schema(pa, Space("a-model", 4))

    assert columns.metadata == {
        b"engram.format": lance_rows.FORMAT.encode(),
        b"engram.model": b"a-model",
        b"engram.dimension": b"4",
    }
    assert columns.field("vector").type.list_size == 4


def test_vectors_become_float32_with_the_same_values() -> None:
    rows = [row(1), row(2)]

    table = lance_rows.table(pa, lance_rows.schema(pa, Space(MODEL, 8)), rows)

    assert table.column_names == lance_rows.schema(pa, Space(MODEL, 8)).names
    assert [sum(value * value for value in vector) for vector in table["vector"].to_pylist()] == [
        pytest.approx(1.0, abs=1e-3)
    ] * 2


def test_quotes_cannot_end_a_literal() -> None:
    scope = lance_rows.in_scope(Scope("x' OR '1'='1", agent_id="a", user_id="u"))
    erasure = lance_rows.to_forget([Erasure("t", "it's", "m", 7), Erasure("t", "s", None, 8)])

    assert scope == "tenant = 'x'' OR ''1''=''1' AND agent_id = 'a' AND user_id = 'u'"
    assert erasure == (
        "(tenant = 't' AND session_id = 'it''s' AND log_index <= 7 AND message_id = 'm')"
        " OR (tenant = 't' AND session_id = 's' AND log_index <= 8)"
    )


def test_neighbours_of_rows_are_all_rows_of_their_fragments() -> None:
    assert lance_rows.beside_rows([5, (3 << 32) + 1, (3 << 32) + 9]) == (
        "(_rowid >= 0 AND _rowid < 4294967296) OR (_rowid >= 12884901888 AND _rowid < 17179869184)"
    )
