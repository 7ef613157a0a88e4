"""Search over the tunables of one program, whoever wrote it.

A coordinate search: from the best point known, change one tunable at a time, nearest values first. A program is
settled when no change of a single tunable is left to try. On a landscape where the tunables do not interact that
point is the best of all; where they do, it is the best on every axis through itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

Tunables = tuple[tuple[str, int], ...]
"""Names and values in the order in which the plan declares them."""


def ordered(declared: Sequence[tuple[str, tuple[int, ...]]], values: Mapping[str, int]) -> Tunables:
    """Return `values` in the order of declaration, so that equal points are equal tuples."""
    return tuple((name, values[name]) for name, _ in declared)


def best_point(judged: Mapping[Tunables, float]) -> Tunables | None:
    """Return the fastest point (first judged wins a tie), or None where nothing is known.

    Points that failed have infinite seconds: while nothing has passed, the search starts from the first point.
    """
    return min(judged, key=lambda point: judged[point], default=None)


def next_point(
    declared: Sequence[tuple[str, tuple[int, ...]]],
    judged: Mapping[Tunables, float],
    pending: Collection[Tunables] = (),
) -> Tunables | None:
    """Return the next point to judge, or None where the program is settled (or waits for points in flight).

    `declared` holds each tunable with its admissible values; `judged` maps points in the order of judging to their
    seconds, infinite for a failure; `pending` are points in flight.
    """
    centre = best_point(judged)
    if centre is None:
        first = tuple((name, values[0]) for name, values in declared)
        return None if first in pending else first
    promise = [_promise(judged, centre, axis) for axis in range(len(declared))]
    steps = [step for step in _steps(declared, centre) if step[2] not in judged and step[2] not in pending]
    steps.sort(key=lambda step: (step[0], -promise[step[1]], step[1]))
    return steps[0][2] if steps else None


def _steps(declared: Sequence[tuple[str, tuple[int, ...]]], centre: Tunables) -> list[tuple[int, int, Tunables]]:
    """All points on the axes through `centre`, as (distance in ranks of value, index of the tunable, point)."""
    steps = []
    for axis, (name, values) in enumerate(declared):
        ranks = sorted(values)
        here = ranks.index(centre[axis][1])
        for rank, value in enumerate(ranks):
            if rank != here:
                point = (*centre[:axis], (name, value), *centre[axis + 1 :])
                steps.append((abs(rank - here), axis, point))
    return steps


def _promise(judged: Mapping[Tunables, float], centre: Tunables, axis: int) -> float:
    """How much changing one tunable has mattered: the widest log-ratio among points that differ from here in it alone.

    An axis never varied promises more than any other: there is everything to learn.
    """
    line = [seconds for point, seconds in judged.items() if _differ(point, centre) <= {axis}]
    passed = [seconds for seconds in line if math.isfinite(seconds)]
    if len(line) < 2:
        return math.inf
    return math.log(max(passed) / min(passed)) if len(passed) > 1 else 0.0


def _differ(one: Tunables, other: Tunables) -> set[int]:
    """The tunables in which two points differ."""
    return {axis for axis, (mine, yours) in enumerate(zip(one, other, strict=True)) if mine != yours}
