"""A candidate against the task's own module, on the same GPU in the same minutes.

The baselines are timed first, alone. Then candidate and baseline alternate in blocks (A B B A), each a few cold
series on rotating inputs of their own; a comparison is the median of the blocks' ratios, with an interval, beside how
far the baseline strays from itself. The candidate's calls are verified here too. Each process waits for its GPU work
before the other begins, and the lock of the GPU is held throughout.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from warpsmith.judge.baseline import BaselineCache, Baselines
from warpsmith.judge.crowd import tells_of_it
from warpsmith.judge.judge import Judge
from warpsmith.judge.statistics import compare
from warpsmith.judge.timing import Stopwatch
from warpsmith.records import MODES, Baseline, Candidate, Comparison, Mode

BLOCKS = 8
SERIES_IN_BLOCK = 3
L2_MULTIPLE = 5


@dataclass(frozen=True, slots=True)
class Duel:
    """All baselines, and comparisons with eager PyTorch, with the best compiled form, and with the best of all.

    `roles` says which baseline each of `eager`, `compile` and `best` is; a baseline in two roles is fought once.
    """

    baselines: tuple[Baseline, ...]
    comparisons: tuple[Comparison, ...]
    roles: tuple[tuple[str, str], ...]


def duel(
    judge: Judge, candidate: Candidate, *, seconds: float, cache: Path | None = None, modes: Sequence[Mode] = MODES
) -> Duel:
    """Time baselines in the given modes and compare. `seconds` limits the preparation of each, compilation included.

    With `cache`, baselines are kept there by task, device and versions, and need not all be timed again to know which
    of them matter; a comparison always measures anew. Raises MachineError where the GPU fails, or the candidate, which
    has passed, does not stay right.
    """
    device = judge.gpu
    with (
        device.exclusive(),
        Baselines(
            judge.task, device.where, rotate_bytes=L2_MULTIPLE * device.spec.l2_bytes, seconds=seconds, modes=modes
        ) as others,
    ):
        baselines = _measured(others, cache)
        roles = _roles(baselines)
        with judge.stopwatch(candidate) as watch:
            rivals = {baseline.name: baseline for baseline in roles.values()}
            comparisons = tuple(_alternate(each, watch, others) for each in rivals.values())
    return Duel(baselines, comparisons, tuple((role, baseline.name) for role, baseline in roles.items()))


def lacked_memory(found: Duel) -> bool:
    """Whether a baseline could not be timed for lack of memory, which others may hold."""
    return _lacking(found.baselines)


def _lacking(baselines: Sequence[Baseline]) -> bool:
    return any(tells_of_it(each.problem) for each in baselines)


def _measured(others: Baselines, cache: Path | None) -> tuple[Baseline, ...]:
    """Return all baselines, from the cache where they are there."""
    if cache is None:
        return others.all()
    kept = BaselineCache(cache)
    known = kept.load(others.key)
    if known is None:
        known = others.all()
        if not _lacking(known):  # Next time there may be more.
            kept.store(others.key, known)
    return known


def _roles(baselines: Sequence[Baseline]) -> dict[str, Baseline]:
    """Choose whom to fight: eager called plainly, the fastest compiled form, the fastest of all."""
    called = [baseline for baseline in baselines if not baseline.graph]
    groups = {
        "eager": [each for each in called if each.mode == "eager"],
        "compile": [each for each in called if each.mode != "eager"],
        "best": baselines,
    }
    fastest = {role: Baselines.best(group) for role, group in groups.items()}
    return {role: baseline for role, baseline in fastest.items() if baseline is not None}


def _alternate(baseline: Baseline, watch: Stopwatch, others: Baselines) -> Comparison:
    """Time blocks in the order A B B A A B B A, and compare them."""
    ours: list[float] = []
    theirs: list[float] = []

    def candidate() -> None:
        ours.append(statistics.median(watch.sample() for _ in range(SERIES_IN_BLOCK)))

    def module() -> None:
        theirs.append(statistics.median(others.series(baseline.mode, baseline.graph) for _ in range(SERIES_IN_BLOCK)))

    for number in range(BLOCKS):
        for step in (candidate, module) if number % 2 == 0 else (module, candidate):
            step()
    return compare(baseline.name, ours, theirs)
