"""The eraser: what is deleted leaves the log, the projections' file and the long-term store, whatever happens meanwhile."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engram.errors import StorageError
from engram.events import Event, MessageDeleted, SessionCreated, WorkAbandoned, decode
from engram.projections.eraser import ENTRIES_MAX, Eraser
from engram.projections.erasures import ERASED
from engram.projections.sqlite_store import PrimaryStore
from tests.projections.histories import (
    History,
    MemoryLog,
    apply,
    created,
    deleted,
    embedded,
    ended,
    entries_of,
    open_store,
    pinned,
    said,
    unpinned,
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[PrimaryStore]:
    opened = await open_store(tmp_path)
    yield opened
    await opened.close()


@asynccontextmanager
async def running(eraser: Eraser) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(eraser.run())
        await asyncio.sleep(0)
        yield
        task.cancel()


async def erased(store: PrimaryStore, history: History) -> MemoryLog:
    """Return the log of `history` after everything in it was erased that had to be."""
    log = MemoryLog(entries_of(history))
    await apply(store, log.committed)
    while await Eraser(log, store, None).clean_log():
        pass
    return log


def left(log: MemoryLog) -> list[list[str]]:
    """Return the names of the events that are left in each entry."""
    return [[type(event).__name__ for event in decode(e.data)] if e.data else [] for e in log.committed]


async def test_a_deleted_session_leaves_only_its_deletion(store: PrimaryStore) -> None:
    log = await erased(
        store,
        [
            created(),
            [said("m1"), embedded("m1")],
            said("m1"),
            said("m1", "in conflict"),
            created(agent_id="in conflict"),
            said("m1", session_id="t"),
            pinned("f1"),
            pinned("f1", "in conflict"),
            ended(),
        ],
    )

    assert left(log) == [[], [], [], [], [], ["MessageAppended"], [], [], ["SessionDeleted"]]


async def test_a_repetition_without_any_effect_goes_with_its_session(store: PrimaryStore) -> None:
    log = await erased(store, [created(), created(), ended()])

    assert left(log) == [[], [], ["SessionDeleted"]]


async def test_a_session_made_again_keeps_what_is_in_it(store: PrimaryStore) -> None:
    log = await erased(store, [said("m1"), ended(), said("m1"), said("m2")])

    assert left(log) == [[], ["SessionDeleted"], ["MessageAppended"], ["MessageAppended"]]


async def test_a_deleted_message_leaves_its_deletion_in_the_place_where_it_was(store: PrimaryStore) -> None:
    log = await erased(
        store,
        [
            created(),
            [said("m1"), embedded("m1"), said("m2"), embedded("m2"), said("m3")],
            [said("m4"), said("m2")],
            said("m2", "in conflict"),
            [embedded("m2", 2), embedded("m3", 2)],
            WorkAbandoned(session_id="s", at_ms=1, work="embedding", message_id="m4", error="away", attempts=1),
            deleted("m2"),
        ],
    )

    assert left(log)[1:] == [
        ["MessageAppended", "MessageEmbedded", "MessageDeleted", "MessageAppended"],
        ["MessageAppended", "MessageDeleted"],
        [],
        ["MessageDeleted", "MessageEmbedded"],
        ["WorkAbandoned"],
        ["MessageDeleted"],
    ]


async def test_a_session_that_began_with_a_deleted_message_still_began_there(store: PrimaryStore) -> None:
    log = await erased(store, [said("m1", at_ms=77), said("m2"), deleted("m1")])

    assert decode(log.committed[0].data) == [
        SessionCreated(session_id="s", at_ms=77),
        MessageDeleted(session_id="s", at_ms=77, message_id="m1"),
    ]


async def test_what_comes_after_a_deletion_under_its_id_is_erased_at_once(store: PrimaryStore) -> None:
    log = await erased(store, [said("m1"), deleted("m1"), [said("m2"), said("m1")], embedded("m1", 1)])

    assert left(log)[2:] == [[], []]


async def test_late_vectors_of_a_forgotten_session_are_erased_at_once(store: PrimaryStore) -> None:
    log = await erased(store, [said("m1"), ended(), embedded("m1", 1), said("m1"), embedded("m1", 1)])

    assert left(log)[2:] == [[], ["MessageAppended"], []]


async def test_deleting_a_message_that_never_counted_erases_the_refused_entries_that_carry_it(
    store: PrimaryStore,
) -> None:
    log = await erased(store, [said("m1"), [said("m1", "in conflict"), said("m2")], deleted("m2")])

    assert left(log) == [["MessageAppended"], [], ["MessageDeleted"]]


async def test_only_the_late_vectors_of_an_entry_go(store: PrimaryStore) -> None:
    log = await erased(store, [[said("m1"), said("m2")], deleted("m1"), [embedded("m1", 1), embedded("m2", 1)]])

    assert left(log)[2] == ["MessageEmbedded"]
    assert (await store.embedded_after(0, 9))[0].message_id == "m2"


async def test_an_unpinned_fact_leaves_the_log_with_its_repetitions(store: PrimaryStore) -> None:
    log = await erased(
        store,
        [
            pinned("f1", "a secret"),
            pinned("f2", "a secret"),
            pinned("f1", "in conflict"),
            pinned("f3", "kept"),
            unpinned("f1"),
            pinned("f1", "a secret"),
        ],
    )

    assert left(log) == [
        ["SessionCreated", "FactUnpinned"],
        [],
        [],
        ["FactPinned"],
        ["FactUnpinned"],
        ["FactPinned"],
    ]


async def test_a_very_long_session_is_erased_in_pieces(store: PrimaryStore) -> None:
    count = 2 * ENTRIES_MAX + 10
    log = await erased(store, [*(said(f"m{n}") for n in range(count)), ended()])

    assert [entry.index for entry in log.committed if entry.data != ERASED] == [count + 1]
    assert max(map(len, log.rewritten)) <= 2 * ENTRIES_MAX


async def test_several_deletions_in_one_entry_are_all_carried_out(store: PrimaryStore) -> None:
    log = await erased(store, [[said("m1"), said("m2"), said("m3")], deleted("m1"), deleted("m3")])

    assert left(log)[0] == ["SessionCreated", "MessageDeleted", "MessageAppended", "MessageDeleted"]
    assert len(log.rewritten) == 1


class FailingLog(MemoryLog):
    """Fails when it is rewritten; before or after the rewriting is durable."""

    after = False

    async def rewrite(self, payloads: Mapping[int, bytes]) -> None:
        if self.after:
            await super().rewrite(payloads)
        raise StorageError("no space left")


@pytest.mark.parametrize("after", [False, True])
async def test_an_erasure_cut_short_is_finished_after_a_restart(tmp_path: Path, *, after: bool) -> None:
    log = FailingLog(
        entries_of(
            [[said("m1"), said("m2")], pinned("f"), deleted("m1"), unpinned("f"), said("m", session_id="t"), ended("t")]
        )
    )
    log.after = after
    store = await open_store(tmp_path)
    await store.apply(log.committed)
    with pytest.raises(StorageError):
        await Eraser(log, store, None).clean_log()
    await store.close()

    survivor, whole = await open_store(tmp_path), MemoryLog(log.committed)
    assert not await survivor.is_log_clean(3)
    await Eraser(whole, survivor, None).clean_log()

    assert left(whole)[:2] == [["SessionCreated", "MessageDeleted", "MessageAppended"], ["FactUnpinned"]]
    assert left(whole)[4] == []
    assert await survivor.is_log_clean(3)
    await survivor.close()


class LongTerm:
    """A long-term store that forgets when it is let."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str | None, int]] = []
        self.may_forget = asyncio.Event()
        self.was_told = asyncio.Event()

    async def forget(self, session_id: str, tenant: str, message_id: str | None, up_to_index: int) -> None:
        self.told.append((session_id, tenant, message_id, up_to_index))
        self.was_told.set()
        await self.may_forget.wait()


