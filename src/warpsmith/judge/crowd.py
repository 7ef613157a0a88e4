"""Where memory of a GPU is short, other processes may hold it: judgements of another task, or somebody else's work.

That is no candidate's fault and passes, so whoever lacks memory lets go of its own, waits, and tries again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from warpsmith.device.cuda.device import CudaDevice
from warpsmith.errors import MachineError
from warpsmith.records import Verdict

PATIENCE = 300.0
"""Seconds to wait for memory that others hold."""
PAUSE = 3.0
OWN_BYTES = 3 << 30
"""What this process and its runner hold beside tensors at most: contexts, code, workspaces of libraries."""
OUT_OF_MEMORY = "out_of_memory"
_WORDS = ("out of memory", "OUT_OF_MEMORY")


def lacks_memory(error: BaseException) -> bool:
    """Whether PyTorch, or the driver, says that the GPU's memory is full."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, (MachineError, torch.AcceleratorError)) and any(word in str(error) for word in _WORDS)


def taken_bytes(device: CudaDevice) -> int:
    """Bytes of the GPU that others hold, if this process has let go of its tensors."""
    free, total = torch.cuda.mem_get_info(device.where)
    return int(total - free) - OWN_BYTES


def with_patience(judge: Callable[[], Verdict], forget: Callable[[], None], device: CudaDevice, name: str) -> Verdict:
    """Call `judge` until memory suffices, `forget`ting what can be computed again before each further try.

    Waits only while others hold memory, for `PATIENCE` at most. Then a verdict that says so counts, and for everything
    else there is MachineError.
    """
    until, tries = time.monotonic() + PATIENCE, 0
    while True:
        found, error = _tried(judge)
        if found is not None and (found.failure is None or found.failure.reason != OUT_OF_MEMORY):
            return found
        forget()
        tries += 1
        if tries == 1:
            continue  # what was held for other candidates may have been in the way
        taken = taken_bytes(device)
        if found is not None and taken <= 0:
            return found
        if taken <= 0 or time.monotonic() > until:
            beside = f" beside {taken / 1e9:.0f} GB that other processes hold" if taken > 0 else ""
            raise MachineError(f"judging {name} does not fit into the GPU's memory{beside}") from error
        device.waits(True)
        time.sleep(PAUSE)
        device.waits(False)


def _tried(judge: Callable[[], Verdict]) -> tuple[Verdict | None, Exception | None]:
    """The verdict, or why memory did not suffice for one."""
    try:
        return judge(), None
    except (RuntimeError, MachineError) as error:
        if not lacks_memory(error):
            raise
        return None, error
