"""The figures of a run are what others quote: each is checked against a sum done by hand."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from tests.bench.stories import ROWS, bench, estimated, failed, passed
from warpsmith.bench import render_scores, score, scores
from warpsmith.bench.scores import THRESHOLDS, curve


def test_levels_and_all() -> None:
    found = scores(ROWS)
    assert [each.label for each in found] == ["level 1", "level 2", "all"]
    first, second, every = found
    assert (first.tasks, first.correct, first.pure, first.hybrid) == (4, 3, 3, 0)
    assert (second.tasks, second.correct, second.pure, second.hybrid) == (2, 1, 0, 1)
    assert every.statuses == (("passed", 4), ("wrong", 1), ("crashed", 1))
    assert every.spent == 4 * 60.0 + 2 * 30.0
    assert every.share == pytest.approx(0.5)
    assert [each.label for each in scores([passed("a", None, 1.0)])] == ["all"]


def test_against_each_baseline() -> None:
    eager, compiled, best = scores(ROWS)[0].against
    assert (eager.compared, eager.faster, eager.slower) == (3, 1, 1), "1.005 within 1 % is no gain"
    assert eager.mean == pytest.approx((2.0 * 1.005 * 0.5) ** (1 / 3))
    assert eager.middle == 1.005
    assert compiled.compared == 0 and compiled.mean is None and compiled.fast is None
    assert best.mean == pytest.approx((1.6 * 0.999 * 0.4) ** (1 / 3))


def test_fast_p_is_over_all_tasks_also_those_that_are_not_correct() -> None:
    eager = scores(ROWS)[-1].against[0]
    assert eager.fast is not None
    assert dict(zip(THRESHOLDS, eager.fast)) == {0.0: 4 / 6, 0.5: 3 / 6, 0.8: 3 / 6, 1.0: 3 / 6, 1.5: 2 / 6, 2.0: 1 / 6}


def test_a_correct_task_that_was_not_compared_counts_as_correct_and_not_as_fast() -> None:
    rows = [passed("a", 1, 2.0), replace(passed("b", 1, 2.0), comparisons=())]
    assert curve(rows, "eager", (0.0, 0.5, 1.0)) == [1.0, 0.5, 0.5]
    assert score("x", rows).against[0].compared == 1


def test_no_figure_is_taken_over_measurements_and_estimates() -> None:
    mixed = score("x", [passed("a", 1, 2.0), estimated("b")])
    assert mixed.sources == ("estimated", "measured") and mixed.share is None


def test_nothing_correct_is_no_zero() -> None:
    found = score("x", [failed("a", 1)])
    assert found.share is None and found.against[0].mean is None
    with pytest.raises(ValueError, match="no tasks"):
        score("x", [])


def test_a_gain_within_the_spread_of_the_baseline_is_no_gain() -> None:
    row = passed("a", 1, 1.2)
    shaky = tuple(replace(each, spread=1.3) for each in row.comparisons)
    assert score("x", [row]).against[0].faster == 1
    assert score("x", [replace(row, comparisons=shaky)]).against[0].faster == 0


def printed(renderable: object, width: int = 160) -> str:
    text = io.StringIO()
    Console(file=text, width=width).print(renderable)
    return text.getvalue()


def test_the_closing_table_says_over_what_each_figure_is() -> None:
    text = printed(render_scores(bench(ROWS), "run"))
    for part in (
        "4 of 6 correct on H100; KernelBench sizes v0.1; times measured",
        "level 1, eager",
        "1 33% (25%)",
        f"{math.prod((2.0, 1.005, 0.5)) ** (1 / 3):.2f}×",
        "over the correct tasks compared",
        "rows.jsonl",
    ):
        assert part in text


def test_the_closing_table_of_a_simulated_run_has_no_comparison() -> None:
    text = printed(render_scores(bench([estimated("a")], regime="other")))
    assert "times estimated" in text and "sizes of no KernelBench release" in text
    assert "Nothing was compared with a baseline" in text and "×" not in text


def test_a_run_that_is_not_over_says_so() -> None:
    part = bench(ROWS[:2])
    more = replace(part, record=replace(part.record, tasks=(*part.record.tasks, "level1/9_later")))
    assert "1 of 3 tasks have not been run" in printed(render_scores(more))
    assert "no task has come to an end yet" in printed(render_scores(replace(more, rows=())))
