"""What a search left in its archive: which operators brought what, which candidate won, what it cost."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from warpsmith.archive import Archive
from warpsmith.bench.row import Row
from warpsmith.contest.trial import Gain, Trial
from warpsmith.evolve.journal import PASSED_OVER, REFUSED
from warpsmith.judge import JUDGE_VERSION
from warpsmith.judge.statistics import BETWEEN_SHARE
from warpsmith.records import Judged

Operator = tuple[str, str]
"""Author and operator."""


def trial_of(arm: str, repeat: int, seed: int, row: Row, before: Path, after: Path) -> Trial:
    """Return what the search behind `row` brought, by the archives before and after it.

    The archives and not the row tell it, so that what a process spent before it crashed counts as well.
    """
    with Archive.open(before, create=False) as archive:
        earlier = {run.id for run in archive.runs()}
        with Archive.open(after, create=False) as later:
            new = [run for run in later.runs() if run.id not in earlier]
            if not new:
                return Trial(arm, repeat, seed, row, None, 0.0, ())
            key, run = new[-1].task_key, new[-1].id
            usd = later.spent(key) - archive.spent(key)
            return Trial(arm, repeat, seed, row, _winner(later, key, run, row), usd, gains_of(later, key, run))


def gains_of(archive: Archive, task_key: str, run: int) -> tuple[Gain, ...]:
    """Return what each operator of each author brought in a run, by author and operator."""
    judged = archive.judged(task_key, judge_version=JUDGE_VERSION, run=run)
    known = {each.candidate.key: each for each in judged}
    proposals: Counter[Operator] = Counter(_operator(each) for each in judged)
    for event in archive.events(run):
        if event.kind == REFUSED:
            proposals[event.data["author"], event.data["operator"]] += 1
        elif event.kind == PASSED_OVER:
            lineage = archive.candidate(event.data["candidate"]).lineage
            proposals[lineage.author, lineage.operator] += 1
    passed: Counter[Operator] = Counter(_operator(each) for each in judged if each.verdict.passed)
    logs: defaultdict[Operator, list[float]] = defaultdict(list)
    for each in judged:
        gain = _gain(each, [known[key] for key in each.candidate.lineage.parents if key in known])
        if gain > math.log1p(BETWEEN_SHARE):
            logs[_operator(each)].append(gain)
    return tuple(
        Gain(author, operator, count, passed[author, operator], len(found), math.fsum(found))
        for (author, operator), count in sorted(proposals.items())
        for found in [logs[author, operator]]
    )


def _operator(judged: Judged) -> Operator:
    lineage = judged.candidate.lineage
    return lineage.author, lineage.operator


def _gain(judged: Judged, parents: Sequence[Judged]) -> float:
    """The logarithm of how many times faster it is than the fastest parent; 0 where there is nothing to compare."""
    times = [parent.seconds for parent in parents if parent.verdict.passed]
    return math.log(min(times) / judged.seconds) if times and judged.verdict.passed else 0.0


def _winner(archive: Archive, task_key: str, run: int, row: Row) -> str | None:
    """The candidate that the row's time belongs to: of several as fast, the one judged first."""
    found = (each for each in archive.judged(task_key, run=run) if each.verdict.passed and each.seconds == row.seconds)
    return next((each.candidate.key for each in found), None)
