"""What the tests on a GPU share: which GPU there is, one device and one judge for each task, and a short way to call."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from functools import cache

import pytest
import torch

from tests.judge.bench import builder
from warpsmith.device.cuda.device import CudaDevice, specs_of
from warpsmith.device.cuda.gpus import present_gpus
from warpsmith.judge import Judge
from warpsmith.records import BoundLaunch, BoundPlan, Build, Execution, Plan, Program, Task, TensorSpec

GPUS = present_gpus()
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not GPUS, reason="no NVIDIA GPU here")]
"""For `pytestmark` of every module here."""

COPY = """
extern "C" __global__ void copy(const unsigned char* x, unsigned char* out, long long bytes) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < bytes) out[i] = x[i];
}
"""


@cache
def shared_device() -> CudaDevice:
    """Return the device that the tests share; it is closed when they are over."""
    device = CudaDevice(GPUS[0], builder())
    atexit.register(device.close)
    return device


@cache
def judge_for(task: Task) -> Judge:
    """Return the judge of a task on the GPU."""
    return Judge(task, shared_device(), builder())


def compiled(device: CudaDevice, source: str) -> Build:
    """Compile device code for the GPU."""
    build = builder().build(Program(source, Plan((), (), (), ())), {}, device.architecture)
    assert build.ok, build.diagnostics
    return build


def launch(kernel: str, *args: str | int, grid: int = 1, block: int = 1, **more: object) -> BoundLaunch:
    """A launch with one dimension, with what else there is to say in `more`."""
    return BoundLaunch(kernel, (grid, 1, 1), (block, 1, 1), **{"shared": 0, "args": args, **more})  # type: ignore[arg-type]


def call(
    device: CudaDevice,
    source: str,
    launches: BoundLaunch | Sequence[BoundLaunch],
    inputs: dict[str, torch.Tensor],
    outputs: Sequence[TensorSpec],
    *,
    scratch: Sequence[TensorSpec] = (),
    fill: int = 1,
    budget: int | None = None,
) -> Execution:
    """Compile a program and call it once, with inputs moved to the GPU."""
    steps = (launches,) if isinstance(launches, BoundLaunch) else tuple(launches)
    there = {name: value.to(device.where) for name, value in inputs.items()}
    plan = BoundPlan(tuple(scratch), steps)
    return device.run(compiled(device, source), plan, there, outputs, fill=fill, budget=budget)


def copied(device: CudaDevice, x: torch.Tensor, *, fill: int = 1) -> Execution:
    """Copy a tensor by a program."""
    (spec,) = specs_of({"out": x})
    step = launch("copy", "x", "out", spec.nbytes, grid=max(1, -(-spec.nbytes // 256)), block=256)
    return call(device, COPY, step, {"x": x}, [spec], fill=fill)


def assert_works(device: CudaDevice) -> None:
    """The device runs a good program, and runs it right."""
    x = torch.arange(1000, dtype=torch.float32)
    execution = copied(device, x)
    assert execution.findings == () and torch.equal(execution.outputs["out"].cpu(), x)
