"""What is kept of the drills, and what is told."""

from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from tests.cluster import report
from tests.cluster.report import Outcome
from tests.cluster.scene import Round


def outcome(drill: str = "kill-leader", *, election_ms: int = 100, first_write_ms: float = 90.0) -> Outcome:
    round_ = Round(first_write_ms=first_write_ms, gap_ms=120.0, slowest_write_ms=600.0)
    return Outcome(
        drill=drill,
        heartbeat_ms=15,
        election_ms=election_ms,
        seed=1,
        acknowledged=1234,
        digests_equal=True,
        rounds=[round_, round_],
    )


def shown(*outcomes: Outcome) -> str:
    console = Console(width=250, color_system=None)
    with console.capture() as capture:
        console.print(report.table(outcomes))
    return capture.get()


def test_a_sound_drill_is_told_with_its_times() -> None:
    line = next(line for line in shown(outcome()).splitlines() if "kill-leader" in line)

    assert [cell.strip() for cell in line.strip("│ ").split("│")] == [
        "kill-leader", "15/100", "2", "1,234", "0", "0", "0/0", "yes", "90 / 90 / 90", "120", "600", "ok",
    ]  # fmt: skip


def test_a_drill_that_could_not_be_tried_says_why() -> None:
    skipped = Outcome(drill="full-disk", heartbeat_ms=15, election_ms=100, seed=1, skipped="it takes root")

    assert skipped.is_sound
    assert "it takes root" in shown(skipped)


@pytest.mark.parametrize("broken", [{"digests_equal": False}, {"problems": ["lost: node 1: s-1/m1"]}])
def test_what_is_wrong_makes_a_drill_broken(broken: dict[str, object]) -> None:
    wrong = msgspec.structs.replace(outcome(), **broken)

    assert not wrong.is_sound
    assert "BROKEN" in shown(wrong)


def test_a_problem_is_told_in_words() -> None:
    wrong = msgspec.structs.replace(outcome(), problems=["lost: node 1: s-1/m1"], notes={"terms": [1.0, 3.0, 2.0]})

    assert report.notes(wrong) == ["kill-leader: terms: 2.0 / 3.0 / 3.0", "kill-leader: PROBLEM: lost: node 1: s-1/m1"]


def test_a_later_run_of_a_drill_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "results" / "drill.json"
    report.write(path, {"cores": "2"}, [outcome(), outcome("stop-leader"), outcome(election_ms=300)])
    later = outcome(first_write_ms=50.0)

    merged = report.merge(path, [later])

    assert merged == [outcome("stop-leader"), outcome(election_ms=300), later]


def test_a_drill_that_could_not_be_tried_takes_no_place(tmp_path: Path) -> None:
    path = tmp_path / "drill.json"
    report.write(path, {}, [outcome()])
    skipped = msgspec.structs.replace(outcome(), skipped="it takes root")

    assert report.merge(path, [skipped]) == [outcome()]
