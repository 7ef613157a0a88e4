"""How long a program takes on a GPU. The timed calls are the verified calls.

One series after the other: fresh contents in every slot, cold caches, one replay, then inputs, guards, variables and
every output are looked at. The time of a series over its calls is one sample. Before the clock runs, some calls of a
series are made one by one, each of which must leave all memory but its own alone: work of one call that another did
would show there. At the end three clocks must agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from warpsmith.device.cuda.process import Fault
from warpsmith.device.cuda.series import Conduct, Series
from warpsmith.errors import MachineError
from warpsmith.judge.pool import Wrong
from warpsmith.judge.statistics import disagreement, median_interval, timing_of
from warpsmith.records import Bound, Failure, GpuSpec, GpuState, Stage, Timing

LEAST_SERIES = 10
MOST_SERIES = 40
SECONDS = 0.1
"""Spent on series beyond the least number while the interval is wide."""
PRECISE = 0.004
"""Half width of the interval over the median at which more series would tell nothing."""
STEPS = 6
WALL_TRIES = 3
"""A busy host may hold up a message, which is nobody's fault; a call that is late for its clock is so every time."""

State = Callable[[], GpuState | None]


class Contents(Protocol):
    """What timed calls are given and held against: `pool.Pool`, or `blockwise.BlockPool` for the largest tasks."""

    arguments: Mapping[str, torch.Tensor]
    names: tuple[str, ...]

    def members(self, slots: int, series: int) -> torch.Tensor:
        """Return for each slot which member it gets in a series: int64 [slots]."""
        ...

    def wrong(self, got: Mapping[str, torch.Tensor], slots: list[int], members: torch.Tensor) -> Wrong | None:
        """Return the first of the called slots whose outputs are not right."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a call may take at most, and must take at least, in seconds."""

    most: float
    least: float


def least_seconds(bound: Bound, gpu: GpuSpec, calls: int) -> float:
    """Return the physical least time of one of `calls` calls in a row.

    What the last calls wrote may still stand in the L2 when the clock stops, so that much need not have reached memory.
    """
    written = max(0.0, bound.bytes_written - gpu.l2_bytes / calls)
    arithmetic = bound.seconds if bound.limit == "arithmetic" else 0.0
    return max((bound.bytes_read + written) / gpu.memory_bandwidth, arithmetic)


