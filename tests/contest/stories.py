"""Searches and contests to test with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.bench.stories import estimated, failed, record
from warpsmith.contest import Contest, Gain, Trial
from warpsmith.contest.folder import ARMS


def trial(
    arm: str,
    task: str,
    repeat: int = 0,
    seconds: float | None = 1e-6,
    *,
    best: str | None = None,
    gains: tuple[Gain, ...] = (),
    usd: float = 0.0,
    **row: object,
) -> Trial:
    """A search that found a program of so many seconds, or none."""
    found = failed(task, None) if seconds is None else replace(estimated(task), seconds=seconds, interval=(0.0, 1.0))
    return Trial(arm, repeat, 7 + repeat, replace(found, **row), best, usd, gains)  # type: ignore[arg-type]


def contest(arms: Sequence[str], trials: Sequence[Trial], timing: str = "estimated") -> Contest:
    """A contest of these arms, with what its searches found."""
    settings = (("timing", timing), (ARMS, "\n".join(f"{arm}\t{arm}" for arm in arms)), ("seed", "7"))
    tasks = list(dict.fromkeys(each.row.name for each in trials))
    return Contest(record(tasks, settings=settings), tuple(trials))
