"""The exposition: exact names, and gauges that are read when somebody scrapes."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engram.metrics import LAG_PERIOD_S, Exposition, Metrics, NodeState, watch_loop_lag

STATE = NodeState(
    term=3,
    commit_index=12,
    applied_index=11,
    base_index=4,
    is_leader=True,
    embedding_queue_size=2,
    projection_lag_entries={"primary": 1, "lancedb": 5},
    digest_index=11,
    digests={"messages": 0xFFFF_FFFF},
)


class SteppingClock:
    """Each look at it is `step_s` later than the last."""

    def __init__(self, step_s: float) -> None:
        self.shown_s = 0.0
        self.step_s = step_s

    def now_ms(self) -> int:
        return 0

    def monotonic_s(self) -> float:
        self.shown_s += self.step_s
        return self.shown_s


def samples(exposition: Exposition) -> dict[str, float]:
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(exposition.body.decode())
        for sample in family.samples
    }


async def test_gauges_show_the_node_as_it_is_at_the_scrape() -> None:
    metrics = Metrics(version="1.2.3")
    states = [STATE, STATE._replace(commit_index=13)]

    async def read() -> NodeState:
        return states.pop(0)

    metrics.watch(read)
    first, second = samples(await metrics.scrape()), samples(await metrics.scrape())

    assert first["engram_raft_term"] == 3
    assert first["engram_raft_applied_index"] == 11
    assert first["engram_raft_is_leader"] == 1
    assert first["engram_snapshot_last_index"] == 4
    assert first["engram_memory_embedding_queue_size"] == 2
    assert first["engram_projection_lag_entries{lancedb}"] == 5
    assert first["engram_read_model_digest{messages}"] == 0xFFFF_FFFF
    assert first["engram_read_model_digest_index"] == 11
    assert (first["engram_raft_commit_index"], second["engram_raft_commit_index"]) == (12, 13)


async def test_a_change_of_leader_counts_once() -> None:
    metrics = Metrics(version="1.2.3")

    for leader_id in (1, 0, 2):
        metrics.led_by(leader_id)

    assert samples(metrics.render())["engram_raft_leader_changes_total"] == 2


async def test_snapshots_are_counted_by_whose_they_are() -> None:
    metrics = Metrics(version="1.2.3")

    metrics.snapshot_built()
    metrics.snapshot_built()
    metrics.snapshot_installed()

    after = samples(metrics.render())
    assert (after["engram_snapshot_build_total"], after["engram_snapshot_install_total"]) == (2, 1)


def test_the_queue_is_one_plain_line() -> None:
    """Scripts read the first line that is the name and a number."""
    lines = Metrics(version="1").render().body.decode().splitlines()

    assert "engram_memory_embedding_queue_size 0.0" in lines


def test_counters_have_no_second_series() -> None:
    metrics = Metrics(version="1")
    metrics.messages_added_total.labels("user").inc()

    assert b"_created" not in metrics.render().body


def test_openmetrics_is_given_when_asked_for() -> None:
    metrics = Metrics(version="1")

    assert metrics.render().content_type.startswith("text/plain")
    assert metrics.render("application/openmetrics-text; version=1.0.0").content_type.startswith(
        "application/openmetrics-text"
    )
    assert metrics.render("application/openmetrics-text; version=1.0.0").body.endswith(b"# EOF\n")


def test_the_version_is_told() -> None:
    assert b'version="1.2.3"' in Metrics(version="1.2.3").render().body


def test_flushes_and_commits_are_timed() -> None:
    metrics = Metrics(version="1")

    metrics.synced(0.001, 3)
    metrics.synced(0.001, 0)
    metrics.committed(0.002)

    found = samples(metrics.render())
    assert found["engram_log_fsync_duration_seconds_count"] == 2
    assert (found["engram_log_batch_entries_count"], found["engram_log_batch_entries_sum"]) == (1, 3)
    assert found["engram_commit_duration_seconds_count"] == 1


def test_what_the_edges_say_is_counted() -> None:
    metrics = Metrics(version="1")

    metrics.answered("GET", "/sessions/{session_id}/context", 200, 0.004)
    metrics.messages_added("user", 3)
    metrics.context_read(0.003)
    metrics.embedded("small", 0.002)
    metrics.abandoned("embedding")
    metrics.searched("load", 0.001)
    metrics.searched("rank", 0.001)

    found = samples(metrics.render())
    assert found["engram_http_requests_total{GET}{/sessions/{session_id}/context}{200}"] == 1
    assert found["engram_http_request_duration_seconds_sum{GET}{/sessions/{session_id}/context}"] == 0.004
    assert found["engram_memory_messages_added_total{user}"] == 3
    assert found["engram_memory_context_requests_total"] == found["engram_context_duration_seconds_count"] == 1
    assert found["engram_memory_embedding_duration_seconds_count{small}"] == 1
    assert found["engram_work_abandoned_total{embedding}"] == 1
    assert found["engram_search_duration_seconds_count{load}"] == 1
    assert found["engram_memory_vector_search_duration_seconds_count{recall}"] == 1


def test_what_befalls_the_long_term_store_is_counted() -> None:
    metrics = Metrics(version="0")
    metrics.stored(7, 0.5)
    metrics.optimized(2.0)
    metrics.failed("write")
    metrics.failed("write")
    metrics.retried()

    found = samples(metrics.render())
    name = "engram_memory_long_term_store"
    assert found[f"{name}_rows_total"] == 7.0
    assert found[f"{name}_errors_total{{write}}"] == 2.0
    assert found[f"{name}_retries_total"] == 1.0
    assert found[f"{name}_duration_seconds_sum{{optimize}}"] == 2.0
    assert found[f"{name}_duration_seconds_count{{write}}"] == 1.0


def test_two_nodes_in_one_process_count_apart() -> None:
    one, other = Metrics(version="1"), Metrics(version="1")

    one.context_requests_total.inc()

    assert samples(other.render())["engram_memory_context_requests_total"] == 0


async def test_a_late_timer_is_seen() -> None:
    metrics = Metrics(version="1")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2.5 * LAG_PERIOD_S):
            await watch_loop_lag(metrics, SteppingClock(LAG_PERIOD_S + 0.5))

    found = samples(metrics.render())
    assert found["engram_event_loop_lag_seconds_count"] == 2
    assert found["engram_event_loop_lag_seconds_sum"] == 1.0
