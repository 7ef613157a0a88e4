"""A first estimate of a program's time from what the simulator counted. A model, not a measurement.

Each launch uses several resources: the issue slots and pipes of its multiprocessors, shared memory, L1, L2, DRAM,
and the time that warps wait for answers. Each alone sets a least time; together they take the 2-norm of those times,
which lies between the greatest and the sum, so that every saving counts for something. The busiest multiprocessor
sets the pace. The blocks of a cluster run at the same time, on multiprocessors of their own as long as there are; those
that are left over when all clusters are placed stay idle. That clusters keep to parts of the GPU, some of which have an
odd number of multiprocessors, is not modelled. A launch adds an overhead: the times are those of a plan replayed as a
CUDA graph.

Where the numbers come from: throughputs per clock and multiprocessor from the CUDA C++ Programming Guide 13.0,
"Throughput of Native Arithmetic Instructions"; 128 bytes a clock for L1 and shared memory, and the granularities
of allocation, from the same guide and the CUDA occupancy calculator; bandwidths from the catalogue. Latencies and the
share of repeated reads that L1 serves are round figures of the size that microbenchmarks report. The overheads, the
latency of a read and the norm were chosen, in round figures, to agree with programs measured on an H200; how well they
do is what benchmarks/estimate_vs_measured.py prints. They are the same for all GPUs.

Multiply-adds of tensor cores are charged at the dense peak of the catalogue. What it gives for half precision is the
greater of two where they differ, that with float16 accumulators; with float32 ones, every GPU of the catalogue does
twice as many float16 or bfloat16 multiply-adds as TF32 ones, by the same datasheets. On compute capability 9.0 the
peaks are those of `wgmma`; how far `mma` stays below them is not modelled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from warpsmith.device.simulator.library import seconds_of
from warpsmith.records import BoundLaunch, BoundPlan, Build, Counters, GpuSpec, KernelResources, Timing

# The factor within which nine of ten measured programs lie.
UNCERTAINTY = 2.0
FIRST_LAUNCH = 1.2e-6
NEXT_LAUNCH = 1.0e-6
DRAM_EFFICIENCY = 0.92
L1_REUSE = 0.5
DRAM_LATENCY = 500e-9
LOADS_IN_FLIGHT = 4
ALU_LATENCY = 4.0
SHARED_LATENCY = 24.0
SHUFFLE_LATENCY = 20.0
SPECIAL_LATENCY = 18.0
TENSOR_LATENCY = 32.0
BARRIER_LATENCY = 30.0
READ_LATENCY = 300.0
REGISTER_UNIT = 256
SHARED_UNIT = 128
SHARED_RESERVED = 1024
SCHEDULERS = 4
NORM = 2.0

# Results per clock and multiprocessor.
PIPES: Mapping[tuple[int, int], Mapping[str, float]] = {
    (8, 0): {"fp32": 64, "fp64": 32, "fp16": 128, "int": 64, "special": 16, "convert": 64, "shuffle": 32},
    (8, 9): {"fp32": 128, "fp64": 2, "fp16": 128, "int": 64, "special": 16, "convert": 64, "shuffle": 32},
    (9, 0): {"fp32": 128, "fp64": 64, "fp16": 256, "int": 64, "special": 16, "convert": 64, "shuffle": 32},
}
ATOMICS_PER_CLOCK = 4.0


@dataclass(frozen=True, slots=True)
class LaunchEstimate:
    """Where the time of one launch goes.

    `resources` gives for each resource the least time in seconds that the launch would take if it were the only one;
    `binding` is the greatest. `occupancy` is the share of the multiprocessor's threads that can be resident, and
    `occupancy_limit` what keeps it from being more. `waves` is how many times the grid fills the GPU.
    """

    kernel: str
    seconds: float
    overhead: float
    resources: tuple[tuple[str, float], ...]
    binding: str
    occupancy: float
    occupancy_limit: str
    blocks_per_sm: int
    waves: float


def occupancy(launch: BoundLaunch, resources: KernelResources | None, spec: GpuSpec) -> tuple[int, str]:
    """Return how many blocks fit on a multiprocessor at once, and what limits them."""
    warps = -(-math.prod(launch.block) // 32)
    limits = {"threads": spec.threads_per_sm // (32 * warps), "blocks": spec.blocks_per_sm}
    registers = resources.registers if resources is not None else 32
    if registers:
        per_warp = -(-registers * 32 // REGISTER_UNIT) * REGISTER_UNIT
        limits["registers"] = spec.registers_per_sm // per_warp // warps
    shared = launch.shared + (resources.shared if resources is not None else 0)
    per_block = -(-(shared + SHARED_RESERVED) // SHARED_UNIT) * SHARED_UNIT
    limits["shared memory"] = spec.shared_per_sm // per_block
    limit = min(limits, key=lambda name: limits[name])
    return max(1, limits[limit]), limit


def explain(build: Build, plan: BoundPlan, counters: Sequence[Counters], spec: GpuSpec) -> tuple[LaunchEstimate, ...]:
    """Estimate every launch of a plan. `counters` are those of one call, in the order of the launches."""
    known = {one.name: one for one in build.resources}
    return tuple(
        _launch(launch, known.get(launch.kernel), counted, spec, FIRST_LAUNCH if number == 0 else NEXT_LAUNCH)
        for number, (launch, counted) in enumerate(zip(plan.launches, counters, strict=True))
    )


def library_seconds(plan: BoundPlan, spec: GpuSpec) -> float:
    """Estimate how much of one call of a plan library calls take, with their launches; see `library`."""
    bandwidth = spec.memory_bandwidth * DRAM_EFFICIENCY
    seconds = sum(NEXT_LAUNCH + seconds_of(call, spec, bandwidth) for call in plan.calls)
    return seconds if plan.launches or not plan.calls else seconds + FIRST_LAUNCH - NEXT_LAUNCH


def estimate(build: Build, plan: BoundPlan, counters: Sequence[Counters], spec: GpuSpec) -> Timing:
    """Estimate the time of one call of a plan."""
    seconds = sum(one.seconds for one in explain(build, plan, counters, spec)) + library_seconds(plan, spec)
    interval = (seconds / UNCERTAINTY, seconds * UNCERTAINTY)
    return Timing((seconds,), seconds, interval, "estimated", spec.name)


def _launch(
    launch: BoundLaunch, resources: KernelResources | None, counted: Counters, spec: GpuSpec, overhead: float
) -> LaunchEstimate:
    blocks_per_sm, limit = occupancy(launch, resources, spec)
    blocks = math.prod(launch.grid)
    warps_per_block = -(-math.prod(launch.block) // 32)
    together = math.prod(launch.cluster)
    at_once = spec.sm_count // together * together
    busiest = -(-blocks // at_once) / blocks
    waves = blocks / (at_once * blocks_per_sm)
    resident = min(blocks, at_once * blocks_per_sm) * warps_per_block
    times = {
        **_pipes(counted, spec, busiest),
        **_memory(counted, spec, busiest, resident),
        "latency": _latency(counted, blocks * warps_per_block, max(1.0, waves)) / spec.clock,
    }
    scale = max(times.values())
    busy = scale * sum((one / scale) ** NORM for one in times.values()) ** (1 / NORM) if scale else 0.0
    binding = max(times, key=lambda name: times[name]) if busy > overhead else "launch overhead"
    return LaunchEstimate(
        launch.kernel,
        busy + overhead,
        overhead,
        tuple(times.items()),
        binding,
        min(1.0, blocks_per_sm * warps_per_block * 32 / spec.threads_per_sm),
        limit,
        blocks_per_sm,
        waves,
    )


def pipe_rates(spec: GpuSpec) -> Mapping[str, float]:
    """Results per clock and multiprocessor of the nearest compute capability that is known, not newer."""
    older = [one for one in PIPES if one <= spec.compute_capability]
    return PIPES[max(older, default=min(PIPES))]


def tensor_rates(spec: GpuSpec) -> Mapping[str, float]:
    """Dense peaks of the whole GPU in FLOP/s, two for a multiply-add, by the names in `Counters.tensor`."""
    mixed = min(spec.half_flops, 2 * spec.tf32_flops)
    return {"tf32": spec.tf32_flops, "f16": mixed, "bf16": mixed, "f16.f16": spec.half_flops}


def _pipes(counted: Counters, spec: GpuSpec, busiest: float) -> dict[str, float]:
    """Seconds that the busiest multiprocessor's issue slots and arithmetic pipes need."""
    issued = {name: count for name, count in counted.issued if name != "other"}
    times = {"issue": sum(issued.values()) / SCHEDULERS}
    for name, rate in pipe_rates(spec).items():
        times[name] = issued.get(name, 0) * 32 / rate
    times["shared"] = float(counted.shared_wavefronts)
    seconds = {name: cycles * busiest / spec.clock for name, cycles in times.items()}
    if counted.tensor:
        rates = tensor_rates(spec)
        whole = sum(2 * count / rates[name] for name, count in counted.tensor)
        seconds["tensor"] = whole * busiest * spec.sm_count
    return seconds


