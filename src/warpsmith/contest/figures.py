"""What the searches of a contest say together.

A pair is the same task with the same seed, searched by the first arm, the reference, and by another. Its ratio is the
reference's best time over the other's, so above 1 the other arm found the faster program. A difference within noise is
a tie: the same candidate, or times within 1 % (and, where they were measured, 30 ns), which is by how much the same
program differs from process to process.

The mean of ratios is geometric, over the seeds of a task and then over tasks, so that each task counts as much; it is
over pairs in which both arms have a program. Its interval is a bootstrap over tasks, and over seeds in each. A pair in
which only one arm has a program is won by that arm, and counts in no mean.

Left out of ratios, wins, ties and losses are searches that began with programs for the very same task.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from warpsmith.bench.row import GOES_ON
from warpsmith.contest.folder import Contest
from warpsmith.contest.trial import Gain, Trial
from warpsmith.judge.statistics import BETWEEN_SECONDS, BETWEEN_SHARE, clustered_interval, geometric_mean

Outcome = Literal["win", "tie", "loss"]


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """One arm. `tasks` are those that it searched, `solved` those of which a program passed with any seed.

    `searches` and `successes` count the same with each seed by itself. `pairs` is over how many pairs `mean` was
    taken, `interval` its 95 % interval: None where there are none, or, of the interval, only one. `wins`, `ties` and
    `losses` are pairs; for the reference itself all of these are 0 or None. `judged` counts candidates, `seconds` are
    those of all its processes from start to end, `usd` US dollars.
    """

    arm: str
    spec: str
    tasks: int
    solved: int
    searches: int
    successes: int
    pairs: int
    mean: float | None
    interval: tuple[float, float] | None
    wins: int
    ties: int
    losses: int
    judged: int
    seconds: float
    usd: float


@dataclass(frozen=True, slots=True)
class OperatorFigures:
    """An operator of an author in all searches of an arm: see `Gain`. `mean` is the geometric mean of its gains."""

    arm: str
    author: str
    operator: str
    proposals: int
    passed: int
    improved: int
    mean: float | None


def figures(contest: Contest) -> tuple[ArmFigures, ...]:
    """Return the figures of each arm, the reference first. Raises ValueError where times are of two kinds."""
    kinds = {trial.row.timing for trial in contest.trials if trial.row.passed}
    if len(kinds) > 1:
        raise ValueError("measured and estimated times are in one contest")
    reference = {(trial.row.name, trial.repeat): trial for trial in _of(contest, contest.arms[0][0])}
    return tuple(
        _figures(name, spec, list(_of(contest, name)), {} if number == 0 else reference)
        for number, (name, spec) in enumerate(contest.arms)
    )


def operator_figures(contest: Contest) -> tuple[OperatorFigures, ...]:
    """Return what each operator brought, arm by arm, those with the most proposals first."""
    return tuple(row for name, _ in contest.arms for row in _operators(name, _of(contest, name)))


def outcome(reference: Trial, trial: Trial) -> Outcome | None:
    """Say how a search ended beside that of the reference; None where neither has a program."""
    theirs, ours = reference.row.seconds, trial.row.seconds
    if ours is None or theirs is None:
        return None if ours is theirs else "win" if theirs is None else "loss"
    noise = BETWEEN_SHARE * min(ours, theirs) + (BETWEEN_SECONDS if trial.row.timing == "measured" else 0.0)
    if abs(ours - theirs) <= noise or (trial.best is not None and trial.best == reference.best):
        return "tie"
    return "win" if ours < theirs else "loss"


def _of(contest: Contest, arm: str) -> Iterator[Trial]:
    return (trial for trial in contest.trials if trial.arm == arm)


def _figures(name: str, spec: str, trials: Sequence[Trial], reference: dict[tuple[str, int], Trial]) -> ArmFigures:
    pairs = [
        (reference[place], trial)
        for trial in trials
        if (place := (trial.row.name, trial.repeat)) in reference and not _known_before(reference[place], trial)
    ]
    outcomes = [outcome(theirs, ours) for theirs, ours in pairs]
    ratios: dict[str, list[float]] = {}
    for theirs, ours in pairs:
        if theirs.row.seconds is not None and ours.row.seconds is not None:
            ratios.setdefault(ours.row.name, []).append(theirs.row.seconds / ours.row.seconds)
    count = sum(len(values) for values in ratios.values())
    return ArmFigures(
        arm=name,
        spec=spec,
        tasks=len({trial.row.name for trial in trials}),
        solved=len({trial.row.name for trial in trials if trial.row.passed}),
        searches=len(trials),
        successes=sum(trial.row.passed for trial in trials),
        pairs=count,
        mean=geometric_mean([geometric_mean(values) for values in ratios.values()]) if ratios else None,
        interval=clustered_interval(list(ratios.values())) if count > 1 else None,
        wins=outcomes.count("win"),
        ties=outcomes.count("tie"),
        losses=outcomes.count("loss"),
        judged=sum(trial.row.judged for trial in trials),
        seconds=math.fsum(trial.row.spent for trial in trials),
        usd=math.fsum(trial.usd for trial in trials),
    )


def _known_before(*trials: Trial) -> bool:
    return any(GOES_ON in trial.row.marks for trial in trials)


def _operators(arm: str, trials: Iterable[Trial]) -> list[OperatorFigures]:
    groups: dict[tuple[str, str], list[Gain]] = {}
    for trial in trials:
        for gain in trial.gains:
            groups.setdefault((gain.author, gain.operator), []).append(gain)
    found = []
    for (author, operator), gains in groups.items():
        improved = sum(gain.improved for gain in gains)
        found.append(
            OperatorFigures(
                arm=arm,
                author=author,
                operator=operator,
                proposals=sum(gain.proposals for gain in gains),
                passed=sum(gain.passed for gain in gains),
                improved=improved,
                mean=math.exp(math.fsum(gain.log for gain in gains) / improved) if improved else None,
            )
        )
    return sorted(found, key=lambda row: (-row.proposals, row.author, row.operator))
