"""A process from which others are forked must find out whether its forks can use a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_SCRIPT = """
import os, sys
import pynvml, torch
from warpsmith.bench.untouched import forks_find_gpus, tracing_without_gpu

known, found = map(int, sys.argv[1:])
if not known:
    def none():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    pynvml.nvmlInit = none
else:
    pynvml.nvmlInit = lambda: None
    pynvml.nvmlDeviceGetCount = lambda: known
# The variable that hides GPUs is gone in the fork, and there still in the process itself.
torch._C._cuda_getDeviceCount = lambda: 0 if "HIDES" in os.environ else found
print(forks_find_gpus("HIDES"), "HIDES" in os.environ)
del torch._C._cuda_getDeviceCount  # by which PyTorch sees that it has CUDA

looked = []
torch._C._ensureCUDADeviceGuardSet = lambda: looked.append(1)
with tracing_without_gpu():
    torch.export.export(torch.nn.ReLU(), (torch.zeros(2),))
print(looked)
"""


@pytest.mark.parametrize(("known", "found", "fine"), [(2, 2, True), (2, 0, False), (0, 0, True)])
def test_a_runtime_that_remembers_no_gpu_is_found_out(known: int, found: int, fine: bool) -> None:
    command = [sys.executable, "-c", _SCRIPT, str(known), str(found)]
    done = subprocess.run(command, env=os.environ | {"HIDES": ""}, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [f"{fine} True", "[]"], done.stderr
