"""Where the time of a measured program goes: under which roof it lies, how close to it, and what binds.

Names and advice are those of `profile`. They come from the metrics of Nsight Compute where it may be used
(`from_metrics`). Where it may not, they come from the time of each kernel, together with what the simulator counted, if
it did (`from_times`); without counters little can be said, and nothing is rather than a guess.

A kernel is bound by the resource that is busiest, if that reaches `BUSY` of its peak; otherwise it waits, and what its
warps wait for names the reason. The rule is that of Nsight Compute's guide, section "GPU Speed Of Light Throughput":
below 60 % of all peaks a kernel is typically held up by latency.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

from warpsmith.device.simulator import explain
from warpsmith.device.simulator.estimate import occupancy
from warpsmith.judge.ncu import KernelMetrics
from warpsmith.judge.ncu_names import STALLS
from warpsmith.judge.profile import (
    ADVICE,
    CONFLICTED,
    FEW_WAVES,
    SCATTERED,
    Facts,
    classify,
    common_metrics,
    facts_of,
    time_metrics,
)
from warpsmith.records import Bound, BoundPlan, Build, Counters, GpuSpec, Profile

Roof = Literal["memory", "compute", "latency"]

BUSY = 0.6
"""Share of a peak from which on a resource binds."""
_LOAD_BYTES = 128.0
"""What 32 lanes load with four bytes each."""
_LOW_OCCUPANCY = 0.5
_MOSTLY = 0.5

ROOFS: Mapping[str, Roof] = MappingProxyType(
    {
        **dict.fromkeys(("memory bandwidth", "L2 bandwidth", "L1 throughput", "uncoalesced access"), "memory"),
        **dict.fromkeys(("bank conflicts", "shared memory", "atomics"), "memory"),
        **dict.fromkeys(("arithmetic", "special functions", "instruction issue", "divergence", "shuffles"), "compute"),
        **dict.fromkeys(("launch overhead", "too little parallelism", "latency", "memory latency"), "latency"),
    }
)
"""Which roof each bottleneck of `profile.ADVICE` belongs to; under `latency`, neither is near."""

_FROM_MEMORY = (STALLS["long_scoreboard"], STALLS["lg_throttle"])
_FROM_SHARED = (STALLS["short_scoreboard"], STALLS["mio_throttle"])


def from_metrics(metrics: Sequence[KernelMetrics], seconds: float, gpu: GpuSpec, limit: Bound) -> Profile | None:
    """Return the profile of one call from the metrics of its launches, in order.

    `seconds` is the measured time of the whole call: what the kernels do not take of it is the overhead of launches.
    None where there are no metrics, or not those that matter.
    """
    if not metrics:
        return None
    slowest = max(metrics, key=lambda one: one.seconds)
    if not slowest.busy or slowest.occupancy is None or not slowest.seconds > 0.0:
        return None
    facts = Facts(
        kernel=slowest.kernel,
        launches=len(metrics),
        overhead_share=_overhead(sum(one.seconds for one in metrics), seconds),
        occupancy=slowest.occupancy,
        occupancy_limit=slowest.occupancy_limit,
        waves=FEW_WAVES if slowest.waves is None else slowest.waves,
        block=math.prod(slowest.block),
        load_sectors=_sectors(slowest),
        conflicts=slowest.conflicts or 0.0,
        divergence=slowest.divergence or 0.0,
        bytes_ratio=_bytes_ratio(metrics, limit),
        barriers=None,
        stall=slowest.stalls[0][0] if slowest.stalls else "",
    )
    resources = _resources(slowest)
    binding = max(resources, key=lambda pair: pair[1])
    bottleneck = classify(resources if binding[1] >= BUSY else ((_awaited(slowest, facts), 1.0),), facts)
    shares = tuple((f"share_{name.replace(' ', '_')}", share) for name, share in resources)
    roofs = (("memory_roof", _memory_roof(metrics, gpu)), ("compute_roof", _compute_roof(metrics, gpu)))
    bound = (("bound_share", limit.seconds / seconds),)
    return Profile((*common_metrics(seconds, facts), *roofs, *bound, *shares), bottleneck, ADVICE[bottleneck](facts))


def from_times(
    times: Sequence[float],
    seconds: float,
    build: Build,
    plan: BoundPlan,
    gpu: GpuSpec,
    limit: Bound,
    counters: Sequence[Counters] = (),
) -> Profile | None:
    """Return the profile of one call from the measured time of each launch, in seconds, in the order of the plan.

    `counters` are those that the simulator counted of the same call, or empty. None where nothing can be said for sure.
    Raises ValueError where times and launches differ in number.
    """
    if len(times) != len(plan.launches):
        raise ValueError(f"{len(times)} times of {len(plan.launches)} launches")
    if not times:
        return None
    slowest = max(range(len(times)), key=lambda number: times[number])
    overhead = _overhead(sum(times), seconds)
    bound = ("bound_share", limit.seconds / seconds)
    if counters:
        estimates = explain(build, plan, counters, gpu)
        facts = replace(facts_of(estimates, counters, slowest, limit), overhead_share=overhead)
        bottleneck = classify(estimates[slowest].resources, facts)
        metrics = (*common_metrics(seconds, facts), bound, *time_metrics(estimates[slowest], "estimated_time"))
        return Profile(metrics, bottleneck, ADVICE[bottleneck](facts))
    facts = _facts_of_plan(slowest, overhead, build, plan, gpu)
    bottleneck = classify((_uncounted(limit, sum(times)),), facts)
    if bottleneck == "latency" and facts.occupancy >= _LOW_OCCUPANCY:
        return None
    known = ("seconds", "launches", "overhead_share", "occupancy", "waves")
    metrics = (*(pair for pair in common_metrics(seconds, facts) if pair[0] in known), bound)
    return Profile(metrics, bottleneck, ADVICE[bottleneck](facts))


# ------------------------------------------------------------------------------------------------------ from metrics


def _overhead(on_device: float, seconds: float) -> float:
    """Share of a call in which no kernel runs; none where the profiler slowed the kernels down."""
    return max(0.0, 1.0 - on_device / seconds)


def _bytes_ratio(metrics: Sequence[KernelMetrics], limit: Bound) -> float | None:
    parts = [part for one in metrics for part in (one.dram_read, one.dram_written)]
    known = [part for part in parts if part is not None]
    compulsory = limit.bytes_read + limit.bytes_written
    return sum(known) / compulsory if len(known) == len(parts) and compulsory else None


def _sectors(metrics: KernelMetrics) -> float:
    """Return how many sectors a load of four bytes per lane touches, where wider loads count as several."""
    return _LOAD_BYTES / metrics.load_bytes if metrics.load_bytes else metrics.load_sectors or 0.0


def _resources(metrics: KernelMetrics) -> tuple[tuple[str, float], ...]:
    """Return how busy each resource was. Shared memory goes through L1's data stage: the larger user answers for it."""
    busy = dict(metrics.busy)
    l1, shared = busy.get("l1", 0.0), busy.get("shared", 0.0)
    if l1 and shared >= _MOSTLY * l1:
        busy |= {"shared": l1, "l1": 0.0}
    return tuple(busy.items())


