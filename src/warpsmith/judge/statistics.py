"""What samples of time tell: intervals, comparisons, whether several clocks agree, and scores over many tasks.

Covered: noise, slow drift (candidate and baseline alternate), a clock that was deceived. Not covered: a bias that all
blocks and all clocks share, such as a GPU that is slower today than it was yesterday.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from warpsmith.records import Comparison, GpuState, Timing

RESAMPLES = 1000
LEVEL = 0.95
LEAST_BLOCKS = 6
"""The median lies between the least and the largest of n samples with probability 1 - 2^(1-n): five are too few for
95 %, whatever is done with them."""

BETWEEN_SHARE = 0.01
BETWEEN_SECONDS = 3e-8
"""By how much the medians of fresh processes differ, beyond what the samples of one of them show: where in memory
things lie is drawn once for each. Twice the largest standard deviation of 20 processes, 0.5 % for kernels above 50 µs
and 1 % at 2 µs (`benchmarks/judge_repeatability.py` on an H100)."""

SHARE = 0.15
"""By how much two clocks may differ for no reason: each watches another replay, and between two replays the GPU's own
clock moves with power and temperature. An allowance, not a measurement; who hides work hides most of it."""
SPAN_SECONDS = 1e-6
"""For each launch, activity may exceed the other clocks by this: a span holds the start and the end of a kernel, which
in a row of kernels partly overlap, and events have a resolution of half a microsecond (CUDA Runtime API)."""
GAP_SECONDS = 5e-6
"""The longest that the device plausibly idles between two launches of one stream or graph."""
START_SECONDS = 30e-6
"""From the first event to the first kernel of a graph, in case that a series is a single call."""
HOST_FACTOR = 2.0
HOST_SECONDS = 50e-6
"""The parent shares its cores with others, so its clock may run so far ahead. More is work that no event surrounds."""
CLOCKS = ("events", "activity", "wall")


def median_interval(samples: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """Return a bootstrap 95 % interval of the median, which contains the median of `samples`.

    Percentile method, 1000 resamples. Raises ValueError where there are no samples, or one is not finite.
    """
    values = np.asarray(samples, dtype=np.float64)
    if not (values.ndim == 1 and values.size > 0 and bool(np.isfinite(values).all())):
        raise ValueError(f"the median needs finite samples, not {list(samples)[:8]}")
    chosen = np.random.default_rng(seed).integers(0, values.size, (RESAMPLES, values.size))
    medians = np.median(values[chosen], axis=1)
    low, high = np.quantile(medians, [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0])
    middle = float(np.median(values))
    return min(float(low), middle), max(float(high), middle)


def timing_of(
    samples: Sequence[float],
    device: str,
    source: Literal["measured", "estimated"],
    states: Sequence[GpuState] = (),
    clocks_of: Sequence[tuple[str, float]] = (),
) -> Timing:
    """Summarise samples in seconds per call.

    The interval is that of the median; of measured samples it is wide enough for the medians of other processes too.
    Raises ValueError where they are no times: none, not finite, negative.
    """
    low, high = median_interval(samples)
    times = tuple(float(sample) for sample in samples)
    if not min(times) > 0.0:
        raise ValueError(f"{min(times)} s is no time")
    median = float(np.median(times))
    if source == "measured":
        # Independent causes, so their squares add up.
        between = min(BETWEEN_SHARE * median + BETWEEN_SECONDS, median / 2)
        low = max(median - math.hypot(median - low, between), low / 2)
        high = median + math.hypot(high - median, between)
    clocks = None
    if states:
        ticks = np.median([(each.sm_clock, each.memory_clock) for each in states], axis=0)
        clocks = int(ticks[0]), int(ticks[1])
    return Timing(times, median, (low, high), source, device, clocks, tuple(states), tuple(clocks_of))


def compare(name: str, candidate_blocks: Sequence[float], baseline_blocks: Sequence[float]) -> Comparison:
    """Compare a candidate A with the baseline `name`, B, of which blocks ran in the order A B B A A B B A ...

    Both lists hold the blocks' medians in seconds per call, in the order in which they ran. Block i of one stands
    beside block i of the other, alternately before and behind it, so that a drift makes their ratios too large as often
    as too small. What two neighbouring blocks of B differ by, nobody may claim as a gain: that is `spread`.

    Raises ValueError where the lists differ in length, are shorter than `LEAST_BLOCKS`, or hold what is no time.
    """
    ours, theirs = (np.asarray(blocks, dtype=np.float64) for blocks in (candidate_blocks, baseline_blocks))
    if len(ours) != len(theirs) or len(ours) < LEAST_BLOCKS:
        raise ValueError(f"{len(ours)} and {len(theirs)} blocks; as many of each are needed, at least {LEAST_BLOCKS}")
    if not all(bool(((blocks > 0.0) & (blocks < math.inf)).all()) for blocks in (ours, theirs)):
        raise ValueError("a block's median is not a positive time")
    ratios = np.log(theirs) - np.log(ours)
    low, high = median_interval(ratios.tolist())
    middle = float(np.median(ratios))
    # Which of two blocks of the baseline is the faster one is chance, so both ends count.
    stray = median_interval(np.diff(np.log(theirs)).tolist())
    spread = math.exp(max(0.0, -stray[0], stray[1]))
    return Comparison(name, math.exp(middle), (math.exp(low), math.exp(high)), spread, len(ours))


def disagreement(clocks: Mapping[str, float], launches: int) -> str | None:
    """Say which two clocks of one call contradict each other and by how much; None where they agree.

    `clocks` holds seconds per call: `events` on the stream; device `activity`, the spans of the call's kernels; `wall`,
    the slope of the parent's clock between N and 2N calls. One that could not be read is left out. `launches` counts
    the kernels of one call. Raises ValueError for a clock of another name or a call without launches.

        events >= activity    else work was done outside of the events
        events <= activity + gaps    else the device idled, or worked on something that was not recorded
        wall >= activity, wall >= events    else a clock of the device runs ahead of the parent's
        wall <= some multiple of events    else work was put off until after the events
    """
    if not launches >= 1 or not set(clocks) <= set(CLOCKS):
        raise ValueError(f"clocks {sorted(clocks)} of a call with {launches} launches")
    for name, seconds in clocks.items():
        if not 0.0 < seconds < math.inf:
            return f"The clock `{name}` says {seconds} s, which no call takes."
    span, gaps = SPAN_SECONDS * launches, GAP_SECONDS * launches + START_SECONDS
    rules = (
        ("events", "activity", 1.0 - SHARE, -span),
        ("wall", "activity", 1.0 - SHARE, -span),
        ("wall", "events", 1.0 - SHARE, -span - START_SECONDS),
        ("activity", "events", 1.0 / (1.0 + SHARE), -gaps / (1.0 + SHARE)),
        ("events", "wall", 1.0 / HOST_FACTOR, -(gaps + HOST_SECONDS) / HOST_FACTOR),
    )
    for larger, smaller, factor, slack in rules:
        if larger not in clocks or smaller not in clocks:
            continue
        least = factor * clocks[smaller] + slack
        if not clocks[larger] >= least:
            return (
                f"The clocks of a call disagree: `{smaller}` says {clocks[smaller] * 1e6:.4g} µs, so `{larger}` cannot "
                f"be below {least * 1e6:.4g} µs, but says {clocks[larger] * 1e6:.4g} µs."
            )
    return None


def fast_p(speedups: Sequence[float | None], p: float) -> float:
    """Return the share of tasks that were solved right and more than `p` times faster; None stands for not right.

    As KernelBench defines it (Ouyang et al. 2025, arXiv:2502.10517). Raises ValueError where there are no tasks.
    """
    if not speedups:
        raise ValueError("a share of no tasks")
    return sum(speedup is not None and speedup > p for speedup in speedups) / len(speedups)


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean. Raises ValueError where there are no values, or one is not positive and finite.

    A single value near 0 or infinity would move the mean of many to wherever one likes.
    """
    if not values or not all(0.0 < value < math.inf for value in values):
        raise ValueError(f"a geometric mean needs positive, finite values, not {list(values)[:8]}")
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))


