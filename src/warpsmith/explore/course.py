"""The best time against the seconds spent: what a larger budget buys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from warpsmith.archive import Step
from warpsmith.explore.chart import LEFT, RIGHT, WIDTH, Tick, TimeScale
from warpsmith.explore.words import duration
from warpsmith.records import Bound

MARKS = (1.0, 10.0, 60.0, 300.0)
"""Seconds at which the best time is told: a glance, a short wait, a coffee, a break."""

_LEAST, _SHORTEST = 1.0, 0.01
"""The axis begins at the first improvement, at the latest at a second; a logarithm needs a beginning."""
_FAR = 4.0
"""Where the best is more than this many times the bound, the bound is left out: progress would be a flat line."""


@dataclass(frozen=True, slots=True)
class Dot:
    """An improvement, in the units of the drawing."""

    x: float
    y: float
    title: str


@dataclass(frozen=True, slots=True)
class Course:
    """A drawing of the units of `chart`: both axes are logarithmic. `bound` is None where it is out of the picture."""

    dots: tuple[Dot, ...]
    path: str
    bound: float | None
    times: tuple[Tick, ...]
    spent: tuple[Tick, ...]


def best_after(course: Sequence[Step], mark: float) -> float:
    """Return the best time of a call, in seconds, that was known after `mark` seconds of search; infinite if none."""
    return min((step.seconds for step in course if step.spent <= mark), default=math.inf)


def course_line(course: Sequence[Step]) -> str:
    """Say in a line what was known when: `2.61 µs after 10 s, 2.40 µs after 41.0 s`.

    The last is the last improvement, whether the search went on after it or not.
    """
    if not course:
        return ""
    last = course[-1]
    told = [
        f"{duration(best_after(course, mark))} after {mark:g} s"
        for mark in MARKS
        if course[0].spent <= mark < last.spent
    ]
    return ", ".join([*told, f"{duration(last.seconds)} after {duration(last.spent)}"])


def draw_course(course: Sequence[Step], bound: Bound) -> Course | None:
    """Lay out the improvements; None where there is none, so that there is nothing to see."""
    if not course:
        return None
    best = course[-1].seconds
    shown = best <= _FAR * bound.seconds
    low = min(best, bound.seconds) if shown else best
    up = TimeScale(low / 1.15, max(course[0].seconds, low * 1.5) * 1.15)
    first = max(_SHORTEST, min(_LEAST, course[0].spent))
    last = max(MARKS[1], course[-1].spent * 1.2)

    def across(spent: float) -> float:
        part = math.log(max(spent, first) / first) / math.log(last / first)
        return round(LEFT + part * (WIDTH - LEFT - RIGHT), 2)

    dots = [
        Dot(across(step.spent), up(step.seconds), f"{duration(step.seconds)} after {duration(step.spent)}")
        for step in course
    ]
    return Course(
        dots=tuple(dots),
        path=f"M{dots[0].x} {dots[0].y}" + "".join(f"H{dot.x}V{dot.y}" for dot in dots[1:]) + f"H{WIDTH - RIGHT}",
        bound=up(bound.seconds) if shown else None,
        times=tuple(Tick(up(value), duration(value)) for value in up.ticks()),
        spent=tuple(Tick(across(value), f"{value:g} s") for value in _round(first, last)),
    )


def _round(low: float, high: float) -> list[float]:
    """Powers of ten and the marks between two times."""
    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    return sorted({value for value in (*powers, *MARKS) if low <= value <= high})
