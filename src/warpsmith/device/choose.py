"""Which device a name means: a GPU of this machine, which measures, or a simulated one, which estimates."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from warpsmith.device.catalog import gpu
from warpsmith.device.cuda.device import CudaDevice
from warpsmith.device.cuda.gpus import Present, absent, find_gpu
from warpsmith.device.cuda.lock import gpu_lock
from warpsmith.device.protocol import Device
from warpsmith.device.simulator import Simulator
from warpsmith.program import Builder
from warpsmith.records import GpuSpec

AUTO = "auto"
_SIMULATED = "H200"


@dataclass(frozen=True, slots=True)
class Choice:
    """A device that can be made: the GPU that it is or stands for; `present` where it is here and is to be used."""

    spec: GpuSpec
    present: Present | None

    @property
    def measures(self) -> bool:
        """Whether times are measured."""
        return self.present is not None

    def exclusive(self) -> AbstractContextManager[object]:
        """Hold the GPU, where it is here: nobody else on this machine verifies or times meanwhile."""
        return gpu_lock(self.present.uuid) if self.present is not None else nullcontext()

    def device(self, builder: Builder, *, shares: int = 1) -> Device:
        """Make it. `shares` is how many such devices divide the GPU's memory among themselves."""
        if self.present is None:
            return Simulator(self.spec)
        return CudaDevice(self.present, builder, shares=shares)


def choose(name: str, *, simulate: bool = False) -> Choice:
    """Return what `name` means: `auto` is the GPU of this machine, or a simulated H200 where there is none.

    A driver's name of a model, such as `NVIDIA H100 80GB HBM3`, stands for that model under that name where it is not
    here, so that what was measured elsewhere can be reported. `simulate` keeps to the simulator. Raises SettingsError
    for a model that neither this machine has nor the catalogue.
    """
    auto = name.strip().lower() == AUTO
    present = None if simulate else find_gpu("gpu" if auto else name)
    if present is not None:
        return Choice(present.spec, present)
    return Choice(absent(name) or gpu(_SIMULATED if auto else name), None)