def measure(series: Series, pool: Contents, limits: Limits, seed: int, device: str, state: State) -> Timing | Failure:
    """Time a program by verified series. Raises Fault where it does not come back."""
    stepped = _step_through(series, pool, limits, seed)
    if stepped is not None:
        return stepped
    samples: list[float] = []
    states: list[GpuState] = []
    end = time.perf_counter() + SECONDS
    for number in range(1 + MOST_SERIES):
        members = pool.members(series.slots, seed + number)
        series.refill(pool.arguments, members, seed + number)
        seconds = series.replay(limits.most)
        failure = _checked(series, pool, members)
        if failure is not None:
            return failure
        if number == 0:
            continue  # The first replay of a graph pays for its upload; it is verified, but says nothing.
        samples.append(seconds)
        seen = state()
        if seen is not None:
            states.append(seen)
        if number >= LEAST_SERIES and (time.perf_counter() > end or _precise(samples)):
            break
    clocks = {"events": sorted(samples)[len(samples) // 2]}
    activity = series.activity()
    if activity is not None:
        clocks["activity"] = activity
    problem = disagreement(clocks, series.launches)
    for _ in range(WALL_TRIES):
        clocks["wall"], clocks["events warm"] = series.wall(clocks["events"])
        # The parent's clock runs over warm calls, so it is held against the events of those.
        slow = disagreement({"activity": clocks["events warm"], "wall": clocks["wall"]}, series.launches)
        if slow is None:
            break
    problem = problem or slow
    if problem is not None:
        return Failure(Stage.TIME, "clocks_disagree", problem)
    timing = timing_of(samples, device, "measured", tuple(states), tuple(clocks.items()))
    if not (timing.median >= limits.least):
        message = (
            f"{timing.median * 1e6:.3g} µs is below the {limits.least * 1e6:.3g} µs that moving the task's bytes and "
            f"doing its operations takes on {device}: the program does not do the work."
        )
        return Failure(Stage.TIME, "below_bound", message)
    return timing


class Stopwatch:
    """Times one candidate again and again: a sample is a cold series on fresh contents, verified like any other."""

    def __init__(self, series: Series, pool: Contents, most: float, seed: int) -> None:
        self._series, self._pool, self._most, self._seed = series, pool, most, seed

    def sample(self) -> float:
        """Return the seconds of one call. Raises Fault, and MachineError where a call is not right."""
        self._seed += 1
        members = self._pool.members(self._series.slots, self._seed)
        self._series.refill(self._pool.arguments, members, self._seed)
        seconds = self._series.replay(self._most)
        failure = _checked(self._series, self._pool, members)
        if failure is not None:
            raise MachineError(f"a candidate that has passed is wrong now: {failure.message}")
        return seconds


def _precise(samples: list[float]) -> bool:
    low, high = median_interval(samples)
    return (high - low) / 2 <= PRECISE * sorted(samples)[len(samples) // 2]


def _step_through(series: Series, pool: Contents, limits: Limits, seed: int) -> Failure | None:
    """Make the first calls of a series one by one; each must leave everything but its own slot as it was."""
    members = pool.members(series.slots, seed - 1)
    series.refill(pool.arguments, members, seed - 1)
    count = min(STEPS, series.calls)
    for number in range(count):
        if not series.step(number, limits.most):
            message = "A call wrote to the memory of another call of the same series."
            return Failure(Stage.TIME, "out_of_bounds", message)
        failure = _conduct(series.conduct(pool.arguments, members))
        if failure is not None:
            return failure
    return _outputs(series, pool, members, series.order[:count])


def _checked(series: Series, pool: Contents, members: torch.Tensor) -> Failure | None:
    failure = _conduct(series.conduct(pool.arguments, members))
    return failure or _outputs(series, pool, members, series.order)


def _outputs(series: Series, pool: Contents, members: torch.Tensor, slots: list[int]) -> Failure | None:
    got = {name: series.output(name) for name in pool.names}
    wrong = pool.wrong(got, slots, members)
    return None if wrong is None else _wrong(wrong)


def _wrong(wrong: Wrong) -> Failure:
    mismatch = wrong.mismatch
    index = ", ".join(map(str, mismatch.index))
    message = (
        f"In a timed call {mismatch.output}[{index}] is {mismatch.got:.9g} and should be {mismatch.expected:.9g}; "
        f"{mismatch.wrong} of {mismatch.total} elements are wrong. The same program was right when it was not timed."
    )
    return Failure(Stage.TIME, wrong.reason, message, "nominal", wrong.seed, mismatch)


def _conduct(conduct: Conduct) -> Failure | None:
    if conduct.overwritten:
        message = f"The program wrote to its input in a timed call: {', '.join(conduct.overwritten)}."
        return Failure(Stage.TIME, "input_overwritten", message)
    if conduct.trampled:
        message = f"The program wrote outside the bounds in a timed call of: {', '.join(conduct.trampled)}."
        return Failure(Stage.TIME, "out_of_bounds", message)
    if conduct.kept:
        message = f"A timed call leaves {', '.join(conduct.kept)} changed: results could be kept there."
        return Failure(Stage.TIME, "kept_state", message)
    return None


def fault_failure(fault: Fault) -> Failure:
    """Say that a program which passed so far failed while it was timed."""
    return Failure(
        Stage.TIME, "fault_when_timed", f"The program failed while it was timed: {fault.name} {fault.message}"
    )
