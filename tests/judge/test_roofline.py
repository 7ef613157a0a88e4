"""What is measured leads to the same names as what is estimated, and what was not measured leads to none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from warpsmith.device.catalog import gpu
from warpsmith.judge import ncu, roofline
from warpsmith.judge.ncu import KernelMetrics
from warpsmith.judge.ncu_names import STALLS
from warpsmith.judge.profile import ADVICE
from warpsmith.records import Bound, BoundLaunch, BoundPlan, Build, Counters, KernelResources, Profile

H200 = gpu("H200")
REPORT = Path(__file__).parents[1] / "device" / "data" / "ncu.csv"
SOFTMAX = ncu.parse(REPORT.read_text(encoding="utf-8"))[0]
LIMIT = Bound(33_554_432, 33_554_432, 10**8, "H200", 14e-6, "memory")
MEMORY, BARRIER = STALLS["long_scoreboard"], STALLS["barrier"]


def kernel(stall: str = "", **busy: float) -> KernelMetrics:
    """A launch whose resources are as busy as said, where warps wait for `stall`."""
    named = tuple((name.replace("_", " "), share) for name, share in busy.items())
    return replace(SOFTMAX, busy=named, stalls=((stall, 5.0),) if stall else ())


def profile(*metrics: KernelMetrics, seconds: float = 23e-6) -> Profile:
    found = roofline.from_metrics(metrics, seconds, H200, LIMIT)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("metrics", "name"),
    [
        (kernel(dram=0.9, issue=0.3), "memory bandwidth"),
        (kernel(dram=0.5, l2=0.8), "L2 bandwidth"),
        (replace(kernel(l2=0.8), load_bytes=4.0), "uncoalesced access"),
        (kernel(l1=0.8, shared=0.1), "L1 throughput"),
        (replace(kernel(l1=0.8, shared=0.7), conflicts=1.0), "shared memory"),
        (replace(kernel(l1=0.8, shared=0.7), conflicts=8.0), "bank conflicts"),
        (kernel(loads_and_stores=0.8), "L1 throughput"),
        (kernel(issue=0.9), "instruction issue"),
        (replace(kernel(issue=0.9), divergence=0.6), "divergence"),
        (kernel(special=0.9), "special functions"),
        (kernel(tensor=0.9, issue=0.3), "arithmetic"),
        (kernel(MEMORY, dram=0.4), "memory latency"),
        (replace(kernel(MEMORY, dram=0.4), waves=0.2), "too little parallelism"),
        (replace(kernel(MEMORY, dram=0.4), load_bytes=4.0), "uncoalesced access"),
        (replace(kernel(MEMORY, dram=0.4), atomics=1e9), "atomics"),
        (replace(kernel(STALLS["mio_throttle"], l1=0.5), conflicts=8.0), "bank conflicts"),
        (kernel(BARRIER, dram=0.4), "latency"),
    ],
)
def test_what_binds_has_the_name_that_the_estimate_would_give_it(metrics: KernelMetrics, name: str) -> None:
    found = profile(metrics)
    assert found.bottleneck == name and len(found.advice) > 40


def test_vector_loads_of_neighbours_are_not_taken_for_scattered() -> None:
    assert SOFTMAX.load_sectors == 16.0, "a request of 16 bytes per lane"
    assert profile(kernel(l1=0.9)).bottleneck == "L1 throughput"


def test_advice_on_latency_names_what_warps_wait_for() -> None:
    assert BARRIER in profile(kernel(BARRIER, dram=0.4)).advice


def test_time_outside_of_kernels_is_the_overhead_of_launches() -> None:
    found = profile(*[replace(SOFTMAX, seconds=1e-6)] * 3, seconds=9e-6)
    assert found.bottleneck == "launch overhead" and "67% of the time" in found.advice and "3 launches" in found.advice
    slowed = dict(profile(SOFTMAX, seconds=10e-6).metrics)
    assert slowed["overhead_share"] == 0.0, "kernels that the profiler slowed down leave no negative overhead"


def test_shares_of_both_roofs_are_those_reached() -> None:
    metrics = dict(profile(SOFTMAX, seconds=28e-6).metrics)
    assert metrics["memory_roof"] == pytest.approx((67_112_960 + 25_165_824) / 21.344e-6 / 4.8e12)
    assert metrics["compute_roof"] == pytest.approx(67_108_864 / 21.344e-6 / 66.9e12)
    assert metrics["bound_share"] == pytest.approx(0.5) and metrics["share_dram"] == pytest.approx(0.887)
    assert metrics["bytes_over_compulsory"] == pytest.approx(92_278_784 / 67_108_864)
    tensor = dict(profile(replace(SOFTMAX, busy=(("tensor", 0.7),))).metrics)
    assert tensor["compute_roof"] == pytest.approx(0.7)


def test_metrics_that_say_nothing_give_no_profile() -> None:
    assert roofline.from_metrics((), 1e-6, H200, LIMIT) is None
    assert roofline.from_metrics((replace(SOFTMAX, busy=()),), 1e-6, H200, LIMIT) is None
    assert roofline.from_metrics((replace(SOFTMAX, occupancy=None),), 1e-6, H200, LIMIT) is None
    unknown = profile(replace(SOFTMAX, dram_read=None))
    assert "bytes_over_compulsory" not in dict(unknown.metrics)


def test_every_bottleneck_lies_under_a_roof() -> None:
    assert set(roofline.ROOFS) == set(ADVICE)


# ----------------------------------------------------------------------------------------------------------- times


def plan(grid: int = 4096, launches: int = 1) -> BoundPlan:
    return BoundPlan(
        (), tuple(BoundLaunch(f"k{number}", (grid, 1, 1), (256, 1, 1), 0, ()) for number in range(launches))
    )


def build(registers: int = 32) -> Build:
    resources = tuple(KernelResources(f"k{number}", registers, 0, 0, 0, 0) for number in range(4))
    return Build("key", "sm_90a", True, "", b"", resources, (), 0.1)


def counted(**kinds: int) -> Counters:
    issued = tuple(kinds.items())
    return Counters(
        "k0",
        (4096, 1, 1),
        (256, 1, 1),
        0,
        issued,
        issued,
        1 << 21,
        1 << 20,
        1 << 19,
        1 << 18,
        1 << 25,
        1 << 25,
        0,
        0,
        0,
        0,
        100,
    )


def test_with_the_simulators_counters_the_estimate_names_what_binds_and_the_clock_the_overhead() -> None:
    found = roofline.from_times([20e-6], 22e-6, build(), plan(), H200, LIMIT, [counted(fp32=1000)])
    assert found is not None and found.bottleneck == "memory bandwidth"
    metrics = dict(found.metrics)
    assert metrics["overhead_share"] == pytest.approx(1 / 11) and metrics["seconds"] == pytest.approx(22e-6)
    assert not any(name.startswith("time_") for name in metrics), "an estimate is not to look like a measurement"
    special = roofline.from_times([20e-6], 22e-6, build(), plan(), H200, LIMIT, [counted(special=10**9)])
    assert special is not None and special.bottleneck == "special functions"


@pytest.mark.parametrize(
    ("times", "seconds", "registers", "grid", "name"),
    [
        ([1e-6, 1e-6], 6e-6, 32, 4096, "launch overhead"),
        ([16e-6], 17e-6, 32, 4096, "memory bandwidth"),
        ([50e-6], 51e-6, 32, 4, "too little parallelism"),
        ([50e-6], 51e-6, 255, 4096, "latency"),
    ],
)
def test_times_alone_say_a_little(times: list[float], seconds: float, registers: int, grid: int, name: str) -> None:
    found = roofline.from_times(times, seconds, build(registers), plan(grid, len(times)), H200, LIMIT)
    assert found is not None and found.bottleneck == name
    assert "sectors_per_load" not in dict(found.metrics), "nobody counted sectors"
    if name == "latency":
        assert "12% occupancy (limited by registers)" in found.advice


def test_times_alone_do_not_guess() -> None:
    assert roofline.from_times([50e-6], 51e-6, build(), plan(), H200, LIMIT) is None
    assert roofline.from_times([], 51e-6, build(), plan(launches=0), H200, LIMIT) is None


def test_a_time_for_every_launch_is_demanded() -> None:
    with pytest.raises(ValueError, match="2 times of 1 launches"):
        roofline.from_times([1e-6, 1e-6], 3e-6, build(), plan(), H200, LIMIT)
