"""Whatever part of the old history is reduced, and whenever: readers find the same state from the horizon on."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from engram.events import Event, FactPinned, MessageAppended, MessageEmbedded, decode
from engram.projections.eraser import Eraser
from engram.projections.erasures import ERASED
from engram.projections.ledger import Decoded
from engram.projections.retention import reductions
from engram.projections.sqlite_store import PrimaryStore
from tests.projections.histories import (
    Entry,
    MemoryLog,
    apply,
    deleted,
    embedded,
    ended,
    open_store,
    pinned,
    said,
    scratch_folder,
    unpinned,
)
from tests.property.test_projections import ENTRIES, EVERYTHING_FORGOTTEN, as_log, folded

SESSIONS = st.sampled_from(["s1", "s2"])
MESSAGES = st.sampled_from(["m1", "m2", "m3"])


@st.composite
def embedded_again(draw: st.DrawFn) -> list[list[Event]]:
    """A message, and vectors of it that come later, once or more often, beside those of another one."""
    session_id, message_id, index = draw(SESSIONS), draw(MESSAGES), draw(st.integers(1, 8))
    models = draw(st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=3))
    again: list[list[Event]] = [[embedded(message_id, index, session_id=session_id, model=model)] for model in models]
    return [[said(message_id, session_id=session_id), embedded(message_id, session_id=session_id)], *again]


PIECES = st.one_of(ENTRIES.map(lambda entry: [entry]), embedded_again())
HISTORIES = st.lists(PIECES, min_size=1, max_size=12).map(lambda pieces: [entry for piece in pieces for entry in piece])


def decoded(entries: Sequence[Entry]) -> list[Decoded]:
    return [Decoded(entry.index, decode(entry.data) if entry.data else ()) for entry in entries]


async def reduce(
    store: PrimaryStore, log: MemoryLog, horizon: int, chosen: Sequence[bool] = (True,)
) -> dict[int, bytes]:
    """Reduce the entries up to the horizon that are chosen (the choice repeats); return what was written."""
    old = decoded(log.committed[:horizon])
    changed = reductions(old, await store.standing(old), horizon)
    written = {index: data for n, (index, data) in enumerate(changed.items()) if chosen[n % len(chosen)]}
    if written:
        await log.rewrite(written)
    return written


@dataclass(frozen=True)
class Case:
    """A history, a horizon in it, and which of the entries that may be reduced are."""

    entries: list[Entry]
    horizon: int
    chosen: list[bool]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    entries = as_log(draw(HISTORIES))
    horizon = draw(st.integers(1, len(entries)))
    return Case(entries, horizon, draw(st.lists(st.booleans(), min_size=1, max_size=6)))


REPLACED_BEHIND_THE_HORIZON = Case(
    as_log([[said("m1"), embedded("m1")], [embedded("m1", 1, model="b")], [said("m1")], [said("m1", "other")]]),
    1,
    [True],
)
MADE_AGAIN_BEHIND_THE_HORIZON = Case(as_log([[said("m1")], [ended()], [said("m2")]]), 1, [True])
REPEATED_BESIDE_SOMETHING_NEW = Case(
    as_log([[said("m1"), embedded("m1")], [said("m1"), embedded("m1"), said("m2"), pinned("f1")], [pinned("f2")]]),
    3,
    [True],
)


@given(cases())
@example(REPLACED_BEHIND_THE_HORIZON)
@example(REPEATED_BESIDE_SOMETHING_NEW)
@example(MADE_AGAIN_BEHIND_THE_HORIZON)
def test_a_reduced_history_folds_to_the_same_state_at_every_index_from_the_horizon_on(case: Case) -> None:
    async def check() -> None:
        log = MemoryLog(case.entries)
        with scratch_folder() as folder:
            store = await open_store(Path(folder))
            await apply(store, case.entries)
            await reduce(store, log, case.horizon, case.chosen)
            await store.close()
        for index in {case.horizon, (case.horizon + len(case.entries)) // 2, len(case.entries)}:
            left = log.committed[:index]
            assert await folded(left) == await folded(case.entries[:index]), [entry.data for entry in left]

    asyncio.run(check())


@given(cases())
def test_what_is_reduced_by_a_store_that_folded_the_reduced_history_is_what_the_first_one_left(case: Case) -> None:
    """A node that was rebuilt, or has the history from another one, goes on where that one stopped."""

    async def check() -> tuple[list[Entry], list[Entry], Mapping[int, bytes]]:
        logs: list[MemoryLog] = []
        more: Mapping[int, bytes] = {}
        for choices in ([case.chosen, [True]], [[True]]):
            log = MemoryLog(case.entries)
            for chosen in choices:
                with scratch_folder() as folder:
                    store = await open_store(Path(folder))
                    await apply(store, log.committed)
                    await reduce(store, log, case.horizon, chosen)
                    more = await reduce(store, log, case.horizon) if chosen == [True] else {}
                    await store.close()
            logs.append(log)
        return logs[0].committed, logs[1].committed, more

    twice, once, more = asyncio.run(check())

    assert twice == once
    assert more == {}


async def erase_all(log: MemoryLog, store: PrimaryStore) -> None:
    while await Eraser(log, store, None).clean_log():
        pass


@given(cases(), st.lists(st.sampled_from(["reduce", "erase"]), max_size=4), st.integers(1, 8))
def test_reducing_and_erasing_do_not_stand_in_each_others_way(case: Case, order: list[str], every: int) -> None:
    """They take turns while the history grows, in any order; what is left folds to what was folded."""

    async def check() -> None:
        log = MemoryLog(case.entries)
        with scratch_folder() as folder:
            store = await open_store(Path(folder))
            for start in range(0, len(case.entries), every):
                await store.apply(case.entries[start : start + every])
                for turn in order:
                    if turn == "reduce":
                        await reduce(store, log, min(store.applied_index, case.horizon), case.chosen)
                    else:
                        await erase_all(log, store)
            kept = await store.digest()
            await store.close()
        assert kept == await folded(case.entries)
        assert await folded(log.committed) == kept, [entry.data for entry in log.committed]

    asyncio.run(check())


@given(HISTORIES, st.sampled_from(EVERYTHING_FORGOTTEN), st.integers(1, 8))
def test_nothing_of_a_reduced_history_is_left_once_all_of_it_is_forgotten(
    history: list[list[Event]], deletions: list[list[Event]], every: int
) -> None:
    async def check() -> MemoryLog:
        entries = as_log([*history, *deletions])
        log = MemoryLog(entries)
        with scratch_folder() as folder:
            store = await open_store(Path(folder))
            for start in range(0, len(entries), every):
                await store.apply(entries[start : start + every])
                await reduce(store, log, store.applied_index)
                await erase_all(log, store)
            await store.close()
        return log

    log = asyncio.run(check())

    left = [event for entry in log.committed if entry.data != ERASED for event in decode(entry.data)]
    assert not any(isinstance(event, MessageAppended | MessageEmbedded | FactPinned) for event in left)


def test_the_histories_hold_what_can_be_reduced() -> None:
    """The properties above would hold for a reduction that does nothing: it does something to these."""

    async def check() -> dict[int, bytes]:
        entries = as_log(
            [
                [said("m1"), embedded("m1")],
                [embedded("m1", 1, model="b")],
                [said("m1")],
                [said("m1", "other")],
                [deleted("m1")],
                [unpinned("f1")],
                [ended("s1")],
            ]
        )
        with scratch_folder() as folder:
            store = await open_store(Path(folder))
            await apply(store, entries[:4])
            changed = await reduce(store, MemoryLog(entries), 4)
            await store.close()
        return changed

    changed = asyncio.run(check())

    assert {index: bool(data) for index, data in changed.items()} == {1: True, 3: False, 4: False}
