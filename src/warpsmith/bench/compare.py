"""The winner of a search against the module that it stands for, on the GPU on which it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from warpsmith.device.choose import choose
from warpsmith.errors import SettingsError
from warpsmith.judge import Judge
from warpsmith.judge.crowd import with_patience
from warpsmith.judge.duel import duel, lacked_memory
from warpsmith.optimize import Result
from warpsmith.program import Builder
from warpsmith.records import MODES, Baseline, Comparison, Mode
from warpsmith.settings import Settings

COMPILATION_SECONDS = 240.0
"""For each baseline: `torch.compile` with max-autotune takes minutes on a network."""


def modes_named(names: Sequence[str] | None) -> tuple[Mode, ...]:
    """Return the modes of PyTorch that are named, all where none is. Raises SettingsError for one that there is not."""
    unknown = sorted(set(names or ()) - set(MODES))
    if unknown:
        raise SettingsError(f"PyTorch has no mode {', '.join(unknown)}: choose of {', '.join(MODES)}")
    return tuple(mode for mode in MODES if mode in (names or MODES))


def against_module(
    result: Result, settings: Settings, modes: tuple[Mode, ...]
) -> tuple[tuple[Baseline, ...], tuple[Comparison, ...]]:
    """Time baselines in the given modes, and compare with eager, the best compiled form and the best of them all.

    There is nothing to compare for an estimate.

    Comparisons are named after their baseline. Raises MachineError where the GPU fails.
    """
    timing = result.best.verdict.timing
    if timing is None or timing.source != "measured":
        return (), ()
    with Builder(settings.cache) as builder:
        device = choose(settings.device).device(builder)
        try:
            judge = Judge(result.task, device, builder, seed=settings.seed)
            fight = partial(
                duel,
                judge,
                result.best.candidate,
                seconds=COMPILATION_SECONDS,
                cache=settings.cache / "baselines",
                modes=modes,
            )
            found = with_patience(fight, judge.forget, judge.gpu, result.task.name, lacked_memory)
        finally:
            device.close()
    return found.baselines, found.comparisons
