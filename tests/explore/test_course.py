"""The curve that says what a budget buys must say what the archive says, and stay inside its frame."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from rich.console import Console

from tests.explore.stories import NOTHING, OUTCOME
from tests.samples import BOUND
from warpsmith.archive import Step
from warpsmith.explore import Tally, render_report, render_summary
from warpsmith.explore.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from warpsmith.explore.course import best_after, course_line, draw_course
from warpsmith.explore.output import verdict_document

COURSE = (Step(0.4, 8e-8, "a"), Step(7.0, 4e-8, "b"), Step(41.0, 2e-8, "c"))


def test_the_best_after_a_mark_is_what_was_known_then() -> None:
    assert [best_after(COURSE, mark) for mark in (0.1, 1.0, 10.0, 60.0)] == [math.inf, 8e-8, 4e-8, 2e-8]
    assert best_after((), 60.0) == math.inf


def test_the_line_ends_where_nothing_changed_any_more() -> None:
    assert course_line(COURSE) == "80.0 ns after 1 s, 40.0 ns after 10 s, 20.0 ns after 41.0 s"
    assert course_line(COURSE[:1]) == "80.0 ns after 400 ms"
    assert course_line([Step(15.0, 1e-6, "a")]) == "1.00 µs after 15.0 s"
    assert course_line([Step(900.0, 1e-6, "a")]) == "1.00 µs after 900 s"
    assert course_line(()) == ""


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
@pytest.mark.parametrize("steps", [COURSE, COURSE[:1], (Step(0.0, 1e-6, "a"), Step(0.0, 9e-7, "b"))])
def test_everything_drawn_lies_inside_the_frame(steps: tuple[Step, ...], scale: float) -> None:
    stretched = [Step(step.spent * scale, step.seconds, step.candidate_key) for step in steps]
    drawn = draw_course(stretched, BOUND)
    assert drawn is not None and len(drawn.dots) == len(steps)
    for dot in drawn.dots:
        assert LEFT <= dot.x <= WIDTH - RIGHT
        assert TOP <= dot.y <= HEIGHT - BOTTOM
    assert all(LEFT <= tick.at <= WIDTH - RIGHT for tick in drawn.spent) and len(drawn.spent) >= 2
    assert [dot.x for dot in drawn.dots] == sorted(dot.x for dot in drawn.dots)
    assert [dot.y for dot in drawn.dots] == sorted(dot.y for dot in drawn.dots), "faster is lower"


def test_a_bound_far_below_is_left_out_and_a_near_one_is_drawn() -> None:
    near, far = draw_course(COURSE, BOUND), draw_course(COURSE, replace(BOUND, seconds=1e-10))
    assert near is not None and near.bound is not None and near.bound > near.dots[-1].y
    assert far is not None and far.bound is None


def test_the_report_shows_the_curve_where_there_is_one() -> None:
    html = render_report(replace(OUTCOME, course=COURSE))
    assert "Best time against seconds spent" in html
    assert course_line(COURSE) in html and "all times estimated" in html
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == 3
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert "Best time against seconds spent" not in render_report(NOTHING)


def test_the_summary_and_the_verdict_tell_of_it() -> None:
    told = replace(OUTCOME, course=COURSE)
    text = io.StringIO()
    Console(file=text, width=160).print(render_summary(told, Tally(), None, "archive.db"))
    assert "80.0 ns after 1 s" in text.getvalue()
    assert verdict_document(told)["search"]["course"][1] == {"spent": 7.0, "seconds": 4e-8}
    assert verdict_document(NOTHING)["search"]["course"] == []
