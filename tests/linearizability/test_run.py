"""One short history of a real cluster, and one that asks for less than it is judged by."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.cluster_process import Cluster
from tests.linearizability.clients import Habits
from tests.linearizability.exchange import LOCAL
from tests.linearizability.history import READS, Outcome
from tests.linearizability.judge import judge
from tests.linearizability.run import PLAN, record
from tests.linearizability.wgl import Verdict

PATIENT = replace(PLAN, heartbeat_ms=50, election_ms=300)
HABITS = Habits(timeout_s=1.0)


@pytest.mark.thorough
@pytest.mark.timeout(180)
async def test_a_history_under_faults_is_linearizable_and_one_of_local_reads_is_not(tmp_path: Path) -> None:
    async with Cluster.running(tmp_path, PATIENT, random.Random(7)) as cluster:
        history, problem = await record(cluster, "mix", 7, HABITS)
        stale, stale_problem = await record(cluster, "partition-follower", 8, replace(HABITS, level=LOCAL))

    assert (problem, stale_problem) == ("", "")
    judgement = judge(history.operations)
    assert judgement.faults == []
    assert judgement.verdict is Verdict.LINEARIZABLE
    assert any(operation.outcome is Outcome.UNKNOWN for operation in history.operations)
    final_reads = [op for op in history.operations[-30:] if isinstance(op.request, READS) and op.reply is not None]
    assert {operation.nodes[0] for operation in final_reads} == {1, 2, 3}
    assert judge(stale.operations).verdict is Verdict.VIOLATION