async def test_a_deletion_is_answered_without_the_long_term_store(store: PrimaryStore) -> None:
    log, long_term = MemoryLog(entries_of([said("m1"), deleted("m1"), ended(), ended("never there")])), LongTerm()
    eraser = Eraser(log, store, long_term)
    await store.apply(log.committed)

    async with running(eraser):
        for index in (1, 2, 3, 4):
            await eraser.wait_erased(index)
        await long_term.was_told.wait()

        assert left(log) == [[], [], ["SessionDeleted"], ["SessionDeleted"]]
        assert len(await store.erasures(limit=9, log_is_clean=True)) == 3


async def test_the_long_term_store_is_told_until_it_has_forgotten(store: PrimaryStore) -> None:
    log, stuck, good = MemoryLog(entries_of([said("m1"), deleted("m1"), ended()])), LongTerm(), LongTerm()
    await store.apply(log.committed)
    async with running(Eraser(log, store, stuck)):
        await stuck.was_told.wait()

    good.may_forget.set()
    eraser = Eraser(log, store, good)
    await eraser.clean_long_term()

    assert good.told == [("s", "default", "m1", 2), ("s", "default", None, 3)]
    assert await store.erasures(limit=9, log_is_clean=True) == []


async def test_an_erasure_wakes_a_sleeping_eraser(store: PrimaryStore) -> None:
    log = MemoryLog(entries_of([said("m1")]))
    eraser = Eraser(log, store, None)
    await store.apply(log.committed)

    async with running(eraser):
        await eraser.wait_erased(1)
        await store.apply([log.append(deleted("m1"))])
        await eraser.wait_erased(2)

        assert left(log)[0] == ["SessionCreated", "MessageDeleted"]


