"""The bottleneck that a profile names is the one that a kernel was built to have."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.judge.bench import judge_for
from tests.judge.fakes import FakeBuilder, FakeDevice
from tests.judge.kernels import LAYER_NORM, SQUARE, TOTAL, Kernel, candidate_of, task_of
from warpsmith.device.simulator import LaunchEstimate
from warpsmith.judge import Judge
from warpsmith.judge.profile import ADVICE, Facts, classify
from warpsmith.records import Profile

FACTS = Facts("k", 1, 0.1, 0.5, "registers", 3.0, 128, 4.0, 1.0, 0.01, 1.0, 2)


def estimate(binding: str) -> LaunchEstimate:
    resources = tuple((name, 2e-6 if name == binding else 1e-6) for name in ("dram", "l1", "shared", "issue", binding))
    return LaunchEstimate("k", 3e-6, 1e-6, resources, binding, 0.5, "registers", 4, 3.0)


def profile_of(kernel: Kernel) -> Profile:
    profile = judge_for(task_of(kernel)).judge(candidate_of(kernel)).profile
    assert profile is not None
    return profile


@pytest.mark.parametrize(
    ("binding", "facts", "name"),
    [
        ("dram", FACTS, "memory bandwidth"),
        ("l1", FACTS, "L1 throughput"),
        ("l1", replace(FACTS, load_sectors=32.0), "uncoalesced access"),
        ("l2", replace(FACTS, load_sectors=32.0), "uncoalesced access"),
        ("shared", FACTS, "shared memory"),
        ("shared", replace(FACTS, conflicts=8.0), "bank conflicts"),
        ("latency", FACTS, "latency"),
        ("latency", replace(FACTS, waves=0.1), "too little parallelism"),
        ("issue", FACTS, "instruction issue"),
        ("issue", replace(FACTS, divergence=0.6), "divergence"),
        ("special", FACTS, "special functions"),
        ("fp32", FACTS, "arithmetic"),
        ("dram", replace(FACTS, launches=5, overhead_share=0.6), "launch overhead"),
    ],
)
def test_a_binding_resource_has_a_name_and_advice(binding: str, facts: Facts, name: str) -> None:
    assert classify(estimate(binding).resources, facts) == name
    assert len(ADVICE[name](facts)) > 40


def test_all_advice_can_be_given_and_differs() -> None:
    assert len({advise(FACTS) for advise in ADVICE.values()}) == len(ADVICE)


def test_advice_claims_nothing_that_nobody_counted() -> None:
    facts = replace(FACTS, bytes_ratio=None, barriers=None, occupancy_limit="")
    assert "times" not in ADVICE["memory bandwidth"](facts)
    assert "now" not in ADVICE["latency"](facts) and "limited" not in ADVICE["latency"](facts)
    assert "the other warps at a barrier" in ADVICE["latency"](replace(facts, stall="the other warps at a barrier"))


def test_several_tiny_launches_are_told_to_fuse() -> None:
    profile = profile_of(TOTAL)
    assert profile.bottleneck == "launch overhead" and "2 launches" in profile.advice and "Fuse" in profile.advice


def test_metrics_are_those_of_the_call() -> None:
    metrics = dict(profile_of(LAYER_NORM).metrics)
    assert metrics["launches"] == 1.0 and 0.0 < metrics["occupancy"] <= 1.0
    assert metrics["bytes_over_compulsory"] == pytest.approx(1.0, rel=0.05)


def test_a_device_that_counts_nothing_gives_no_profile() -> None:
    def square(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"out": inputs["x"] * inputs["x"] + inputs["x"]}

    verdict = Judge(task_of(SQUARE), FakeDevice(square), FakeBuilder()).judge(candidate_of(SQUARE))  # type: ignore[arg-type]
    assert verdict.passed and verdict.profile is None
