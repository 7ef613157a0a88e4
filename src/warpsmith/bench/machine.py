"""What a run was made with: GPUs, driver, versions."""

from __future__ import annotations

import ctypes
import platform

from warpsmith.bench.row import Machine
from warpsmith.version import own_version

NONE = "none"


def this_machine() -> Machine:
    """Ask the driver and the installed packages. Without a GPU there is no driver, and PyTorch may have no CUDA."""
    # Here, since PyTorch takes seconds to load.
    import torch

    from warpsmith.device.cuda.gpus import present_gpus

    return Machine(
        gpus=tuple(gpu.name for gpu in present_gpus()),
        driver=_driver(),
        torch=str(torch.__version__),
        cuda=torch.version.cuda or NONE,
        python=platform.python_version(),
        warpsmith=own_version(),
    )


def _driver() -> str:
    """Return the version of NVIDIA's driver, as its management library (NVML) says it."""
    text = ctypes.create_string_buffer(96)
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return NONE
    if library.nvmlInit_v2() != 0:
        return NONE
    try:
        return text.value.decode() if library.nvmlSystemGetDriverVersion(text, len(text)) == 0 else NONE
    finally:
        library.nvmlShutdown()
