"""Filters decide for all rows of a scope at once what they would decide for each message by itself."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engram.events import Scalar
from engram.projections.rows import LabelRow, MessageRow, SessionRow
from engram.recall.filters import All, Comparison, Condition, Labels, Not, Operator, Some, mask, may_hold
from engram.recall.labels import LabelCache
from tests.recall.conversation import START_MS, MemoryReads, index_of, said
from tests.recall.test_search import searcher_of

KEYS = ("a", "b", "c.d")
TEXTS = ("", "x", "xy", "Ann", "ann", "10", "9")
SCALARS: Sequence[Scalar] = (None, True, False, 0, 1, 1.0, -2.5, 10, 2**62, *TEXTS)
TIMES = [START_MS + n * 60_000 for n in range(6)]


@st.composite
def messages(draw: st.DrawFn) -> list[MessageRow]:
    rows = []
    for ordinal in sorted(draw(st.sets(st.integers(0, 12), max_size=8))):
        row = said(
            ordinal, "tea", draw(st.sampled_from(["user", "assistant", "tool"])), when_ms=draw(st.sampled_from(TIMES))
        )
        labels = draw(st.dictionaries(st.sampled_from(KEYS), st.sampled_from(SCALARS)))
        rows.append(row._replace(name=draw(st.none() | st.sampled_from(TEXTS)), metadata=labels))
    return rows


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    field = draw(
        st.sampled_from(
            ["role", "name", "timestamp", "agent_id", "user_id", "session_id", *(f"metadata.{key}" for key in KEYS)]
        )
    )
    values: st.SearchStrategy[Scalar] = st.sampled_from(TIMES) if field == "timestamp" else st.sampled_from(SCALARS)
    orders: list[Operator] = ["eq", "gt", "gte", "lt", "lte", "in"]
    operator = draw(st.sampled_from(orders if field == "timestamp" else [*orders, "contains"]))
    most = 3 if operator == "in" else 1
    return Comparison(field, operator, draw(st.lists(values, min_size=1, max_size=most)))


conditions: st.SearchStrategy[Condition] = st.recursive(
    comparisons(),
    lambda inner: st.lists(inner, max_size=3).map(All) | st.lists(inner, max_size=3).map(Some) | inner.map(Not),
    max_leaves=6,
)


def holds(condition: Condition, session: SessionRow, message: MessageRow) -> bool:
    """The definition, for one message."""
    if isinstance(condition, All):
        return all(holds(part, session, message) for part in condition.parts)
    if isinstance(condition, Some):
        return any(holds(part, session, message) for part in condition.parts)
    if isinstance(condition, Not):
        return not holds(condition.part, session, message)
    known: dict[str, Scalar] = {
        "role": message.role,
        "name": message.name,
        "timestamp": message.when_ms,
        "agent_id": session.agent_id,
        "user_id": session.user_id,
        "session_id": session.session_id,
        **{f"metadata.{key}": value for key, value in message.metadata.items()},
    }
    if condition.field not in known:
        return False
    return any(compared(known[condition.field], condition.operator, value) for value in condition.values)


def compared(found: Scalar, operator: Operator, wanted: Scalar) -> bool:
    if operator in {"eq", "in"}:
        return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)
    if operator == "contains":
        return isinstance(found, str) and isinstance(wanted, str) and wanted in found
    if isinstance(found, str) and isinstance(wanted, str):
        order = (found > wanted) - (found < wanted)
    elif is_number(found) and is_number(wanted):
        order = (found > wanted) - (found < wanted)  # type: ignore[operator]
    else:
        return False
    return {"gt": order > 0, "gte": order >= 0, "lt": order < 0, "lte": order <= 0}[operator]


def is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def labels_of(rows: Sequence[MessageRow]) -> Labels:
    return Labels(
        np.array([row.ordinal for row in rows], np.uint32),
        [row.role for row in rows],
        [row.name for row in rows],
        [row.metadata for row in rows],
    )


@given(messages(), conditions, st.none() | st.sampled_from(TEXTS))
def test_a_session_that_cannot_hold_what_fits_holds_none(
    rows: list[MessageRow], condition: Condition, user: str | None
) -> None:
    session = MemoryReads().row()._replace(user_id=user)

    assert may_hold(condition, session) or not mask(condition, session, index_of(rows).rows, labels_of(rows)).any()


def test_what_the_session_decides_does_not_wait_for_its_messages() -> None:
    session = MemoryReads().row()._replace(user_id="ann")
    hers, said_by_user = Comparison("user_id", "eq", ["ann"]), Comparison("role", "eq", ["user"])

    assert may_hold(hers, session)
    assert may_hold(All([hers, said_by_user]), session)
    assert may_hold(Not(said_by_user), session)
    assert not may_hold(Not(hers), session)
    assert not may_hold(All([Not(hers), said_by_user]), session)
    assert not may_hold(Not(Some([hers, said_by_user])), session)


@given(messages(), conditions, st.none() | st.sampled_from(TEXTS))
def test_a_mask_says_of_each_row_what_the_definition_says(
    rows: list[MessageRow], condition: Condition, user: str | None
) -> None:
    session = MemoryReads().row()._replace(user_id=user)

    held = mask(condition, session, index_of(rows).rows, labels_of(rows))

    assert held.tolist() == [holds(condition, session, row) for row in rows]


def test_labels_and_rows_need_not_be_of_the_same_moment() -> None:
    rows = [said(ordinal, "tea") for ordinal in range(5)]
    wanted = Comparison("role", "eq", ["user"])

    later = mask(wanted, MemoryReads().row(), index_of(rows[:3]).rows, labels_of(rows))
    deleted = mask(wanted, MemoryReads().row(), index_of(rows).rows, labels_of([*rows[:1], *rows[3:]]))

    assert later.tolist() == [True] * 3
    assert deleted.tolist() == [True, False, False, True, True]


def labelled(reads: MemoryReads, text: str, session_key: int = 1, **metadata: Scalar) -> None:
    ordinal = reads.say(text, session_key=session_key)
    stored = reads.sessions[session_key].messages
    stored[ordinal] = stored[ordinal]._replace(metadata=metadata)


async def test_a_filter_reaches_to_the_last_row_of_the_scope() -> None:
    reads = MemoryReads()
    for number in range(600):
        labelled(reads, f"violin number {number}", 1 + number % 2)
    labelled(reads, "a lake", 2, place="north")

    async with searcher_of(reads) as searcher:
        scope = [reads.row(1), reads.row(2)]
        where = Comparison("metadata.place", "eq", ["north"])
        found = await searcher.search(scope, "violin", top_k=3, now_ms=None, where=where, explain=True)

    assert [hit.message.text for hit in found.hits] == ["a lake"]
    assert found.explained is not None
    assert (found.explained.sessions, found.explained.messages, found.explained.filtered_out) == (2, 601, 600)


async def test_a_filter_changes_neither_scores_nor_order() -> None:
    reads = MemoryReads()
    for number in range(40):
        labelled(reads, f"violin {'tea ' * (number % 5)}{number}", even=number % 2 == 0)

    async with searcher_of(reads) as searcher:
        everything = await searcher.search([reads.row()], "violin tea", top_k=40, now_ms=None)
        where = Comparison("metadata.even", "eq", [True])
        some = await searcher.search([reads.row()], "violin tea", top_k=5, now_ms=None, where=where)

    assert some.hits == [hit for hit in everything.hits if hit.message.metadata["even"]][:5]


async def test_labels_are_read_once_and_then_only_what_came_since() -> None:
    reads = MemoryReads()
    labels = LabelCache(reads)
    labelled(reads, "one", n=1)
    first = await labels.of(reads.row())
    again = await labels.of(reads.row())
    labelled(reads, "two", n=2)
    later = await labels.of(reads.row())

    assert first is again
    assert reads.asked == ["labels"] * 2
    assert [each["n"] for each in first.metadata] == [1]
    assert [each["n"] for each in later.metadata] == [1, 2]


async def test_labels_of_a_deleted_message_are_forgotten() -> None:
    reads = MemoryReads()
    labels = LabelCache(reads)
    for n in range(3):
        labelled(reads, "tea", n=n)
    await labels.of(reads.row())
    reads.delete(1)

    assert [each["n"] for each in (await labels.of(reads.row())).metadata] == [0, 2]


async def test_labels_of_long_sessions_are_read_in_pages_and_the_cache_has_a_bound() -> None:
    class Endless(MemoryReads):
        async def labels(self, session_key: int, *, first: int, limit: int) -> list[LabelRow]:
            self.asked.append("labels")
            return [LabelRow(n, "user", None, {"n": n}) for n in range(first, min(first + limit, 10_000))]

    reads = Endless()
    labels = LabelCache(reads, bytes_max=2_000_000)
    row = reads.row()._replace(next_ordinal=10_000)

    for key in (1, 2, 1):
        found = await labels.of(row._replace(session_key=key))
        assert len(found.ordinals) == 10_000
        assert [each["n"] for each in found.metadata] == list(range(10_000))

    assert labels.size_bytes < 2_000_000
    assert reads.asked == ["labels"] * 9
