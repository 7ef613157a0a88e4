"""A device that runs Python functions in place of kernels, for the parts of the judge that need no simulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from warpsmith.device.catalog import gpu
from warpsmith.records import BoundPlan, Build, Counters, Execution, GpuSpec, Program, TensorSpec, Timing

Compute = Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]]


class FakeBuilder:
    """Compiles nothing; every program is fine."""

    def build(self, program: Program, tunables: Mapping[str, int], architecture: str) -> Build:
        kernels = {launch.kernel: len(launch.args) for launch in program.plan.launches}
        ptx = "".join(f".entry {name}({', '.join(['.param .u64 p'] * count)})" for name, count in kernels.items())
        return Build("fake", architecture, True, ptx, b"", (), (), 0.0)


class FakeDevice:
    """Answers with what `compute` makes of the inputs. `seconds` is the time that it claims."""

    def __init__(self, compute: Compute, seconds: float = 1e-4) -> None:
        self.compute = compute
        self.seconds = seconds
        self.calls = 0

    where = "cpu"
    architecture = "sm_90"

    def close(self) -> None:
        pass

    def exclusive(self) -> AbstractContextManager[object]:
        return nullcontext()

    @property
    def spec(self) -> GpuSpec:
        return gpu("H200")

    def run(
        self,
        build: Build,
        plan: BoundPlan,
        inputs: Mapping[str, torch.Tensor],
        outputs: Sequence[TensorSpec],
        *,
        fill: int,
        sanitize: bool = False,
        count: bool = True,
        budget: int | None = None,
    ) -> Execution:
        self.calls += 1
        computed = {name: value.contiguous() for name, value in self.compute(inputs).items()}
        return Execution(computed, (), (), (), (), 0.0)

    def time(self, build: Build, plan: BoundPlan, counters: Sequence[Counters]) -> Timing:
        low, high = 0.9 * self.seconds, 1.1 * self.seconds
        return Timing((self.seconds,), self.seconds, (low, high), "estimated", self.spec.name)