def _memory(counted: Counters, spec: GpuSpec, busiest: float, resident_warps: int) -> dict[str, float]:
    """Seconds that L1, L2 and DRAM need, and those that requests in flight allow (Little's law)."""
    sectors = counted.global_load_sectors + counted.global_store_sectors
    requests = counted.global_load_requests + counted.global_store_requests
    moved = 32.0 * sectors + counted.local_bytes
    unique = counted.unique_load_bytes + counted.unique_store_bytes
    through_l2 = unique + max(0.0, moved - unique) * (1 - L1_REUSE)
    atomics = dict(counted.instructions).get("atomic", 0)
    times = {
        "l1": max(requests, moved / 128) * busiest / spec.clock,
        "l2": through_l2 / spec.l2_bandwidth,
        "dram": unique / (spec.memory_bandwidth * DRAM_EFFICIENCY),
        "atomic": atomics / ATOMICS_PER_CLOCK * busiest / spec.clock,
        "in flight": 0.0,
    }
    loads = counted.global_load_requests
    if loads and counted.unique_load_bytes:
        per_request = 32.0 * counted.global_load_sectors / loads
        in_flight = resident_warps * per_request * LOADS_IN_FLIGHT
        times["in flight"] = counted.unique_load_bytes * DRAM_LATENCY / in_flight
    return times


def _latency(counted: Counters, warps: int, rounds: float) -> float:
    """Cycles that one warp takes from start to end when nothing else is in its way, times rounds of warps."""
    issued = dict(counted.issued)
    arithmetic = sum(issued.get(name, 0) for name in ("fp32", "fp64", "fp16", "int", "convert", "control"))
    cycles = (
        arithmetic * ALU_LATENCY / 2
        + issued.get("special", 0) * SPECIAL_LATENCY / 2
        + issued.get("tensor", 0) * TENSOR_LATENCY / LOADS_IN_FLIGHT
        + issued.get("shuffle", 0) * SHUFFLE_LATENCY
        + issued.get("barrier", 0) * BARRIER_LATENCY
        + counted.shared_requests * SHARED_LATENCY / LOADS_IN_FLIGHT
        + counted.chained_reads * READ_LATENCY
    )
    return cycles / warps * rounds
