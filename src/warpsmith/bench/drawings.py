"""Where the points, bars and labels of a run's drawings stand. The templates draw them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from warpsmith.bench.row import Row
from warpsmith.bench.scores import curve
from warpsmith.explore.chart import Tick
from warpsmith.explore.words import duration, percent

WIDTH, HEIGHT = 960.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 60.0, 92.0, 16.0, 44.0
FLOOR = HEIGHT - BOTTOM
_SPAN = WIDTH - LEFT - RIGHT
_MOST_P = 4.0
_STEPS = 200
_WIDEST = 26.0
_LABEL_GAP = 14.0
_NEAR = 1.25
"""The least that the scale of speed-ups reaches to either side of 1."""


@dataclass(frozen=True, slots=True)
class Line:
    """The path of one level, with the place of its label at the right edge; `style` numbers the levels."""

    path: str
    label: str
    at: float
    style: int


@dataclass(frozen=True, slots=True)
class Curves:
    """`fast_p` over p, one line for each level."""

    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """A task. `style` is `gain`, `even` or `loss`; the title says all there is to say."""

    x: float
    y: float
    width: float
    height: float
    style: str
    title: str


@dataclass(frozen=True, slots=True)
class Bars:
    """Tasks side by side, sorted. `base` is the height of the line that bars stand on or hang from."""

    bars: tuple[Bar, ...]
    up: tuple[Tick, ...]
    base: float
    summary: str


def draw_curves(groups: Sequence[tuple[str, Sequence[Row]]], baseline: str) -> Curves | None:
    """Lay out the curves of named groups of rows; None where nothing was compared with `baseline`."""
    if not any(row.against(baseline) for _, rows in groups for row in rows):
        return None
    thresholds = [_MOST_P * step / _STEPS for step in range(_STEPS + 1)]
    lines = []
    for style, (label, rows) in enumerate(groups):
        shares = curve(rows, baseline, thresholds)
        points = [(_x(p / _MOST_P), _y(share)) for p, share in zip(thresholds, shares)]
        path = f"M{points[0][0]} {points[0][1]}" + "".join(f"H{x}V{y}" for x, y in points[1:])
        lines.append(Line(path, label, points[-1][1], style))
    return Curves(
        lines=tuple(_apart(lines)),
        across=tuple(Tick(_x(p / _MOST_P), f"{p:g}×") for p in (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4)),
        up=tuple(Tick(_y(share), f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)),
    )


def draw_speedups(rows: Sequence[Row], baseline: str) -> Bars | None:
    """Lay out the speed-ups of the correct tasks against `baseline`, the largest first, on a logarithmic scale."""
    found = [(row, each) for row in rows if row.passed and (each := row.against(baseline)) is not None]
    if not found:
        return None
    found.sort(key=lambda pair: -pair[1].ratio)
    ratios = [each.ratio for _, each in found]
    low, high = min(*ratios, 1 / _NEAR) / 1.05, max(*ratios, _NEAR) * 1.05
    base = _log_y(1.0, low, high)
    bars = []
    for number, (row, each) in enumerate(found):
        x, width = _slot(number, len(found))
        y = _log_y(each.ratio, low, high)
        lost = each.interval[1] < 1.0 and each.ratio * each.spread < 1.0
        title = f"{row.name}: {each.ratio:.2f}× {each.baseline} ({each.interval[0]:.2f}–{each.interval[1]:.2f})"
        style = "gain" if each.gain else "loss" if lost else "even"
        bars.append(Bar(x, min(y, base), width, max(1.0, abs(y - base)), style, title))
    gains = sum(bar.style == "gain" for bar in bars)
    losses = sum(bar.style == "loss" for bar in bars)
    return Bars(
        bars=tuple(bars),
        up=tuple(Tick(_log_y(value, low, high), f"{value:g}×") for value in _round_ratios(low, high)),
        base=base,
        summary=f"{gains} faster, {losses} slower, {len(bars) - gains - losses} within doubt",
    )


def draw_shares(rows: Sequence[Row], timing: str) -> Bars | None:
    """Lay out the shares of the speed of light that the correct tasks with such times reach, the largest first."""
    found = [(row, share) for row in rows if row.timing == timing and (share := row.share) is not None]
    if not found:
        return None
    found.sort(key=lambda pair: -pair[1])
    bars = []
    for number, (row, share) in enumerate(found):
        x, width = _slot(number, len(found))
        y = _y(min(1.0, share))
        title = f"{row.name}: {percent(share)} of the bound, {duration(row.seconds or math.inf)} {timing}"
        bars.append(Bar(x, y, width, max(1.0, FLOOR - y), "gain", title))
    return Bars(
        bars=tuple(bars),
        up=tuple(Tick(_y(share), f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)),
        base=FLOOR,
        summary=f"{len(bars)} tasks",
    )


def draw_ratios(pairs: Sequence[tuple[str, float, bool]]) -> Bars | None:
    """Lay out ratios of two runs, the largest first: name, ratio, and whether the difference is beyond doubt."""
    if not pairs:
        return None
    ratios = [ratio for _, ratio, _ in pairs]
    low, high = min(*ratios, 1 / _NEAR) / 1.05, max(*ratios, _NEAR) * 1.05
    base = _log_y(1.0, low, high)
    bars = []
    for number, (name, ratio, sure) in enumerate(sorted(pairs, key=lambda pair: -pair[1])):
        x, width = _slot(number, len(pairs))
        y = _log_y(ratio, low, high)
        style = "even" if not sure else "gain" if ratio > 1.0 else "loss"
        bars.append(Bar(x, min(y, base), width, max(1.0, abs(y - base)), style, f"{name}: {ratio:.2f}×"))
    return Bars(
        bars=tuple(bars),
        up=tuple(Tick(_log_y(value, low, high), f"{value:g}×") for value in _round_ratios(low, high)),
        base=base,
        summary=f"{len(bars)} tasks",
    )


def _x(part: float) -> float:
    return round(LEFT + _SPAN * part, 2)


def _y(share: float) -> float:
    return round(FLOOR - (FLOOR - TOP) * share, 2)


def _log_y(value: float, low: float, high: float) -> float:
    return _y(math.log(value / low) / math.log(high / low))


def _slot(number: int, count: int) -> tuple[float, float]:
    """Return the left edge and the width of a bar; few bars stay narrow and stand to the left."""
    step = min(_SPAN / count, _WIDEST)
    return round(LEFT + step * number + step * 0.1, 2), round(step * 0.8, 2)


def _round_ratios(low: float, high: float) -> list[float]:
    """Return round ratios between two, 1 among them, few enough to be read."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in (
        (1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 7.0, 8.0, 9.0),
        (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
        (1.0, 2.0, 5.0),
        (1.0,),
    ):
        values = [step * 10.0**decade for decade in decades for step in steps]
        inside = [float(f"{value:.6g}") for value in values if low <= value <= high]
        if len(inside) <= 9:
            return inside
    return [1.0]


def _apart(lines: Sequence[Line]) -> list[Line]:
    """Move labels down until none covers another."""
    placed: list[Line] = []
    for line in sorted(lines, key=lambda each: each.at):
        at = line.at if not placed else max(line.at, placed[-1].at + _LABEL_GAP)
        placed.append(Line(line.path, line.label, at, line.style))
    # What was pushed below the floor pushes the others up.
    below = placed[-1].at - FLOOR if placed else 0.0
    return [Line(line.path, line.label, line.at - max(0.0, below), line.style) for line in placed]
