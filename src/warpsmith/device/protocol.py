"""What a device is to the judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from warpsmith.records import BoundPlan, Build, Counters, Execution, GpuSpec, TensorSpec, Timing

if TYPE_CHECKING:
    import torch


def target(spec: GpuSpec) -> str:
    """Return what to compile for: `sm_89`, or `sm_90a`, which has the instructions of one architecture, as `wgmma`."""
    major, minor = spec.compute_capability
    return f"sm_{major}{minor}a" if major >= 9 else f"sm_{major}{minor}"


class Device(Protocol):
    """Runs built programs. The simulator is one; a GPU behind the CUDA driver is another."""

    @property
    def spec(self) -> GpuSpec:
        """The GPU that is simulated or present."""
        ...

    @property
    def architecture(self) -> str:
        """What to compile for, such as `sm_90a`."""
        ...

    @property
    def where(self) -> str:
        """The PyTorch device on which references are computed and outputs returned: `cpu`, or `cuda:0`."""
        ...

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
        """Call the program once.

        Outputs and scratch are filled with a NaN pattern drawn from the seed `fill` (random bits where the dtype has
        no NaN), guard zones surround every buffer, those of inputs hold NaN. `sanitize` also looks for races and
        uninitialised reads; `count` collects counters; `budget` limits thread-instructions.
        """
        ...

    def close(self) -> None:
        """End what belongs to the device."""
        ...

    def exclusive(self) -> AbstractContextManager[object]:
        """Hold the device: nobody else verifies or times on it meanwhile."""
        ...


class EstimatingDevice(Device, Protocol):
    """A device that tells times from counters."""

    def time(self, build: Build, plan: BoundPlan, counters: Sequence[Counters]) -> Timing:
        """Estimate the time of one call."""
        ...
