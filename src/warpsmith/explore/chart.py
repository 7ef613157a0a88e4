"""The plot of progress: where its points, lines and labels stand. The template draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from warpsmith.explore.words import duration
from warpsmith.records import Bound, Judged

WIDTH, HEIGHT = 960.0, 340.0
LEFT, RIGHT, TOP, BOTTOM = 76.0, 20.0, 30.0, 58.0
_FLOOR = HEIGHT - BOTTOM
_GENERATIONS_LABELLED = 16
_STEPS = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(range(1, 10)), tuple(step / 4 for step in range(4, 40)))
_FAR = 4.0
"""Where every time is more than this many times the bound, the bound is not to scale: progress would be a flat line."""


@dataclass(frozen=True, slots=True)
class Point:
    """A candidate that passed. `improved` marks those that were faster than all before."""

    x: float
    y: float
    title: str
    improved: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis, in the drawing's units."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Band:
    """The candidates of one generation, from `start` to `end` in the drawing's units."""

    start: float
    end: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything to draw, in units of a drawing of WIDTH by HEIGHT whose y grows downwards.

    `best` is the path of the fastest so far; `bound` the height of the speed of light, which lies below the plot where
    it is not `to_scale`, and `failures` the places and titles of what did not pass.
    """

    points: tuple[Point, ...]
    failures: tuple[Tick, ...]
    best: str
    bound: float
    to_scale: bool
    times: tuple[Tick, ...]
    counts: tuple[Tick, ...]
    bands: tuple[Band, ...]


def draw_chart(history: Sequence[Judged], bound: Bound) -> Chart:
    """Lay out time (logarithmic) against the number of the candidate. No passing candidate leaves the plot bare."""
    times = [judged.seconds for judged in history if judged.verdict.passed]
    to_scale = not times or min(times) <= _FAR * bound.seconds
    low = min([*times, bound.seconds]) if to_scale else min(times) / 1.1
    scale = TimeScale(low / 1.15, max([*times, low * 1.5, bound.seconds]) * 1.15)
    points: list[Point] = []
    failures: list[Tick] = []
    fastest = math.inf
    for number, judged in enumerate(history):
        x, title = _x(number, len(history)), _title(number, judged)
        if judged.verdict.passed:
            points.append(Point(x, scale(judged.seconds), title, judged.seconds < fastest))
            fastest = min(fastest, judged.seconds)
        else:
            failures.append(Tick(x, title))
    return Chart(
        points=tuple(points),
        failures=tuple(failures),
        best=_steps(points),
        bound=scale(bound.seconds) if to_scale else _FLOOR,
        to_scale=to_scale,
        times=tuple(Tick(scale(value), duration(value)) for value in scale.ticks()),
        counts=tuple(Tick(_x(number - 1, len(history)), str(number)) for number in _round_numbers(len(history))),
        bands=_bands(history),
    )


class TimeScale:
    """A logarithmic scale from seconds to heights."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high

    def __call__(self, seconds: float) -> float:
        """Return the height at which a time stands."""
        part = math.log(seconds / self._low) / math.log(self._high / self._low)
        return round(_FLOOR - part * (_FLOOR - TOP), 2)

    def ticks(self) -> list[float]:
        """Round values: as many for each power of ten as it takes to have three, the two ends if that never happens."""
        decades = range(math.floor(math.log10(self._low)), math.ceil(math.log10(self._high)) + 1)
        for steps in _STEPS:
            values = [step * 10.0**decade for decade in decades for step in steps]
            inside = [value for value in values if self._low <= value <= self._high]
            if len(inside) >= 3:
                return inside
        return [self._low * 1.15, self._high / 1.15]


def _x(number: int, count: int) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * (number + 0.5) / max(1, count), 2)


def _title(number: int, judged: Judged) -> str:
    lineage, failure = judged.candidate.lineage, judged.verdict.failure
    outcome = f"{failure.reason.replace('_', ' ')}" if failure else duration(judged.seconds)
    return f"#{number + 1} {judged.candidate.key[:8]} · {lineage.author} {lineage.operator} · {outcome}"


def _steps(points: Sequence[Point]) -> str:
    """A staircase through the improvements, out to the right edge."""
    path = ""
    for point in points:
        if point.improved:
            path += f"H{point.x}V{point.y}" if path else f"M{point.x} {point.y}"
    return f"{path}H{WIDTH - RIGHT}" if path else ""


def _round_numbers(count: int) -> list[int]:
    """About eight round numbers from 1 to `count`."""
    step = next(
        (size * 10**power for power in range(9) for size in (1, 2, 5) if count / (size * 10**power) <= 8), count
    )
    return sorted({1, *range(step, count + 1, step)}) if count else []


def _bands(history: Sequence[Judged]) -> tuple[Band, ...]:
    """Neighbouring candidates of one generation as one band."""
    starts = [
        number
        for number, judged in enumerate(history)
        if number == 0 or judged.candidate.lineage.generation != history[number - 1].candidate.lineage.generation
    ]
    half = (WIDTH - LEFT - RIGHT) / max(1, len(history)) / 2
    labelled = len(starts) <= _GENERATIONS_LABELLED
    return tuple(
        Band(
            round(_x(start, len(history)) - half, 2),
            round(_x(end - 1, len(history)) + half, 2),
            str(history[start].candidate.lineage.generation) if labelled else "",
        )
        for start, end in zip(starts, [*starts[1:], len(history)])
    )
