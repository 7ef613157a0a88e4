"""The winner of a search against the module that it stands for, on the GPU on which it was measured."""

from __future__ import annotations

from warpsmith.device.choose import choose
from warpsmith.judge import Judge
from warpsmith.judge.duel import duel
from warpsmith.optimize import Result
from warpsmith.program import Builder
from warpsmith.records import Baseline, Comparison
from warpsmith.settings import Settings

COMPILATION_SECONDS = 240.0
"""For each baseline: `torch.compile` with max-autotune takes minutes on a network."""


def against_module(result: Result, settings: Settings) -> tuple[tuple[Baseline, ...], tuple[Comparison, ...]]:
    """Time all baselines, and compare with eager, the best compiled form and the best of all; nothing for an estimate.

    Comparisons are named after their baseline. Raises MachineError where the GPU fails.
    """
    timing = result.best.verdict.timing
    if timing is None or timing.source != "measured":
        return (), ()
    with Builder(settings.cache) as builder:
        device = choose(settings.device).device(builder)
        try:
            judge = Judge(result.task, device, builder, seed=settings.seed)
            found = duel(judge, result.best.candidate, seconds=COMPILATION_SECONDS, cache=settings.cache / "baselines")
        finally:
            device.close()
    return found.baselines, found.comparisons
