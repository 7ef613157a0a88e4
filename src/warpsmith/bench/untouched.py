"""Keeping a process from which others are forked away from the GPU, and finding out whether that worked.

What a process has done with CUDA cannot be undone in its forks: neither an initialised driver, nor a runtime that has
looked for GPUs where its environment shows none and remembers that there are none.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import torch

_NOT_INITIALIZED = 3
"""CUDA_ERROR_NOT_INITIALIZED, which every function of the driver returns before `cuInit`."""


@contextlib.contextmanager
def tracing_without_gpu() -> Iterator[None]:
    """Export modules in here without a look at the GPUs.

    PyTorch's fake tensors count the GPUs where none is shown, which C++ code does once and for all, and replace what
    switches between them by nothing if there are none. That serves tensors that pretend to be on a GPU.
    """
    with patch.object(torch._C, "_ensureCUDADeviceGuardSet", lambda: None):
        yield


def driver_in_use() -> bool:
    """Whether the driver of the GPUs was initialised in this process, as far as can be told without doing that."""
    held = Path("/proc/self/fd")
    for descriptor in held.iterdir() if held.exists() else ():
        with contextlib.suppress(OSError):  # the one that lists them is closed again
            if str(descriptor.readlink()).startswith("/dev/nvidia"):
                return True
    try:
        driver = ctypes.CDLL("libcuda.so.1", os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return False
    count = ctypes.c_int()
    return bool(driver.cuDeviceGetCount(ctypes.byref(count)) != _NOT_INITIALIZED)


def forks_find_gpus(visible: str) -> bool:
    """Whether PyTorch finds a GPU in a fork of this process to whose environment all GPUs are shown.

    True also where the machine has none that NVML knows of, or this PyTorch uses none. `visible` is the name of the
    variable that hides them.
    """
    count: Callable[[], int] | None = getattr(torch._C, "_cuda_getDeviceCount", None)
    if count is None:
        return True
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.environ.pop(visible, None)
            code = int(_gpus() > 0 and not count())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _gpus() -> int:
    """How many GPUs NVML knows of."""
    pynvml = importlib.import_module("pynvml")
    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0
