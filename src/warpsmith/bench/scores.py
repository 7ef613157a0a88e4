"""What the rows of a run say together. Every figure states over which tasks it was taken.

Counts are over all tasks with a row. `fast_p` is the share of all tasks that are correct and more than p times faster
(Ouyang et al. 2025, arXiv:2502.10517). Geometric means and medians are over the correct tasks that were compared with
the baseline in question. A task counts as faster where the gain is beyond doubt (`Comparison.gain`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from warpsmith.bench.row import STATUSES, Row, Status
from warpsmith.judge.statistics import fast_p, geometric_mean

BASELINES = ("eager", "compile", "best")
"""What is compared with; `best` is the fastest baseline of each task."""
THRESHOLDS = (0.0, 0.5, 0.8, 1.0, 1.5, 2.0)

_UNKNOWN = 0.0
"""The speed-up of a correct task that was not compared: not more than any p."""


@dataclass(frozen=True, slots=True)
class Against:
    """How the correct tasks fare against one baseline.

    `compared` are those with a comparison; `faster` and `slower` those where the difference is beyond doubt. `mean` is
    the geometric mean and `middle` the median of the compared tasks' speed-ups. `fast` has a share of all tasks for
    each of THRESHOLDS. All three are None where nothing was compared, so that an unknown is not taken for a zero.
    """

    baseline: str
    compared: int
    faster: int
    slower: int
    mean: float | None
    middle: float | None
    fast: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Score:
    """The figures of a level, or of all. `share` is the geometric mean of the shares of the bound of correct tasks.

    `sources` are the kinds of timing among them: where there are two, no figure may be taken over both, and `share` is
    None. `spent` is in seconds.
    """

    label: str
    tasks: int
    correct: int
    pure: int
    hybrid: int
    statuses: tuple[tuple[Status, int], ...]
    against: tuple[Against, ...]
    share: float | None
    sources: tuple[str, ...]
    spent: float


def scores(rows: Sequence[Row]) -> tuple[Score, ...]:
    """Return a score for each level, those without a level as `other`, and one for all if there is more than one."""
    levels = sorted({row.level for row in rows if row.level is not None})
    groups = [(f"level {level}", [row for row in rows if row.level == level]) for level in levels]
    if rest := [row for row in rows if row.level is None]:
        groups.append(("other" if levels else "all", rest))
    if len(groups) > 1:
        groups.append(("all", list(rows)))
    return tuple(score(label, members) for label, members in groups)


def score(label: str, rows: Sequence[Row]) -> Score:
    """Return the figures of some rows. Raises ValueError where there are none."""
    if not rows:
        raise ValueError(f"{label}: no tasks")
    correct = [row for row in rows if row.passed]
    sources = tuple(sorted({row.timing for row in correct if row.timing is not None}))
    shares = [row.share for row in correct if row.share]
    return Score(
        label=label,
        tasks=len(rows),
        correct=len(correct),
        pure=sum(row.kind == "pure" for row in correct),
        hybrid=sum(row.kind == "hybrid" for row in correct),
        statuses=tuple((status, count) for status in STATUSES if (count := sum(row.status == status for row in rows))),
        against=tuple(_against(baseline, rows) for baseline in BASELINES),
        share=geometric_mean(shares) if shares and len(sources) == 1 else None,
        sources=sources,
        spent=sum(row.spent for row in rows),
    )


def speedups(rows: Sequence[Row], baseline: str) -> list[float | None]:
    """Return a speed-up for each row: None where it is not correct, 0 where it is but was not compared."""
    return [
        None if not row.passed else each.ratio if (each := row.against(baseline)) is not None else _UNKNOWN
        for row in rows
    ]


def curve(rows: Sequence[Row], baseline: str, thresholds: Sequence[float]) -> list[float]:
    """Return `fast_p` at each threshold. At p = 0 it is the share of correct tasks, compared or not."""
    found = speedups(rows, baseline)
    return [fast_p([_or_more(each) for each in found] if p == 0 else found, p) for p in thresholds]


def _or_more(speedup: float | None) -> float | None:
    """At p = 0 all that counts is being correct."""
    return None if speedup is None else 1.0


def _against(baseline: str, rows: Sequence[Row]) -> Against:
    compared = [found for row in rows if row.passed and (found := row.against(baseline)) is not None]
    ratios = [each.ratio for each in compared]
    return Against(
        baseline=baseline,
        compared=len(compared),
        faster=sum(each.gain for each in compared),
        slower=sum(each.interval[1] < 1.0 and each.ratio * each.spread < 1.0 for each in compared),
        mean=geometric_mean(ratios) if ratios else None,
        middle=median(ratios) if ratios else None,
        fast=tuple(curve(rows, baseline, THRESHOLDS)) if ratios else None,
    )
