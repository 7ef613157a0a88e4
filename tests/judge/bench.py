"""One judge for each task, all with one compiler and one simulated GPU, shared by the tests of a process."""

from __future__ import annotations

import atexit
import tempfile
from functools import cache

import torch

from warpsmith.device.catalog import gpu
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
def judge_for(task: Task) -> Judge:
    """Return the judge of a task."""
    return Judge(task, Simulator(gpu("H100")), builder())
