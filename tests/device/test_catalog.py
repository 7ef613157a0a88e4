"""The catalogue: names that people type find their GPU, and figures that belong together agree."""

from __future__ import annotations

import pytest

from warpsmith.device.catalog import GPUS, gpu
from warpsmith.errors import SettingsError
from warpsmith.records import GpuSpec


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("H200", "H200"),
        ("h100", "H100"),
        (" a100 ", "A100"),
        ("l40s", "L40S"),
        ("rtx4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("rtx-4090", "RTX 4090"),
        ("nvidia b200", "B200"),
    ],
)
def test_names_are_found_however_they_are_typed(typed: str, name: str) -> None:
    assert gpu(typed) is GPUS[name]


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError) as caught:
        gpu("H20")
    assert "did you mean 'H200'" in str(caught.value)
    assert all(name in str(caught.value) for name in GPUS)


@pytest.mark.parametrize("spec", GPUS.values(), ids=lambda spec: spec.name)
def test_peak_float32_follows_from_lanes_and_clock(spec: GpuSpec) -> None:
    lanes = 64 if spec.compute_capability == (8, 0) else 128
    assert spec.fp32_flops == pytest.approx(spec.sm_count * lanes * 2 * spec.clock, rel=0.02)


@pytest.mark.parametrize("spec", GPUS.values(), ids=lambda spec: spec.name)
def test_memory_hierarchy_is_ordered(spec: GpuSpec) -> None:
    assert spec.shared_per_block < spec.shared_per_sm < spec.l2_bytes < spec.memory_bytes
    assert spec.memory_bandwidth < spec.l2_bandwidth
    assert spec.fp64_flops <= spec.fp32_flops <= spec.tf32_flops <= spec.half_flops


@pytest.mark.parametrize("spec", GPUS.values(), ids=lambda spec: spec.name)
def test_every_entry_says_where_its_figures_come_from(spec: GpuSpec) -> None:
    assert "NVIDIA" in spec.source
    assert "L2 bandwidth" in spec.source
    assert any(word in spec.source for word in ("measured", "derived", "estimated"))
