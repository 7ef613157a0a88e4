"""One judge for each task, all with one compiler and one device, shared by the tests of a process.

The device is a simulated GPU; with WARPSMITH_TEST_DEVICE=gpu it is the one of this machine, so that the suites that
judge the judge (mutations, exploits) can be run on hardware.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from functools import cache

import torch

from warpsmith.device.catalog import gpu
from warpsmith.device.cuda.device import CudaDevice
from warpsmith.device.cuda.gpus import find_gpu
from warpsmith.device.protocol import Device
from warpsmith.device.simulator import Simulator
from warpsmith.judge import Judge
from warpsmith.program import Builder
from warpsmith.records import Task

# Tensors here are small; threads only wait for each other.
torch.set_num_threads(1)


@cache
def builder() -> Builder:
    """Return the compiler that all tests share; its cache is gone when the tests are over."""
    folder = tempfile.TemporaryDirectory(prefix="warpsmith-judge-tests-")
    shared = Builder(folder.name)
    atexit.register(folder.cleanup)
    atexit.register(shared.close)
    return shared


@cache
def device() -> Device:
    """Return the device that all tests share."""
    if os.environ.get("WARPSMITH_TEST_DEVICE") != "gpu":
        return Simulator(gpu("H100"))
    present = find_gpu("gpu")
    assert present is not None, "WARPSMITH_TEST_DEVICE=gpu, but there is none"
    shared = CudaDevice(present, builder())
    atexit.register(shared.close)
    return shared


@cache
def judge_for(task: Task) -> Judge:
    """Return the judge of a task."""
    return Judge(task, device(), builder())
