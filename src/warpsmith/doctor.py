"""What this machine has, and what that allows."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table
from rich.text import Text

from warpsmith.errors import MachineError, UserError
from warpsmith.program import Builder
from warpsmith.records import Launch, Plan, Program
from warpsmith.settings import Settings, usable_cores
from warpsmith.version import own_version

PROFILERS = ("ncu", "nsys", "compute-sanitizer")
KEYS = (
    "ANTHROPIC_API_KEY",
    "OPENAI_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "DEEPSEEK_API_KEY",
    "OPENROUTER_API_KEY",
)
MEMORY_NEEDED = 4 << 30
"""Bytes: the compiler's address space is limited to this, and each worker holds PyTorch."""

_PROBE = Program(
    'extern "C" __global__ void probe(float* out) { out[threadIdx.x] = 1.0f; }',
    Plan((), (), (), (Launch("probe", ("1",), ("32",), ("out",)),)),
)
_MARKS = {"yes": ("yes", "green"), "no": ("no", "red"), "absent": ("–", "dim")}


@dataclass(frozen=True, slots=True)
class Item:
    """One thing looked for. `state` is "no" where `optimize` cannot work without it, "absent" where it can."""

    name: str
    state: Literal["yes", "no", "absent"]
    found: str
    allows: str


def examine(settings: Settings) -> tuple[Item, ...]:
    """Look at everything that matters. Reads names of environment variables, never the value of a key."""
    checks: tuple[Callable[[], Item], ...] = (
        _python,
        _torch,
        lambda: _compiler(settings.cache),
        _gpu,
        _profilers,
        _keys,
        _machine,
        lambda: (
            _folder("archive", Path(settings.archive).parent)
            if "://" not in settings.archive
            else Item("archive", "yes", "a database URL", "everything tried is kept there")
        ),
    )
    return tuple(check() for check in checks)


def can_optimize(items: tuple[Item, ...]) -> bool:
    """Whether nothing that `optimize` needs is missing."""
    return all(item.state != "no" for item in items)


def render_diagnosis(items: tuple[Item, ...]) -> Table:
    """Return what `examine` found as a table for a terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("")
    table.add_column("what", style="bold")
    table.add_column("found", overflow="fold")
    table.add_column("what that allows")
    for item in items:
        mark, style = _MARKS[item.state]
        table.add_row(Text(mark, style=style), item.name, Text(item.found), Text(item.allows))
    return table


def _python() -> Item:
    version = own_version()
    return Item("Warpsmith", "yes", f"{version} on Python {platform.python_version()}, {platform.system()}", "")


def _torch() -> Item:
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return Item("PyTorch", "no", "not installed: pip install torch", "")
    return Item("PyTorch", "yes", version, "modules are read, and references computed, on the CPU")


def _compiler(cache: Path) -> Item:
    """Compile a kernel: that the library can be loaded does not say that it finds its headers."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            builder = Builder(folder)
            try:
                build = builder.build(_PROBE, {}, "sm_90")
            finally:
                builder.close()
    except (MachineError, UserError) as error:
        return Item("NVRTC", "no", str(error), "without a compiler nothing can be tried")
    if not build.ok:
        return Item("NVRTC", "no", "; ".join(each.message for each in build.diagnostics), "nothing can be tried")
    version = importlib.metadata.version("nvidia-cuda-nvrtc")
    found = f"{version}, compiled a kernel in {build.seconds * 1e3:.0f} ms"
    return Item("NVRTC", "yes", found, f"programs are compiled here, and kept in {cache}")


def _gpu() -> Item:
    """Ask the driver, if there is one. No context is made, so nothing on the GPU is disturbed."""
    without = "programs run in the simulator; times are estimates"
    try:
        import cuda.bindings.driver as driver

        (status,) = driver.cuInit(0)
    except (ImportError, RuntimeError, OSError):
        return Item("GPU", "absent", "no NVIDIA driver", without)
    if status != driver.CUresult.CUDA_SUCCESS:
        return Item("GPU", "absent", f"the driver says {status.name}", without)
    _, version = driver.cuDriverGetVersion()
    _, count = driver.cuDeviceGetCount()
    names = []
    for index in range(count):
        _, device = driver.cuDeviceGet(index)
        _, name = driver.cuDeviceGetName(128, device)
        names.append(name.split(b"\0")[0].decode())
    driver_text = f"driver for CUDA {version // 1000}.{version % 1000 // 10}"
    if not names:
        return Item("GPU", "absent", f"{driver_text}, but no GPU", without)
    return Item("GPU", "yes", f"{', '.join(names)}; {driver_text}", "programs run, are verified and timed here")


def _profilers() -> Item:
    found = [name for name in PROFILERS if shutil.which(name)]
    if not found:
        return Item("profilers", "absent", f"none of {', '.join(PROFILERS)}", "the simulator counts and checks instead")
    return Item(
        "profilers", "yes", ", ".join(found), "winners on a GPU are looked at by compute-sanitizer and Nsight Compute"
    )


def _keys() -> Item:
    found = [name for name in KEYS if os.environ.get(name)]
    allows = "the built-in author writes the programs; it needs no key"
    return Item("API keys", "yes" if found else "absent", ", ".join(found) or "none", allows)


def _machine() -> Item:
    cores = usable_cores()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = f"{cores} cores, {memory / 2**30:.0f} GiB of memory"
    if memory < MEMORY_NEEDED:
        return Item("machine", "absent", found, "little memory: set workers to 1 and keep inputs small")
    return Item("machine", "yes", found, f"{cores} candidates are judged at once")


def _folder(name: str, folder: Path) -> Item:
    """Whether a file can be made in a folder that may not exist yet."""
    nearest = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        return Item(name, "no", f"{nearest} cannot be written to", "nothing could be kept")
    free = shutil.disk_usage(nearest).free
    return Item(name, "yes", f"{folder}, {free / 2**30:.0f} GiB free", "everything tried is kept there")
