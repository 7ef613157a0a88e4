"""Tasks that are loaded by several threads at once leave PyTorch and the terminal as they were."""

from __future__ import annotations

import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from warpsmith.task import task_from_module


class Meeting(nn.Module):
    """Waits a moment while it is exported, so that another export may begin before this one has ended."""

    def __init__(self, doors: threading.Barrier) -> None:
        super().__init__()
        self.doors = doors

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_exporting():
            try:
                self.doors.wait(0.2)
            except threading.BrokenBarrierError:
                self.doors.reset()
        return x + 1


def test_exports_at_once_leave_nothing_behind() -> None:
    doors, streams = threading.Barrier(2), (sys.stdout, sys.stderr)
    with ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(task_from_module, Meeting(doors), torch.ones(3 + each)) for each in range(2)]
        assert [task.result().graph.results[0].shape for task in tasks] == [(3,), (4,)]
    assert not torch.compiler.is_exporting()
    assert (sys.stdout, sys.stderr) == streams
    assert logging.root.manager.disable == logging.NOTSET
