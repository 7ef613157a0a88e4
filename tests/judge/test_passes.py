"""The judge's own passes over large tensors compute what their descriptions say; on a GPU see `tests/gpu/test_passes.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from warpsmith.device.catalog import gpu
from warpsmith.device.protocol import target
from warpsmith.device.simulator import Simulator
from warpsmith.judge.passes import SOURCE, suits
from warpsmith.program import Builder, bind, parse_plan
from warpsmith.records import Program, TensorSpec

COUNT = 1000
SPEC = gpu("H100")


def call(tmp_path: Path, kernel: str, args: str, inputs: dict[str, torch.Tensor], out: str) -> torch.Tensor:
    """Run one kernel in the simulator, with fewer threads than elements."""
    text = f'[[launch]]\nkernel = "{kernel}"\ngrid = ["2"]\nblock = ["128"]\nargs = [{args}]\n'
    program = Program(SOURCE, parse_plan(text))
    tensors = [TensorSpec(name, (COUNT,), "float64") for name in (*inputs, out)]
    with Builder(tmp_path) as builder:
        build = builder.build(program, {}, target(SPEC))
        assert build.ok, build.diagnostics
        plan = bind(program.plan, {spec.name: spec for spec in tensors}, {}, SPEC)
        done = Simulator(SPEC).run(build, plan, inputs, tensors[-1:], fill=0xFF)
    assert done.findings == ()
    return done.outputs[out]


def amounts(seed: int) -> torch.Tensor:
    """The same in NumPy."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, COUNT + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    magnitude = 0.5 + (z >> np.uint64(12)).astype(np.float64) * 2.0**-52
    return torch.from_numpy(np.where(z & np.uint64(1), magnitude, -magnitude))


@pytest.fixture
def values() -> torch.Tensor:
    found = torch.randn(COUNT, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found[:4] = torch.tensor([3.0, float("inf"), float("nan"), -0.0], dtype=torch.float64)
    return found


def test_amounts(tmp_path: Path) -> None:
    found = call(tmp_path, "draw_amounts", f'"out", 7, {COUNT}', {}, "out")
    assert torch.equal(found, amounts(7))
    assert float(found.abs().min()) >= 0.5 and float(found.abs().max()) < 1.5
    assert 0.4 < float((found > 0).double().mean()) < 0.6


def test_integers_do_not_move(tmp_path: Path, values: torch.Tensor) -> None:
    found = call(tmp_path, "move_values", f'"out", "values", 1, 7, {COUNT}', {"values": values}, "out")
    due = torch.where(values == values.round(), values, values + values * amounts(7))
    assert torch.allclose(found, due, rtol=1e-15, atol=0.0, equal_nan=True)
    assert torch.equal(found[:2], values[:2])


def test_small_tensors_and_those_on_a_cpu_are_left_to_pytorch(values: torch.Tensor) -> None:
    assert not suits(values)