async def test_the_long_term_store_hears_of_a_session_that_is_only_there(store: PrimaryStore) -> None:
    log, long_term = MemoryLog(), LongTerm()

    async with running(Eraser(log, store, long_term)):
        await store.erasures(limit=1, log_is_clean=True)  # the eraser has asked before, and sleeps
        await store.apply([log.append(ended("never there"))])
        await long_term.was_told.wait()

    assert long_term.told == [("never there", "default", None, 1)]


async def test_nothing_is_erased_before_the_log_knows_that_it_is_committed(store: PrimaryStore) -> None:
    entries = entries_of([said("m1"), ended()])
    await store.apply(entries)
    log = MemoryLog()  # as right after a start
    eraser = Eraser(log, store, None)

    async with running(eraser):
        assert not await store.is_log_clean(2)
        log.append(said("m1"))
        log.append(ended())
        await eraser.wait_erased(2)

    assert left(log) == [[], ["SessionDeleted"]]


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


SECRET_SESSIONS = [f"s{n}" for n in range(8)]


def secret_entries(seed: int) -> list[list[Event]]:
    """Return entries of secret and other sessions, in a random order and of very different sizes, some deleted again.

    Rows of every size that come and go make SQLite move other rows between pages, and leave copies of them behind.
    """
    rng = random.Random(seed)
    entries: list[list[Event]] = []
    for n in range(800):
        is_secret = rng.random() < 0.5
        session_id = rng.choice(SECRET_SESSIONS) if is_secret else f"t{rng.randrange(8)}"
        text = ("MARK" if is_secret else "kept") * rng.choice([1, 5, 50, 500]) + str(n)
        if rng.random() < 0.1:
            entries.append([pinned(f"f{n}", text, session_id=session_id)])
        elif rng.random() < 0.1:
            entries.append([deleted(f"m{rng.randrange(n + 1)}", session_id=session_id)])
        else:
            entries.append([said(f"m{n}", text, session_id=session_id), embedded(f"m{n}", session_id=session_id)])
    return entries


@pytest.mark.parametrize("seed", range(3))
async def test_no_byte_of_a_deleted_text_stays_in_the_files(tmp_path: Path, seed: int) -> None:
    entries = secret_entries(seed)
    log = MemoryLog(entries_of([*entries, *(ended(session_id) for session_id in SECRET_SESSIONS)]))
    store = await open_store(tmp_path)
    await apply(store, log.committed[: len(entries)], batch=7)
    await store.conversation("s1")
    before = bytes_of(tmp_path)

    await apply(store, log.committed[len(entries) :], batch=3)
    eraser = Eraser(log, store, None)
    async with running(eraser):
        await eraser.wait_erased(len(log.committed))
        after = bytes_of(tmp_path)
    await store.close()

    assert b"MARK" in before
    assert b"MARK" not in after
    assert b"kept" in after
    assert not any(b"MARK" in entry.data for entry in log.committed)


