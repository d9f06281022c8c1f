"""The worker that embeds what waits, against a server that fails in every way."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from engram.errors import NoLeaderError
from engram.events import Event, encode
from engram.inference.openai_embedder import CHUNK_BYTES_MAX, OpenAIEmbedder
from engram.projections.verdicts import Outcome, Verdict
from engram.recorder import Receipt
from engram.workers.batches import BATCH_CHUNKS_MAX, PROBE
from engram.workers.embedding import ATTEMPTS_MAX, OUTAGE_BACKOFF_MAX_S, EmbeddingWorker
from tests.fake_openai import FakeOpenAI, Fault, hangs, refuses, resets, vector, waits_for_company, works
from tests.workers.memory import AT_MS, Clock, Memory, Naps, Notes

DIMENSION = 8
LONG_S = 10_000.0


class Rig:
    """A worker with all that it needs."""

    def __init__(self, server: FakeOpenAI) -> None:
        self.server = server
        self.clock = Clock()
        self.notes = Notes()
        self.naps = Naps()
        self.leads = True
        self.embedder = OpenAIEmbedder(
            model="fake-model",
            dimension=DIMENSION,
            sends_dimension=False,
            base_url=server.url,
            api_key=None,
            clock=self.clock,
            rng=random.Random(1),
            tries_max=1,
        )

    def worker(
        self, memory: Memory, *, claim_max: int = 1000, max_concurrency: int = 4, idle_s: float = LONG_S
    ) -> EmbeddingWorker:
        return EmbeddingWorker(
            memory,
            memory,
            self.embedder,
            self.clock,
            random.Random(2),
            max_concurrency=max_concurrency,
            claim_max=claim_max,
            observer=self.notes,
            leads=lambda: self.leads,
            sleep=self.naps,
            idle_s=idle_s,
        )


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with FakeOpenAI(DIMENSION) as server:
        made = Rig(server)
        yield made
        await made.embedder.close()


def numbered(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


async def test_every_message_that_waits_gets_its_vector(rig: Rig) -> None:
    memory = Memory(["one", "two"])

    assert await rig.worker(memory).embed_pending()

    event = memory.vectors["m1"]
    assert (event.model, event.dimension, event.source_index, event.at_ms) == ("fake-model", DIMENSION, 2, AT_MS)
    (chunk,) = event.chunks
    assert (chunk.start, chunk.end) == (0, 3)
    wanted = vector("two", DIMENSION)
    np.testing.assert_allclose(np.frombuffer(chunk.vector, "<f2"), wanted / np.linalg.norm(wanted), atol=1e-3)


async def test_nothing_to_do_is_nothing_done(rig: Rig) -> None:
    assert not await rig.worker(Memory()).embed_pending()
    assert rig.server.requests == []


async def test_a_follower_leaves_it_to_the_leader(rig: Rig) -> None:
    rig.leads = False

    assert not await rig.worker(Memory(["one"])).embed_pending()
    assert rig.server.requests == []


async def test_messages_are_embedded_together(rig: Rig) -> None:
    await rig.worker(Memory(numbered(BATCH_CHUNKS_MAX + 1))).embed_pending()

    assert sorted(len(request.texts) for request in rig.server.requests) == [1, BATCH_CHUNKS_MAX]


async def test_a_pass_takes_on_no_more_than_it_may(rig: Rig) -> None:
    memory = Memory(numbered(10))

    await rig.worker(memory, claim_max=4).embed_pending()

    assert len(memory.waiting()) == 6


async def test_requests_in_flight_are_bounded(rig: Rig) -> None:
    memory = Memory(numbered(8 * BATCH_CHUNKS_MAX))
    rig.server.always = waits_for_company

    await rig.worker(memory, claim_max=10_000, max_concurrency=2).embed_pending()

    assert memory.waiting() == []
    assert rig.server.in_flight_max == 2


async def test_a_long_text_gets_a_vector_a_chunk_in_one_event(rig: Rig) -> None:
    text = "A sentence of a few words. " * 1_000
    memory = Memory([text])

    await rig.worker(memory).embed_pending()

    chunks = memory.vectors["m0"].chunks
    assert [text[chunk.start : chunk.end] for chunk in chunks] == rig.server.texts
    assert "".join(rig.server.texts) == text
    assert max(len(chunk) for chunk in rig.server.texts) <= CHUNK_BYTES_MAX


async def test_white_space_between_chunks_is_not_sent(rig: Rig) -> None:
    await rig.worker(Memory(["start" + " " * 3 * CHUNK_BYTES_MAX + "end"])).embed_pending()

    assert all(text.strip() for text in rig.server.texts)
    assert {text.strip() for text in rig.server.texts} == {"start", "end"}


async def test_an_entry_holds_messages_of_one_session(rig: Rig) -> None:
    memory = Memory(numbered(6), sessions=3)

    await rig.worker(memory).embed_pending()

    assert sorted(len(entry) for entry in memory.entries) == [2, 2, 2]
    assert all(encode(entry) for entry in memory.entries)


async def test_calls_are_measured_by_model(rig: Rig) -> None:
    await rig.worker(Memory(["one"])).embed_pending()

    assert rig.notes.calls == [("fake-model", 0.0)]


@pytest.mark.parametrize("place", [0, 37, 99])
async def test_a_poisoned_message_does_not_spoil_its_batch(place: int, rig: Rig) -> None:
    texts = numbered(100)
    texts[place] = "poison"
    rig.server.poison = "poison"
    memory = Memory(texts)

    await rig.worker(memory).embed_pending()

    assert set(memory.abandoned) == {f"m{place}"}
    assert len(memory.vectors) == 99
    assert rig.notes.given_up == ["embedding"]
    assert len(rig.server.requests) < 20


async def test_what_is_said_of_a_message_given_up_holds_none_of_its_text(rig: Rig) -> None:
    rig.server.poison = "secret"
    memory = Memory(["my secret"])

    await rig.worker(memory).embed_pending()

    event = memory.abandoned["m0"]
    assert event.error == "the embedder answered 400: it refuses the request"
    assert (event.work, event.attempts, event.at_ms) == ("embedding", 1, AT_MS)


async def test_a_message_that_may_yet_succeed_is_tried_again_later_then_given_up(rig: Rig) -> None:
    rig.server.poison, rig.server.poison_status = "poison", 500
    memory = Memory(["poison", "fine"])
    worker = rig.worker(memory)

    await worker.embed_pending()
    assert set(memory.vectors) == {"m1"}
    assert not await worker.embed_pending()
    for _ in range(ATTEMPTS_MAX - 1):
        assert memory.abandoned == {}
        rig.clock.now_s += LONG_S
        await worker.embed_pending()

    assert memory.abandoned["m0"].attempts == ATTEMPTS_MAX


async def test_a_message_that_succeeds_in_the_end_is_not_given_up(rig: Rig) -> None:
    rig.server.poison, rig.server.poison_status = "poison", 500
    memory = Memory(["poison"])
    worker = rig.worker(memory)
    await worker.embed_pending()

    rig.server.poison = None
    rig.clock.now_s += LONG_S
    await worker.embed_pending()

    assert set(memory.vectors) == {"m0"}
    assert memory.abandoned == {}


@pytest.mark.parametrize("fault", [refuses(500), refuses(429), refuses(429, "40"), refuses(401), refuses(404), resets])
async def test_an_outage_is_no_messages_fault(fault: Fault, rig: Rig) -> None:
    rig.server.always = fault
    memory = Memory(numbered(300))
    worker = rig.worker(memory, max_concurrency=1)

    for _ in range(2 * ATTEMPTS_MAX):
        rig.clock.now_s += LONG_S
        await worker.embed_pending()

    assert memory.abandoned == {}
    assert len(rig.server.requests) <= 4 * ATTEMPTS_MAX
    rig.server.always = None
    await worker.embed_pending()
    assert memory.waiting() == []


async def test_what_was_embedded_before_an_outage_is_kept(rig: Rig) -> None:
    memory = Memory(numbered(3 * BATCH_CHUNKS_MAX))
    rig.server.faults.append(works)
    rig.server.always = refuses(500)

    await rig.worker(memory, max_concurrency=1).embed_pending()

    assert len(memory.vectors) == BATCH_CHUNKS_MAX
    assert rig.server.texts[-1] == PROBE
    assert len(rig.server.requests) < 12


async def test_a_log_that_is_away_leaves_everything_waiting(rig: Rig) -> None:
    memory = Memory(numbered(10), sessions=5)
    memory.away = NoLeaderError("an election is under way")
    rig.server.poison = "text 3"
    worker = rig.worker(memory)

    await worker.embed_pending()

    assert len(memory.waiting()) == 10
    assert rig.notes.given_up == []
    memory.away = None
    await worker.embed_pending()
    assert memory.waiting() == []


async def test_a_message_forgotten_meanwhile_is_left_at_that(rig: Rig) -> None:
    memory = Memory(["one", "two"])
    forgotten = memory.messages[0]
    rig.server.faults.append(hangs)
    worker = rig.worker(memory)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.embed_pending())
        tasks.create_task(forget_while_embedding(rig.server, memory))

    assert forgotten not in memory.messages
    assert set(memory.vectors) == {"m1"}
    assert not await worker.embed_pending()


async def forget_while_embedding(server: FakeOpenAI, memory: Memory) -> None:
    await server.reached.wait()
    del memory.messages[0]
    server.released.set()


class Deaf(Memory):
    """A ledger that takes no vectors."""

    async def record(self, events: Sequence[Event]) -> Receipt:
        self.entries.append(events)
        return Receipt(1, [Verdict(Outcome.CONFLICT, 0) for _ in events])


async def test_vectors_that_do_not_count_are_not_bought_for_ever(rig: Rig) -> None:
    worker = rig.worker(Deaf(["one"]))

    assert await worker.embed_pending()
    assert not await worker.embed_pending()
    assert len(rig.server.requests) == 1


async def test_the_worker_goes_on_after_a_restart_with_what_still_waits(rig: Rig) -> None:
    memory = Memory(numbered(10))
    await rig.worker(memory, claim_max=4).embed_pending()

    await run_until(rig.worker(memory), memory)

    assert sorted(rig.server.texts) == sorted(numbered(10))


async def run_until(worker: EmbeddingWorker, memory: Memory) -> None:
    """Run `worker` until nothing waits."""
    running = asyncio.get_running_loop().create_task(worker.run())
    try:
        await memory.changed.wait()
    finally:
        running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_new_message_wakes_the_worker(rig: Rig) -> None:
    memory = Memory()
    worker = rig.worker(memory)

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(run_until(worker, memory))
        await memory.looked.wait()
        memory.append("one")
        worker.wake()
        await waiting

    assert set(memory.vectors) == {"m0"}


async def test_the_worker_looks_again_by_itself(rig: Rig) -> None:
    memory = Memory()

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(run_until(rig.worker(memory, idle_s=0.001), memory))
        await memory.looked.wait()
        memory.append("one")
        await waiting

    assert memory.looks >= 2


async def test_waits_grow_while_an_outage_lasts(rig: Rig) -> None:
    memory = Memory(["one"])
    rig.server.always = refuses(500)

    def recover_in_the_end() -> None:
        if len(rig.naps.taken_s) == 9:
            rig.server.always = None

    rig.naps = Naps(recover_in_the_end)
    await run_until(rig.worker(memory), memory)

    naps = rig.naps.taken_s
    assert len(naps) == 9
    assert 0.5 <= naps[0] <= 1.5
    assert 0.5 * OUTAGE_BACKOFF_MAX_S <= naps[-1] <= 1.5 * OUTAGE_BACKOFF_MAX_S
    assert set(memory.vectors) == {"m0"}


async def test_a_server_that_asks_for_a_long_wait_gets_it(rig: Rig) -> None:
    rig.server.faults.append(refuses(429, "300"))
    memory = Memory(["one"])

    await run_until(rig.worker(memory), memory)

    assert rig.naps.taken_s == [300.0]
