"""Rounds side by side: the middle one counts, and what one system lacks is left out."""

from benchmarks.comparison import OURS, THEIRS, Compared, Round, compare, show
from benchmarks.timing import Result


def lines(per_s: float, p50_ms: float) -> list[Result]:
    return [Result(question="write", case="fast", per_s=per_s, p50_ms=p50_ms)]


def of(comparison: list[Compared], unit: str) -> Compared:
    [found] = [line for line in comparison if line.unit == unit]
    return found


def test_each_number_is_the_median_of_its_rounds() -> None:
    rounds = [Round(system=OURS, number=at, results=lines(per_s, 1)) for at, per_s in enumerate((10, 500, 30), 1)]

    compared = of(compare(rounds), "per s")

    assert (compared.ours, compared.ours_lowest, compared.ours_highest) == (30, 10, 500)


def test_a_ratio_is_taken_within_a_round() -> None:
    """The machine is half as fast in the second round, and five times slower in the third: for both."""
    rounds = [
        Round(system=system, number=at, results=lines(per_s * speed, 1))
        for at, speed in enumerate((1.0, 0.5, 0.2), 1)
        for system, per_s in ((OURS, 300.0), (THEIRS, 600.0))
    ]

    compared = of(compare(rounds), "per s")

    assert (compared.ours, compared.theirs, compared.ratio) == (150, 300, 0.5)


def test_without_the_other_system_there_is_no_ratio() -> None:
    compared = of(compare([Round(system=OURS, number=1, results=lines(10, 2))]), "p50 ms")

    assert (compared.ours, compared.theirs, compared.ratio) == (2, None, None)


def test_nothing_is_divided_by_nothing() -> None:
    """An idle node may use no measurable time at all."""
    idle = [Result(question="idle", case="leader", value=0.0, unit="%")]
    rounds = [Round(system=system, number=1, results=idle) for system in (OURS, THEIRS)]

    compared = of(compare(rounds), "%")

    assert (compared.ours, compared.theirs, compared.ratio) == (0, 0, None)


def test_the_table_has_a_row_a_question() -> None:
    results = [*lines(10, 2), Result(question="memory", case="leader", value=1.0, unit="MB")]

    table = show(compare([Round(system=OURS, number=1, results=results)]))

    assert table.row_count == 2
