"""What the seconds of a search buy: how far the tasks of a run had come after some marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from warpsmith.bench.row import Row
from warpsmith.explore.course import MARKS
from warpsmith.judge.statistics import geometric_mean


@dataclass(frozen=True, slots=True)
class Reached:
    """How far the correct tasks had come after `mark` seconds.

    `had` of `of` had a program that passed. `slower` is the geometric mean, over those, of their best time then to
    their best time at the end: 1 where more time brought nothing; None where none had a program yet.
    """

    mark: float
    had: int
    of: int
    slower: float | None


def budgets(rows: Sequence[Row]) -> tuple[Reached, ...]:
    """Return how far the correct tasks had come after each mark, up to the first at which all had their best.

    Rows that do not know their course, from an older Warpsmith, are left out; empty where none does.
    """
    courses = [row.course for row in rows if row.passed and row.course]
    found = []
    for mark in MARKS if courses else ():
        reached = [_best(course, mark) / course[-1][1] for course in courses]
        had = [ratio for ratio in reached if math.isfinite(ratio)]
        found.append(Reached(mark, len(had), len(courses), geometric_mean(had) if had else None))
        if all(course[-1][0] <= mark for course in courses):
            break
    return tuple(found)


def _best(course: Sequence[tuple[float, float]], mark: float) -> float:
    return min((seconds for spent, seconds in course if spent <= mark), default=math.inf)