def _awaited(metrics: KernelMetrics, facts: Facts) -> str:
    """Return the resource that warps wait for, where none is busy."""
    requests = (metrics.loads or 0.0) + (metrics.stores or 0.0) + (metrics.atomics or 0.0)
    if facts.stall in _FROM_MEMORY:
        if metrics.atomics and metrics.atomics > _MOSTLY * requests:
            return "atomic"
        return "l1" if facts.load_sectors > SCATTERED else "in flight"
    if facts.stall in _FROM_SHARED and facts.conflicts > CONFLICTED:
        return "shared"
    return "latency"


def _memory_roof(metrics: Sequence[KernelMetrics], gpu: GpuSpec) -> float:
    """Share of the peak bandwidth of DRAM that the kernels reached together, over the time that they ran."""
    moved = sum((one.dram_read or 0.0) + (one.dram_written or 0.0) for one in metrics)
    return moved / (sum(one.seconds for one in metrics) * gpu.memory_bandwidth)


def _compute_roof(metrics: Sequence[KernelMetrics], gpu: GpuSpec) -> float:
    """Share of the peak of the type that is busiest, over the time that the kernels ran.

    Tensor cores are told by how long their pipe was busy. Half arithmetic without them has twice the peak of float32.
    """
    seconds = sum(one.seconds for one in metrics)
    peaks = {"fp32": gpu.fp32_flops, "fp16": 2.0 * gpu.fp32_flops, "fp64": gpu.fp64_flops}
    counted = {kind: sum(dict(one.operations).get(kind, 0.0) for one in metrics) for kind in peaks}
    tensor = sum(dict(one.busy).get("tensor", 0.0) * one.seconds for one in metrics) / seconds
    return max(tensor, *(counted[kind] / (seconds * peak) for kind, peak in peaks.items()))


# -------------------------------------------------------------------------------------------------------- from times


def _facts_of_plan(number: int, overhead: float, build: Build, plan: BoundPlan, gpu: GpuSpec) -> Facts:
    """Return what is known of a launch without any counter: its grid, and what the compiler says of its kernel."""
    launch = plan.launches[number]
    resources = next((one for one in build.resources if one.name == launch.kernel), None)
    blocks, occupancy_limit = occupancy(launch, resources, gpu)
    warps = -(-math.prod(launch.block) // 32)
    return Facts(
        kernel=launch.kernel,
        launches=len(plan.launches),
        overhead_share=overhead,
        occupancy=min(1.0, blocks * warps * 32 / gpu.threads_per_sm),
        occupancy_limit=occupancy_limit,
        waves=math.prod(launch.grid) / (gpu.sm_count * blocks),
        block=math.prod(launch.block),
        load_sectors=0.0,
        conflicts=0.0,
        divergence=0.0,
        bytes_ratio=None,
        barriers=None,
    )


def _uncounted(limit: Bound, on_device: float) -> tuple[str, float]:
    """Return what binds as far as times tell: what sets the bound, if the kernels are close to it, or else latency."""
    if limit.seconds / on_device < BUSY:
        return "latency", 1.0
    return ("dram" if limit.limit == "memory" else "fp32"), 1.0