async def test_no_byte_of_a_deleted_message_stays_in_the_files(tmp_path: Path) -> None:
    rng = random.Random(1)
    messages = [said(f"m{n}", f"MARK{n:03d} " * rng.choice([1, 5, 30, 150])) for n in range(600)]
    doomed = rng.sample(range(600), 500)
    log = MemoryLog(entries_of(messages))
    store = await open_store(tmp_path)
    await apply(store, log.committed, batch=5)

    gone, found = set[int](), set[int]()
    for start in range(0, len(doomed), 50):
        for n in doomed[start : start + 50]:
            await store.apply([log.append(deleted(f"m{n}"))])
        gone.update(doomed[start : start + 50])
        await Eraser(log, store, None).clean_log()
        found |= gone.intersection(map(int, re.findall(rb"MARK(\d{3})", bytes_of(tmp_path))))
    await store.close()

    assert found == set()


async def test_no_byte_of_an_unpinned_fact_stays_in_the_files(tmp_path: Path) -> None:
    """Facts of all sizes, some in overflow pages; some unpinned in the batch that pinned them, and some in one entry."""
    rng = random.Random(1)
    log = MemoryLog(entries_of([created()]))
    store = await open_store(tmp_path)
    await apply(store, log.committed)
    there, gone, found, seen = list[int](), set[int](), set[int](), b""

    for round_number in range(40):
        new = range(round_number * 10, round_number * 10 + 10)
        texts = {n: f"MARK{n:03d} " * rng.choice([1, 5, 30, 700]) for n in new}
        pins = [pinned(f"f{n}", text) for n, text in texts.items()]
        there += new
        rng.shuffle(there)
        going = [there.pop() for _ in range(min(len(there), rng.choice([3, 8, 15])))]
        entries = [log.append(pin) for pin in pins[:4]]
        entries.append(log.append(*pins[4:], unpinned(f"f{going[0]}")))
        entries += [log.append(unpinned(f"f{n}")) for n in going[1:]]
        await apply(store, entries, batch=rng.choice([1, 7, 100]))
        gone.update(going)
        seen += bytes_of(tmp_path)
        while await Eraser(log, store, None).clean_log():
            pass
        found |= gone.intersection(map(int, re.findall(rb"MARK(\d{3})", bytes_of(tmp_path))))
    left_in_log = re.findall(rb"MARK(\d{3})", b"".join(entry.data for entry in log.committed))
    facts = await store.facts(1)
    await store.close()

    assert found == set()
    assert set(map(int, left_in_log)) == set(there) == {int(fact.fact_id[1:]) for fact in facts}
    assert gone <= set(map(int, re.findall(rb"MARK(\d{3})", seen)))


async def test_an_unpinned_fact_takes_nothing_else_with_it(store: PrimaryStore) -> None:
    log = await erased(
        store,
        [
            [pinned("f1", "a"), pinned("f2", "b")],
            [said("m1"), pinned("f2", "a"), pinned("f3", "b")],
            [unpinned("f2"), pinned("f4", "b")],
        ],
    )

    assert left(log) == [
        ["FactPinned", "FactUnpinned"],
        ["MessageAppended", "FactPinned", "FactUnpinned"],
        ["FactUnpinned", "FactPinned"],
    ]


async def test_an_entry_that_contradicts_itself_is_erased_at_once(store: PrimaryStore) -> None:
    log = await erased(store, [created(), [pinned("f1", "a"), pinned("f1", "b")]])

    assert left(log) == [["SessionCreated"], []]


@pytest.mark.parametrize("batch", [1, 2, 3])
async def test_a_fact_of_a_session_that_ends_with_it_is_erased_whatever_the_batches(tmp_path: Path, batch: int) -> None:
    log = MemoryLog(entries_of([pinned("f1", "MARK"), unpinned("f1"), ended()]))
    store = await open_store(tmp_path)
    await apply(store, log.committed, batch=batch)

    while await Eraser(log, store, None).clean_log():
        pass

    assert b"MARK" not in bytes_of(tmp_path)
    await store.close()
    assert left(log)[0] == []
