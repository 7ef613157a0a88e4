"""A plot that is drawn wrongly lies as well as a table does."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.explore.stories import HISTORY, NOT_BUILT, OUTCOME, WRONG
from tests.samples import BOUND, candidate, failed, passed
from warpsmith.explore import words
from warpsmith.explore.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, draw_chart
from warpsmith.explore.tree import BOX_HEIGHT, BOX_WIDTH, draw_tree
from warpsmith.records import Judged


def test_faster_is_lower_and_nothing_is_below_the_bound() -> None:
    chart = draw_chart(HISTORY, BOUND)
    times = [judged.seconds for judged in HISTORY if judged.verdict.passed]
    by_time = sorted(zip(times, chart.points), key=lambda pair: pair[0])
    heights = [point.y for _, point in by_time]
    assert heights == sorted(heights, reverse=True)
    assert all(point.y < chart.bound for point in chart.points)


def test_only_improvements_are_marked_and_the_best_line_goes_through_them() -> None:
    chart = draw_chart(HISTORY, BOUND)
    assert [point.improved for point in chart.points] == [True, True, True, False, True]
    for point in chart.points:
        assert (f"{point.x}" in chart.best) == point.improved


def test_failures_are_shown_where_they_happened() -> None:
    chart = draw_chart(HISTORY, BOUND)
    assert len(chart.failures) == 1
    assert chart.points[1].x < chart.failures[0].at < chart.points[2].x
    assert "wrong value" in chart.failures[0].label


times = st.none() | st.floats(1e-9, 1e2)


@given(st.lists(st.tuples(times, st.integers(0, 30)), max_size=40))
def test_everything_stays_inside_the_drawing(story: list[tuple[float | None, int]]) -> None:
    history = []
    for number, (seconds, generation) in enumerate(story):
        drawn = candidate(number, generation=generation)
        history.append(Judged(drawn, failed(drawn) if seconds is None else passed(drawn, seconds)))
    chart = draw_chart(history, BOUND)
    assert len(chart.points) + len(chart.failures) == len(history)
    for point in chart.points:
        assert LEFT <= point.x <= WIDTH - RIGHT
        assert TOP <= point.y <= HEIGHT - BOTTOM
    for tick in chart.times:
        assert TOP <= tick.at <= HEIGHT - BOTTOM
    assert 2 <= len(chart.times) <= 13
    assert TOP <= chart.bound <= HEIGHT - BOTTOM


def test_progress_far_from_the_bound_is_still_to_be_seen() -> None:
    history = [Judged(candidate(n), passed(candidate(n), seconds)) for n, seconds in enumerate((4e-6, 3e-6))]
    chart = draw_chart(history, BOUND)
    assert not chart.to_scale
    assert chart.points[1].y - chart.points[0].y > (HEIGHT - BOTTOM - TOP) / 3
    assert chart.bound == HEIGHT - BOTTOM
    assert draw_chart(HISTORY, BOUND).to_scale


def test_generations_are_bands_side_by_side() -> None:
    bands = draw_chart(HISTORY, BOUND).bands
    assert [band.label for band in bands] == ["0", "1", "2"]
    for left, right in itertools.pairwise(bands):
        assert left.end == pytest.approx(right.start, abs=0.05)


def test_parents_stand_left_of_their_children_and_boxes_do_not_touch() -> None:
    tree = draw_tree(OUTCOME.lineage)
    boxes = {judged.candidate.key: box for judged, box in zip(OUTCOME.lineage, tree.boxes)}
    edges = 0
    for judged in OUTCOME.lineage:
        for parent in judged.candidate.lineage.parents:
            edges += 1
            assert boxes[parent].x + BOX_WIDTH < boxes[judged.candidate.key].x
    assert len(tree.curves) == edges == 3
    for one, other in itertools.combinations(tree.boxes, 2):
        assert abs(one.x - other.x) >= BOX_WIDTH or abs(one.y - other.y) >= BOX_HEIGHT
    for box in tree.boxes:
        assert 0 <= box.x <= tree.width - BOX_WIDTH
        assert 0 <= box.y <= tree.height - BOX_HEIGHT
    assert [box.winner for box in tree.boxes] == [False, False, False, True]


def test_a_parent_that_was_never_judged_leaves_no_loose_end() -> None:
    tree = draw_tree((WRONG,))
    assert (len(tree.boxes), tree.curves) == (1, ())
    assert tree.boxes[0].outcome == "wrong value"
    assert draw_tree(()).boxes == ()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.0, "1.00 s"),
        (0.0999996, "100 ms"),
        (0.99999, "1.00 s"),
        (1.854e-6, "1.85 µs"),
        (12.34e-6, "12.3 µs"),
        (999.6e-9, "1.00 µs"),
        (3e-10, "0.30 ns"),
        (float("inf"), "–"),
    ],
)
def test_times_have_three_digits_and_the_right_unit(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_reasons_name_the_stage() -> None:
    assert NOT_BUILT.verdict.failure is not None
    assert words.reason(NOT_BUILT.verdict.failure) == "build: compile error"
    assert words.amount(12_600_000, "B") == "12.6 MB"
    assert words.amount(999.0, "B") == "999 B"
    assert (words.percent(0.734), words.percent(0.0312)) == ("73%", "3.1%")
