"""Where the time goes: one named bottleneck, and the change that it calls for.

The bottleneck is that of the launch that takes most of the time. Its name comes from the resource that binds in the
device's estimate, refined by what was counted: L1 traffic is *uncoalesced access* where a request touches many more
sectors than it needs, shared memory is *bank conflicts* where requests are split. Advice prescribes one change, with
the numbers that speak for it; an author may disagree, a reader can check. `roofline` gives the same names and the same
advice from what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from warpsmith.device.simulator import LaunchEstimate, explain
from warpsmith.device.simulator.estimate import library_seconds
from warpsmith.records import Bound, BoundPlan, Build, Counters, GpuSpec, Profile

_FULL_REQUEST = 4.0
"""Sectors that 32 lanes with 4 bytes each need when they are neighbours."""
SCATTERED = 2.0 * _FULL_REQUEST
CONFLICTED = 1.5
FEW_WAVES = 1.0
_OVERHEAD_OF_SEVERAL = 0.5
_OVERHEAD_OF_ONE = 0.9
_DIVERGENT = 0.25


@dataclass(frozen=True, slots=True)
class Facts:
    """What the advice may quote. Shares are of one; `bytes_ratio` is bytes moved over compulsory bytes.

    `bytes_ratio` and `barriers`, which warps execute, are None where nobody counted them; `stall` says in words what
    warps wait for most often, where that was measured.
    """

    kernel: str
    launches: int
    overhead_share: float
    occupancy: float
    occupancy_limit: str
    waves: float
    block: int
    load_sectors: float
    conflicts: float
    divergence: float
    bytes_ratio: float | None
    barriers: int | None
    stall: str = ""


def profile(build: Build, plan: BoundPlan, counters: Sequence[Counters], gpu: GpuSpec, limit: Bound) -> Profile | None:
    """Return the profile of one call, or None for a plan without launches."""
    estimates = explain(build, plan, counters, gpu)
    if not estimates:
        return None
    slowest = max(range(len(estimates)), key=lambda i: estimates[i].seconds)
    facts = facts_of(estimates, counters, slowest, limit)
    bottleneck = classify(estimates[slowest].resources, facts)
    seconds = sum(one.seconds for one in estimates) + library_seconds(plan, gpu)
    metrics = (*common_metrics(seconds, facts), *time_metrics(estimates[slowest]))
    return Profile(metrics, bottleneck, ADVICE[bottleneck](facts))


def classify(resources: Sequence[tuple[str, float]], facts: Facts) -> str:
    """Name the bottleneck: a key of `ADVICE`. The resource with the greatest number, whatever it counts, binds."""
    if facts.overhead_share > (_OVERHEAD_OF_SEVERAL if facts.launches > 1 else _OVERHEAD_OF_ONE):
        return "launch overhead"
    binding = max(resources, key=lambda pair: pair[1])[0]
    if binding in ("l1", "l2") and facts.load_sectors > SCATTERED:
        return "uncoalesced access"
    if binding == "shared" and facts.conflicts > CONFLICTED:
        return "bank conflicts"
    if binding in ("latency", "in flight") and facts.waves < FEW_WAVES:
        return "too little parallelism"
    if binding == "issue" and facts.divergence > _DIVERGENT:
        return "divergence"
    return _NAMES.get(binding, "arithmetic")


def facts_of(estimates: Sequence[LaunchEstimate], counters: Sequence[Counters], number: int, limit: Bound) -> Facts:
    """Return what advice on launch `number` of a call may quote, from estimates and counters of all its launches."""
    estimate, counted = estimates[number], counters[number]
    total = sum(one.seconds for one in estimates)
    moved = sum(one.unique_load_bytes + one.unique_store_bytes for one in counters)
    return Facts(
        kernel=estimate.kernel,
        launches=len(estimates),
        overhead_share=sum(one.overhead for one in estimates) / total,
        occupancy=estimate.occupancy,
        occupancy_limit=estimate.occupancy_limit,
        waves=estimate.waves,
        block=math.prod(counted.block),
        load_sectors=_ratio(counted.global_load_sectors, counted.global_load_requests),
        conflicts=_ratio(counted.shared_wavefronts, counted.shared_requests),
        divergence=_ratio(counted.divergent_branches, counted.branches),
        bytes_ratio=_ratio(moved, limit.bytes_read + limit.bytes_written),
        barriers=dict(counted.issued).get("barrier", 0),
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def common_metrics(seconds: float, facts: Facts) -> tuple[tuple[str, float], ...]:
    """Return the numbers that every profile has. `seconds` is the time of one call."""
    return (
        ("seconds", seconds),
        ("launches", float(facts.launches)),
        ("overhead_share", facts.overhead_share),
        ("occupancy", facts.occupancy),
        ("waves", facts.waves),
        ("sectors_per_load", facts.load_sectors),
        ("wavefronts_per_shared_access", facts.conflicts),
        ("divergent_branches", facts.divergence),
        *((("bytes_over_compulsory", facts.bytes_ratio),) if facts.bytes_ratio is not None else ()),
    )


def time_metrics(estimate: LaunchEstimate, name: str = "time") -> tuple[tuple[str, float], ...]:
    """Return how long each resource alone would take for a launch, in seconds, called `<name>_<resource>`."""
    return tuple((f"{name}_{resource.replace(' ', '_')}", seconds) for resource, seconds in estimate.resources)


_NAMES: Mapping[str, str] = {
    "dram": "memory bandwidth",
    "l2": "L2 bandwidth",
    "l1": "L1 throughput",
    "shared": "shared memory",
    "atomic": "atomics",
    "special": "special functions",
    "shuffle": "shuffles",
    "issue": "instruction issue",
    "latency": "latency",
    "in flight": "memory latency",
    "loads and stores": "L1 throughput",
}


def _launch_overhead(facts: Facts) -> str:
    if facts.launches > 1:
        return (
            f"{facts.overhead_share:.0%} of the time is the overhead of {facts.launches} launches. "
            "Fuse kernels, so that intermediate results stay in registers or shared memory."
        )
    return (
        f"{facts.overhead_share:.0%} of the time is the overhead of the only launch. "
        "The kernel itself has little left to gain; larger shapes would show differences."
    )


def _bandwidth(facts: Facts) -> str:
    if facts.bytes_ratio is None:
        return (
            "The time is close to that of moving the compulsory bytes, so little is left to gain. "
            "Wider loads and more of them in flight bring it closer to the peak."
        )
    if facts.bytes_ratio > 1.5:
        return (
            f"DRAM traffic is {facts.bytes_ratio:.1f} times what the task must move. "
            "Fuse launches that pass data through global memory, or keep rows in registers between passes."
        )
    return (
        f"DRAM binds and traffic is {facts.bytes_ratio:.1f} times the compulsory, so little is left to gain. "
        "Wider loads and more of them in flight bring it closer to the peak."
    )


def _l2(facts: Facts) -> str:
    return (
        f"Data is read again and again through L2 ({facts.load_sectors:.1f} sectors per load). "
        "Stage tiles in shared memory or let each thread compute several outputs, so that a value serves more often."
    )


def _l1(facts: Facts) -> str:
    return (
        f"Loads and stores keep L1 busy at {facts.load_sectors:.1f} sectors each. "
        "Load vectors of four elements, and keep what is used twice in registers."
    )


def _uncoalesced(facts: Facts) -> str:
    return (
        f"A load of kernel {facts.kernel} touches {facts.load_sectors:.1f} sectors; neighbouring lanes need "
        f"{_FULL_REQUEST:.0f}. Give neighbouring lanes neighbouring addresses, or transpose through shared memory."
    )


def _conflicts(facts: Facts) -> str:
    return (
        f"A shared access takes {facts.conflicts:.1f} wavefronts where one would do. "
        "Pad rows by one element or swizzle the index, so that the lanes of a warp fall into different banks."
    )


def _shared(facts: Facts) -> str:
    return (
        "Shared memory delivers all it can. Let each thread hold a tile of outputs in registers, so that a value "
        "loaded from shared memory is used several times; load vectors."
    )


def _atomics(facts: Facts) -> str:
    return (
        "Atomics queue up. Reduce within the warp by shuffles and within the block in shared memory first, so that "
        "one atomic per block is left, or write partial results and add them in a second launch."
    )


def _special(facts: Facts) -> str:
    return (
        "The special function unit binds. Evaluate exponentials once and keep them, use one reciprocal in place of "
        "divisions, or polynomials on the ordinary cores."
    )


def _shuffles(facts: Facts) -> str:
    return "Shuffles bind. Let each lane combine more elements in registers before lanes exchange results."


def _issue(facts: Facts) -> str:
    return (
        "Instructions cannot be issued any faster. Save index arithmetic: unroll, use vector loads, hoist what "
        "does not change out of loops, and compute several outputs per thread."
    )


def _divergence(facts: Facts) -> str:
    return (
        f"{facts.divergence:.0%} of branches diverge, and each path is issued by itself. "
        "Sort the work so that a warp takes one path, or replace branches by selections."
    )


def _occupancy(facts: Facts) -> str:
    limit = f" (limited by {facts.occupancy_limit})" if facts.occupancy_limit else ""
    return f"{facts.occupancy:.0%} occupancy{limit}"


def _barriers(facts: Facts) -> str:
    return f" (now {facts.barriers})" if facts.barriers is not None else ""


def _latency(facts: Facts) -> str:
    return (
        f"Warps wait for {facts.stall or 'their own results'} at {_occupancy(facts)}. "
        f"Shorten dependent chains: several accumulators per thread, fewer barriers{_barriers(facts)}, "
        "warp shuffles in place of shared memory trees."
    )


def _memory_latency(facts: Facts) -> str:
    return (
        f"Too few bytes are on their way at {_occupancy(facts)}. "
        "Issue several independent vector loads per thread before the first is used, or raise occupancy."
    )


def _parallelism(facts: Facts) -> str:
    return (
        f"The grid fills {facts.waves:.2f} of the GPU once, so most of it idles. Split the work further: more blocks "
        f"than now with {facts.block} threads, several blocks per row, or split the inner dimension."
    )


def _arithmetic(facts: Facts) -> str:
    return (
        "An arithmetic pipe binds, which is where a contraction should be. Save conversions and integer index "
        "arithmetic; for matrix products use tensor cores in a precision that the task allows."
    )


ADVICE: Mapping[str, Callable[[Facts], str]] = {
    "launch overhead": _launch_overhead,
    "memory bandwidth": _bandwidth,
    "L2 bandwidth": _l2,
    "L1 throughput": _l1,
    "uncoalesced access": _uncoalesced,
    "bank conflicts": _conflicts,
    "shared memory": _shared,
    "atomics": _atomics,
    "special functions": _special,
    "shuffles": _shuffles,
    "instruction issue": _issue,
    "divergence": _divergence,
    "latency": _latency,
    "memory latency": _memory_latency,
    "too little parallelism": _parallelism,
    "arithmetic": _arithmetic,
}
