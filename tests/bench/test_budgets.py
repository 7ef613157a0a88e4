"""What the seconds of a search bought, over the tasks of a run."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from tests.bench.stories import bench, failed, passed
from warpsmith.bench import Row, render_scores
from warpsmith.bench.budgets import budgets
from warpsmith.bench.report import render_bench_of
from warpsmith.bench.row import decode_row, encode_row


def row(name: str, *course: tuple[float, float]) -> Row:
    return passed(name, 1, 1.0, course=course)


QUICK = row("quick", (0.5, 4e-6), (8.0, 2e-6))
SLOW = row("slow", (5.0, 8e-6), (50.0, 1e-6))


def test_marks_go_on_until_every_task_had_its_best() -> None:
    found = budgets([QUICK, SLOW, failed("wrong", 1)])
    assert [(each.mark, each.had, each.of) for each in found] == [(1.0, 1, 2), (10.0, 2, 2), (60.0, 2, 2)]
    assert [each.slower for each in found] == [2.0, pytest.approx(8.0**0.5), pytest.approx(1.0)]


def test_where_no_task_had_a_program_there_is_no_figure() -> None:
    assert [(each.had, each.slower) for each in budgets([SLOW])] == [(0, None), (1, pytest.approx(8.0)), (1, 1.0)]


def test_rows_that_do_not_know_their_course_are_left_out() -> None:
    assert budgets([passed("old", 1, 1.0)]) == ()
    assert budgets([]) == ()
    assert [each.of for each in budgets([QUICK, passed("old", 1, 1.0)])] == [1, 1]


def test_a_course_comes_back_from_the_file_and_an_old_row_has_none() -> None:
    assert decode_row(encode_row(QUICK)) == QUICK
    old = encode_row(replace(QUICK, course=())).replace('"course":[],', "")
    assert "course" not in old
    assert decode_row(old) == replace(QUICK, course=())


def test_the_terminal_and_the_page_show_them() -> None:
    shown = bench([QUICK, SLOW])
    text = io.StringIO()
    Console(file=text, width=160).print(render_scores(shown))
    for told in (text.getvalue(), render_bench_of(shown)):
        assert "1 of 2" in told and "slower than their best" in told and "2.83×" in told
    assert "slower than their best" not in render_bench_of(bench([passed("old", 1, 1.0)]))