def clustered_interval(groups: Sequence[Sequence[float]], *, seed: int = 0) -> tuple[float, float]:
    """Return a bootstrap 95 % interval of the geometric mean over groups of the geometric mean in each group.

    Groups are what differs most, such as tasks, and the values in one are repeats of it: groups are drawn with
    replacement, and in each of them values. Percentile method, 1000 resamples; the interval contains the mean. With few
    groups it is too narrow. Raises ValueError where there are no groups, or a value is not positive and finite.
    """
    middle = geometric_mean([geometric_mean(group) for group in groups])
    chance = np.random.default_rng(seed)
    sizes = np.array([len(group) for group in groups])
    table = np.zeros((len(groups), int(sizes.max())))
    for row, group in zip(table, groups):
        row[: len(group)] = np.log(group)
    drawn = chance.integers(0, len(groups), (RESAMPLES, len(groups), 1))
    columns = np.arange(table.shape[1])
    values = table[drawn, (chance.random((RESAMPLES, len(groups), columns.size)) * sizes[drawn]).astype(np.int64)]
    means = np.where(columns < sizes[drawn], values, 0.0).sum(axis=2) / sizes[drawn[..., 0]]
    low, high = np.exp(np.quantile(means.mean(axis=1), [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0]))
    return min(float(low), middle), max(float(high), middle)
