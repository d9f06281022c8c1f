"""The quality benchmarks run against a real node and leave the files that they promise."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from benchmarks import beam_engram, locomo_engram, longmemeval_engram, quality_speed, quality_summary
from tests.benchmarks import quality_sets
from tests.benchmarks.quality_sets import write
from tests.fake_openai import FakeOpenAI
from tests.server_process import PROJECT, ServerProcess, find_free_port

Main = Callable[[Sequence[str]], int]

POLL_S = 0.02


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ServerProcess(tmp_path_factory.mktemp("node"), find_free_port()) as server:
        yield server.url


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def rows_of(out: Path) -> list[Any]:
    """Return what a run has written of its results by now."""
    path = out / "retrieval_results.json"
    return list(read(path)) if path.exists() else []


def sessions(url: str) -> list[Any]:
    with urllib.request.urlopen(f"{url}/sessions", timeout=10) as answer:
        return list(json.load(answer)["sessions"])


def forget(url: str, session_id: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{url}/sessions/{session_id}", method="DELETE"), timeout=10).close()


def arguments(url: str, dataset: Path, out: Path, *others: str) -> list[str]:
    return ["--engram-url", url, "--dataset", str(dataset), "--output-dir", str(out), "--no-plot", *others]


@pytest.mark.thorough
def test_longmemeval_starts_a_node_and_writes_its_results(tmp_path: Path) -> None:
    dataset = write(tmp_path / "lme.json", quality_sets.longmemeval())
    url = f"http://127.0.0.1:{find_free_port()}"
    out = tmp_path / "out"

    code = longmemeval_engram.main(arguments(url, dataset, out, "--start-engram", "--plot"))

    metrics = read(out / "retrieval_metrics.json")
    found, without_answer = read(out / "retrieval_results.json")
    assert code == 0
    assert found["ranked_session_ids"][0] == "s1-3"
    assert found["metrics"]["turn_recall_all@5"] == found["baselines"]["plain BM25"]["metrics"]["turn_mrr"] == 1
    assert without_answer["metrics"] == {}
    assert {name: metrics[name] for name in ("questions_total", "questions_evaluated", "session_recall_any@5")} == {
        "questions_total": 2,
        "questions_evaluated": 1,
        "session_recall_any@5": 1.0,
    }
    assert list(metrics["by_question_type"]) == ["single-session-user"]
    assert {"engram", "plain BM25", "plain vectors"} == metrics["methods"]["session"].keys()
    assert "| session recall_any@5 >= 0.96 | 1.000 | 0.960 | met |" in (out / "retrieval_summary.md").read_text()


def test_a_marker_is_never_found(url: str, tmp_path: Path) -> None:
    dataset = write(tmp_path / "lme.json", quality_sets.longmemeval(1))
    out = tmp_path / "out"

    longmemeval_engram.main(arguments(url, dataset, out, "--top-k", "200"))

    [row] = read(out / "retrieval_results.json")
    assert row["messages"] == 7 + 4
    assert len(row["ranked_turn_ids"]) == 7
    markers = [item["source_session_ids"] for item in row["ranked_items"] if "marker-" in item["id"]]
    assert markers
    assert not any(markers)


def test_locomo_and_beam_are_scored_by_turns_and_leave_no_session(url: str, tmp_path: Path) -> None:
    locomo = write(tmp_path / "locomo.json", quality_sets.locomo())
    beam = quality_sets.beam_folder(tmp_path / "beam")
    kept = tmp_path / "kept"

    codes = [
        locomo_engram.main(arguments(url, locomo, tmp_path / "locomo")),
        beam_engram.main(arguments(url, beam, tmp_path / "out", "--max-message-chars", "20")),
        quality_summary.main([str(tmp_path / "locomo"), str(tmp_path / "out"), "--keep", str(kept), "--no-plot"]),
    ]

    assert codes == [0, 0, 0]
    assert read(tmp_path / "locomo" / "locomo_retrieval_metrics.json")["turn_recall_any@5"] == 1
    assert read(tmp_path / "out" / "beam_retrieval_metrics.json")["turn_recall_any@5"] == 1
    assert "## Evidence in contexts" in (tmp_path / "out" / "beam_retrieval_summary.md").read_text()
    assert read(kept / "beam.json")["aims"][0]["is_met"]
    assert sessions(url) == []


def test_a_retrieval_run_looks_for_the_evidence_in_contexts_and_says_what_the_server_is(
    url: str, tmp_path: Path
) -> None:
    data = quality_sets.longmemeval(2)
    data[0]["haystack_sessions"][3] *= 40  # the answer is not in the conversation any more: only among the memories
    dataset = write(tmp_path / "lme.json", data)
    out = tmp_path / "out"

    longmemeval_engram.main(arguments(url, dataset, out, "--context-tokens", "2000,20", "--max-tokens", "1"))

    row, without_answer = read(out / "retrieval_results.json")
    small, large = read(out / "retrieval_metrics.json")["contexts"]
    assert [row["evidence"], without_answer["evidence"]["turn_ids"]] == [
        {"turn_ids": ["3-1"], "found_ids": ["3-1"]},
        [],
    ]
    assert [one["shown_turn_ids"] for one in row["contexts"]] == [[], ["3-1"]]
    assert [(line["max_tokens"], line["found_shown"], line["found_whole"]) for line in (small, large)] == [
        (20, 0.0, 0.0),
        (2000, 1.0, 1.0),
    ]
    metrics = read(out / "retrieval_metrics.json")
    assert metrics["embedder"] == "wordllama-l2-supercat-256"
    assert 50 < metrics["rss_mb"] < 5_000
    assert 0 < metrics["context_ms"]["p50"] <= metrics["context_ms"]["p99"]


def test_speed_is_measured_over_what_all_data_says_and_shown_with_the_runs(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        write(tmp_path / "lme.json", quality_sets.longmemeval()),
        write(tmp_path / "locomo.json", quality_sets.locomo()),
        quality_sets.beam_folder(tmp_path / "beam"),
    ]
    asked = [part for file in files for part in ("--data", str(file))]
    out = tmp_path / "out"
    small = ("--messages", "1000", "--requests", "20")

    codes = [
        quality_speed.main([*asked, "--output-dir", str(out), "--engram-url", url, *small]),
        quality_summary.main([str(out), "--keep", str(tmp_path / "kept"), "--no-plot"]),
    ]

    speed = read(tmp_path / "kept" / "speed.json")
    assert codes == [0, 0]
    assert (speed["messages"], speed["sessions"], speed["files"]) == (1000, 2, ["lme.json", "locomo.json", "beam"])
    assert speed["requests"]["search, session of 500"] == speed["requests"]["context"] == 20
    assert [one["limit"] for one in speed["aims"]] == [4, 12, 6, 500]
    assert sessions(url) == []
    assert "aims met" in capsys.readouterr().out


async def test_qa_asks_with_the_contexts_of_the_questions(url: str, tmp_path: Path) -> None:
    data = quality_sets.longmemeval(1)
    data[0]["haystack_sessions"][3] *= 40  # more than the conversation shows, and nearer to what was said last
    dataset = write(tmp_path / "lme.json", data)
    out = tmp_path / "out"
    async with FakeOpenAI() as llm:
        llm.refused_chats = 1
        others = ("--mode", "qa", "--llm-base-url", f"{llm.url}/v1")
        code = await asyncio.to_thread(longmemeval_engram.main, arguments(url, dataset, out, *others))

    [prompt] = llm.prompts
    assert code == 0
    assert "called Ottoline" in prompt
    assert (out / "hypothesis.jsonl").read_text() == '{"question_id":"q1_abs","hypothesis":"An answer."}\n'
    assert read(out / "qa_details.json")[0]["context"] in prompt
    assert "Questions: 1" in (out / "qa_summary.md").read_text()


async def test_beams_evaluator_gets_its_own_files_with_the_answers(url: str, tmp_path: Path) -> None:
    folder = quality_sets.beam_folder(tmp_path, chats=("1", "2"))
    out = tmp_path / "out"
    async with FakeOpenAI() as llm:
        others = ("--mode", "qa", "--llm-base-url", f"{llm.url}/v1", "--tier", "128K")
        code = await asyncio.to_thread(beam_engram.main, arguments(url, folder, out, *others))

    assert code == 0
    assert [asked["llm_response"] for group in read(out / "2" / "engram_answers.json").values() for asked in group] == (
        ["An answer."] * 3
    )
    assert read(out / "1" / "probing_questions" / "probing_questions.json") == quality_sets.beam_probing()
    assert len((out / "beam_hypothesis.jsonl").read_text().splitlines()) == 6


@pytest.mark.thorough
def test_a_run_that_was_killed_goes_on_where_it_was(url: str, tmp_path: Path) -> None:
    dataset = write(tmp_path / "lme.json", quality_sets.longmemeval(8))
    out = tmp_path / "out"
    asked = arguments(url, dataset, out, "--no-baselines")
    script = PROJECT / "benchmarks" / "longmemeval_engram.py"
    slow = [sys.executable, str(script), *asked, "--sleep-between-messages", "0.03"]
    run = subprocess.Popen(slow, cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)})
    while run.poll() is None and not rows_of(out):
        with suppress(subprocess.TimeoutExpired):
            run.wait(POLL_S)
    run.send_signal(signal.SIGKILL)
    run.wait()
    before = rows_of(out)

    code = longmemeval_engram.main([*asked, "--resume"])

    after = read(out / "retrieval_results.json")
    assert code == 0
    assert 0 < len(before) < 8
    assert after[: len(before)] == before
    assert [row["question_id"] for row in after] == [f"q{number}" for number in range(1, 8)] + ["q8_abs"]
    assert sessions(url) == []


def test_a_run_that_was_killed_before_it_forgot_its_last_conversation_forgets_it_when_it_goes_on(
    url: str, tmp_path: Path
) -> None:
    dataset = write(tmp_path / "lme.json", quality_sets.longmemeval())
    asked = arguments(url, dataset, tmp_path / "out", "--no-baselines")
    longmemeval_engram.main([*asked, "--keep-sessions"])
    left = sessions(url)

    code = longmemeval_engram.main([*asked, "--resume"])

    assert code == 0
    assert len(left) == 2
    assert [session["session_id"].rpartition(":")[2] for session in sessions(url)] == ["q1"]
    forget(url, sessions(url)[0]["session_id"])


def test_a_run_is_not_gone_on_with_by_other_options(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write(tmp_path / "lme.json", quality_sets.longmemeval())
    asked = arguments(url, dataset, tmp_path / "out", "--no-baselines")
    longmemeval_engram.main(asked)

    code = longmemeval_engram.main([*asked, "--resume", "--top-k", "7"])

    assert code == 2
    assert "was made with top_k 10, this run has 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("main", "others", "told"),
    [
        (longmemeval_engram.main, ["--dataset", "none.json"], "cannot read none.json: No such file"),
        (longmemeval_engram.main, ["--health-timeout-secs", "0"], "no healthy server at http://127.0.0.1:9"),
        (longmemeval_engram.main, ["--mode", "qa", "--llm-api-key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY is not set"),
        (longmemeval_engram.main, ["--start-engram", "--engram-command", "no-such-program"], "no-such-program cannot"),
        (locomo_engram.main, [], "conversation 1 of lme.json has no conversation"),
        (beam_engram.main, ["--dataset-format", "beam-chats"], "is no folder of BEAM chats"),
        (beam_engram.main, ["--question-key", "wish"], "has no wish"),
        (longmemeval_engram.main, ["--embedder", "minilm"], "--embedder is for a node that is started"),
        (longmemeval_engram.main, ["--start-engram", "--engram-cwd", "none"], "in none: it is no folder"),
    ],
    ids=["no file", "no server", "no key", "no program", "other data", "no folder", "no field", "no start", "no place"],
)
def test_what_is_wrong_is_said_in_a_line(
    main: Main, others: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write(tmp_path / "lme.json", quality_sets.longmemeval())

    code = main([*arguments("http://127.0.0.1:9", dataset, tmp_path / "out"), *others])

    assert code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("none.json", "cannot read none.json: No such file"),
        ("lme.json", "the data has no message, or no question"),
    ],
)
def test_without_messages_or_questions_no_speed_is_measured(
    data: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    empty = {**quality_sets.longmemeval()[0], "haystack_sessions": [[]] * 4}
    write(tmp_path / "lme.json", [empty])

    assert quality_speed.main(["--data", data, "--output-dir", "out"]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "others",
    [
        ["--top-k", "0"],
        ["--top-k", "201"],
        ["--engram-url", "x"],
        ["--timeout-secs", "-1"],
        ["--context-tokens", "1000,0"],
        ["--embedder", "mine"],
    ],
)
def test_an_option_out_of_range_is_refused(others: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        longmemeval_engram.main([*arguments("http://127.0.0.1:9", tmp_path, tmp_path), *others])

    assert stopped.value.code == 2
