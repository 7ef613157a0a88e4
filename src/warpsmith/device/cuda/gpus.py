"""The GPUs of this machine: which there are, and what the judge, the bound and expressions need to know of each.

Limits (multiprocessors, memory, L2, shared memory, registers) are read from the device. Peaks are datasheet figures
and come from the catalogue where it knows the model; for another they are derived from what the driver tells: memory
bandwidth from bus width and memory clock, arithmetic from multiprocessors and clock at the rates of its architecture.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from warpsmith.device.catalog import GPUS
from warpsmith.errors import SettingsError
from warpsmith.records import GpuSpec

_LANES = 128
"""float32 operations that a multiprocessor starts in a cycle; 64 on compute capability 8.0."""


@dataclass(frozen=True, slots=True)
class Present:
    """A GPU that is there: its number, its permanent identity, what is known of it, and its memory in bytes."""

    ordinal: int
    uuid: str
    name: str
    spec: GpuSpec


def present_gpus() -> tuple[Present, ...]:
    """Ask the driver. Without a driver, or with one that does not work, there are none. No context is made."""
    try:
        from cuda.bindings import driver as cu

        from warpsmith.device.cuda.driver import DriverError, checked

        checked(cu.cuInit(0), "cuInit")
        count = checked(cu.cuDeviceGetCount(), "cuDeviceGetCount")
        return tuple(_present(cu, checked, ordinal) for ordinal in range(count))
    except (ImportError, RuntimeError, OSError):
        return ()
    except DriverError:
        return ()


def find_gpu(name: str) -> Present | None:
    """Return the first GPU here that `name` means (`gpu`: any), or None. Raises SettingsError for no such model."""
    found = present_gpus()
    if _plain(name) in ("gpu", "cuda", "auto"):
        return found[0] if found else None
    wanted = _known(name)
    if wanted is None and all(_plain(name) != _plain(each.name) for each in found):
        raise SettingsError(f"unknown GPU {name!r}; known: {', '.join(GPUS)}")
    for each in found:
        if _plain(each.name) == _plain(name) or (wanted is not None and _known(each.name) == wanted):
            return each
    return None


def absent(name: str) -> GpuSpec | None:
    """Return what the catalogue knows of a GPU that a driver elsewhere calls `name`, under that very name."""
    known = _known(name) if name.startswith("NVIDIA ") else None
    return replace(GPUS[known], name=name) if known is not None else None


def _present(cu: Any, checked: Callable[..., Any], ordinal: int) -> Present:
    device = checked(cu.cuDeviceGet(ordinal), "cuDeviceGet")
    name = checked(cu.cuDeviceGetName(256, device), "cuDeviceGetName").split(b"\0")[0].decode()
    raw = bytes(checked(cu.cuDeviceGetUuid(device), "cuDeviceGetUuid").bytes)
    memory = int(checked(cu.cuDeviceTotalMem(device), "cuDeviceTotalMem"))
    attributes = cu.CUdevice_attribute

    def ask(attribute: str) -> int:
        code = getattr(attributes, f"CU_DEVICE_ATTRIBUTE_{attribute}")
        return int(checked(cu.cuDeviceGetAttribute(code, device), attribute))

    text = raw.hex()
    uuid = f"GPU-{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    return Present(ordinal, uuid, name, spec_from(name, memory, ask))


def spec_from(name: str, memory: int, ask: Callable[[str], int]) -> GpuSpec:
    """Return what is known of a GPU called `name`; `ask` returns a device attribute by its name in the driver."""
    known = _known(name)
    base = GPUS[known] if known is not None else _derived(name, ask)
    return replace(
        base,
        # The driver's own name, so that what was measured here is never taken for an estimate for such a model.
        name=name,
        # Models of one name differ in their memory: what the bus can carry is never taken for a cheat.
        memory_bandwidth=max(base.memory_bandwidth, _bandwidth(ask)),
        compute_capability=(ask("COMPUTE_CAPABILITY_MAJOR"), ask("COMPUTE_CAPABILITY_MINOR")),
        sm_count=ask("MULTIPROCESSOR_COUNT"),
        memory_bytes=memory,
        l2_bytes=ask("L2_CACHE_SIZE"),
        shared_per_sm=ask("MAX_SHARED_MEMORY_PER_MULTIPROCESSOR"),
        shared_per_block=ask("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
        registers_per_sm=ask("MAX_REGISTERS_PER_MULTIPROCESSOR"),
        threads_per_sm=ask("MAX_THREADS_PER_MULTIPROCESSOR"),
        blocks_per_sm=ask("MAX_BLOCKS_PER_MULTIPROCESSOR"),
        source=f"{base.source}; limits as the driver reports them",
    )


def _known(name: str) -> str | None:
    """The catalogue's name for a model, such as `NVIDIA H100 80GB HBM3`; None where it has none."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    runs = {"".join(words[low:high]) for low in range(len(words)) for high in range(low + 1, len(words) + 1)}
    return next((each for each in GPUS if _plain(each) in runs), None)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _bandwidth(ask: Callable[[str], int]) -> float:
    """Bytes per second: two transfers a clock, as for every DDR memory."""
    return 2.0 * ask("MEMORY_CLOCK_RATE") * 1e3 * ask("GLOBAL_MEMORY_BUS_WIDTH") / 8


def _derived(name: str, ask: Callable[[str], int]) -> GpuSpec:
    capability = (ask("COMPUTE_CAPABILITY_MAJOR"), ask("COMPUTE_CAPABILITY_MINOR"))
    clock, multiprocessors = ask("CLOCK_RATE") * 1e3, ask("MULTIPROCESSOR_COUNT")
    fp32 = 2.0 * (_LANES // 2 if capability == (8, 0) else _LANES) * multiprocessors * clock
    return GpuSpec(
        name=name,
        compute_capability=capability,
        sm_count=multiprocessors,
        clock=clock,
        memory_bytes=0,
        memory_bandwidth=_bandwidth(ask),
        l2_bytes=0,
        l2_bandwidth=multiprocessors * 64 * clock,
        fp32_flops=fp32,
        # No architecture since Ampere multiplies faster than this, so no honest program is taken for a cheat.
        tf32_flops=8.0 * fp32,
        half_flops=16.0 * fp32,
        fp64_flops=fp32,
        shared_per_sm=0,
        shared_per_block=0,
        registers_per_sm=0,
        threads_per_sm=0,
        blocks_per_sm=0,
        source="derived from clock, multiprocessors and memory bus as the driver reports them",
    )
