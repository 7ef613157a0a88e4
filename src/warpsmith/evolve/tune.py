"""Search over the tunables of one program, whoever wrote it.

A coordinate search: from the best point known, change one tunable at a time. What a change did elsewhere is taken to
be what it will do here, so that steps that look good come first, then steps into the unknown, nearest values first,
and steps that made things worse elsewhere come last. A program is settled when no change of a single tunable is left
to try. Where tunables do not interact that point is the best of all; where they do, it is the best on every axis
through itself.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

Tunables = tuple[tuple[str, int], ...]
"""Names and values in the order in which the plan declares them."""

Declared = Sequence[tuple[str, tuple[int, ...]]]
"""Tunables and the values they may take, the default first."""

Effects = Mapping[int, float]
"""Log-ratio of the time with each value of one tunable to the time with the present value."""


def ordered(declared: Declared, values: Mapping[str, int]) -> Tunables:
    """Return `values` in the order of declaration, so that equal points are equal tuples."""
    return tuple((name, values[name]) for name, _ in declared)


def best_point(judged: Mapping[Tunables, float]) -> Tunables | None:
    """Return the fastest point, the one judged first in a tie, or None where nothing is known."""
    return min(judged, key=lambda point: judged[point], default=None)


def next_point(
    declared: Declared, judged: Mapping[Tunables, float], pending: Collection[Tunables] = ()
) -> Tunables | None:
    """Return the next point to judge, or None where the program is settled, or waits for points in flight.

    `judged` maps points to their seconds, infinite for a failure; `pending` are points in flight.
    """
    centre = best_point(judged)
    if centre is None:
        first = tuple((name, values[0]) for name, values in declared)
        return None if first in pending else first
    steps = []
    for axis, (name, values) in enumerate(declared):
        effects = _effects(judged, centre, axis)
        for value in values:
            point = (*centre[:axis], (name, value), *centre[axis + 1 :])
            if point not in judged and point not in pending:
                steps.append((_urgency(sorted(values), centre[axis][1], value, effects), axis, point))
    return min(steps)[2] if steps else None


def _effects(judged: Mapping[Tunables, float], centre: Tunables, axis: int) -> Effects:
    """What each value of one tunable did, on average over pairs of points that differ in nothing else."""
    lines: dict[Tunables, dict[int, float]] = defaultdict(dict)
    for point, seconds in judged.items():
        lines[point[:axis] + point[axis + 1 :]][point[axis][1]] = seconds
    ratios: dict[int, list[float]] = defaultdict(list)
    for line in lines.values():
        here = line.get(centre[axis][1], math.inf)
        if math.isfinite(here):
            for value, seconds in line.items():
                ratios[value].append(math.log(seconds / here))
    return {value: sum(known) / len(known) for value, known in ratios.items()}


def _urgency(ranks: Sequence[int], here: int, value: int, effects: Effects) -> tuple[int, float, int]:
    """How soon a step should be tried, least first: (kind, effect, distance in ranks)."""
    distance = abs(ranks.index(value) - ranks.index(here))
    effect = effects.get(value)
    if effect is not None:
        return (0 if effect < 0.0 else 3, effect, distance)
    low, high = sorted((here, value))
    passed_over = [effects[between] for between in ranks if low < between < high and between in effects]
    if any(worse > 0.0 for worse in passed_over):
        return (2, 0.0, distance)
    behind = [effect for other, effect in effects.items() if (other < here) != (value < here) and other != here]
    return (1, -max(behind, default=0.0), distance)
