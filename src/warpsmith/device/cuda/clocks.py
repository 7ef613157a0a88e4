"""What the driver says of a GPU while it is timed: clocks, temperature, power, what slows it down, who else is there.

Asks NVML, the library behind nvidia-smi. All of it together takes well under a millisecond and does not touch the GPU's
work, but every answer is as old as the driver's own sampling, some tens of milliseconds.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any

from warpsmith.records import GpuState

_REASONS: tuple[tuple[int, str], ...] = (
    (0x002, "set clocks"),
    (0x004, "power cap"),
    (0x008, "hardware slowdown"),
    (0x010, "sync boost"),
    (0x020, "temperature"),
    (0x040, "hardware temperature"),
    (0x080, "power brake"),
    (0x100, "display clocks"),
)
"""nvml.h, `nvmlClocksEventReason...`, but for idling (0x001)."""
_SM, _MEMORY, _DIE = 1, 2, 0
"""nvml.h: NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU."""


class Watch:
    """Looks at one GPU, named by its identity (`GPU-...`) or by its number on this machine.

    The number is NVML's, which counts all GPUs in the order of the bus, whatever CUDA_VISIBLE_DEVICES says; so prefer
    the identity. `nvml` is the module `pynvml`, imported where it is not given. Close it when done.
    """

    def __init__(self, gpu: str | int, nvml: Any = None) -> None:
        self._nvml = _module() if nvml is None else nvml
        self._handle: Any = None
        self._open = False
        if self._nvml is None:
            return
        try:
            self._nvml.nvmlInit()
            self._open = True
            by_name = self._nvml.nvmlDeviceGetHandleByUUID
            self._handle = by_name(gpu) if isinstance(gpu, str) else self._nvml.nvmlDeviceGetHandleByIndex(gpu)
        except self._nvml.NVMLError:
            self.close()

    @property
    def works(self) -> bool:
        """Whether NVML is there and knows the GPU."""
        return self._handle is not None

    def state(self) -> GpuState | None:
        """Return what the driver says now; 0 for what the GPU has no sensor for. None where it says nothing at all."""
        clock, memory, temperature, power, reasons = (
            self._ask("nvmlDeviceGetClockInfo", _SM),
            self._ask("nvmlDeviceGetClockInfo", _MEMORY),
            self._ask("nvmlDeviceGetTemperature", _DIE),
            self._ask("nvmlDeviceGetPowerUsage"),
            self._reasons(),
        )
        if clock is None and memory is None and temperature is None and power is None:
            return None
        # NVML tells power in mW.
        return GpuState(clock or 0, memory or 0, temperature or 0, (power or 0) * 1e-3, throttles(reasons))

    def processes(self, mine: Collection[int] = ()) -> int | None:
        """Return how many processes but `mine` compute on the GPU; None where NVML does not tell.

        The driver numbers processes as the machine outside of any container does, so that in a container with process
        numbers of its own, ours count as others.
        """
        found = self._ask("nvmlDeviceGetComputeRunningProcesses")
        return None if found is None else sum(each.pid not in mine for each in found)

    def close(self) -> None:
        """Let go of NVML. Safe to call again."""
        if self._open:
            self._open = False
            self._handle = None
            self._shut()

    def _reasons(self) -> int:
        # Drivers before 535 know them by another name only.
        for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
            found = self._ask(name)
            if found is not None:
                return int(found)
        return 0

    def _ask(self, name: str, *arguments: int) -> Any:
        """Return what a function of NVML says of the GPU; None where it or this driver has no such thing."""
        function = getattr(self._nvml, name, None)
        if self._handle is None or function is None:
            return None
        try:
            return function(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None

    def _shut(self) -> None:
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError:
            return


def throttles(reasons: int) -> tuple[str, ...]:
    """Return in words why a clock is lower than it could be, from NVML's bits. Idling is no reason."""
    return tuple(words for bit, words in _REASONS if reasons & bit)


def _module() -> Any:
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return None
