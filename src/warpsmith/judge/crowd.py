"""Where memory of a GPU is short, other processes may hold it: judgements of another task, or somebody else's work.

That is no candidate's fault and passes, so whoever lacks memory lets go of its own, waits, and tries again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

from warpsmith.device.cuda.device import CudaDevice
from warpsmith.errors import MachineError
from warpsmith.records import Verdict

T = TypeVar("T")

PATIENCE = 300.0
"""Seconds to wait for memory that others hold."""
PAUSE = 3.0
OWN_BYTES = 3 << 30
"""What this process and its runner hold beside tensors at most: contexts, code, workspaces of libraries."""
OUT_OF_MEMORY = "out_of_memory"
_WORDS = ("out of memory", OUT_OF_MEMORY)


def lacks_memory(error: BaseException) -> bool:
    """Whether PyTorch, or the driver, says that the GPU's memory is full."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, (MachineError, torch.AcceleratorError)) and tells_of_it(str(error))


def tells_of_it(message: str) -> bool:
    """Whether a message of PyTorch, or of the driver, says that the GPU's memory is full."""
    return any(word in message.lower() for word in _WORDS)


def taken_bytes(device: CudaDevice) -> int:
    """Bytes of the GPU that others hold, if this process has let go of its tensors."""
    free, total = torch.cuda.mem_get_info(device.where)
    return int(total - free) - OWN_BYTES


def with_patience(
    do: Callable[[], T], forget: Callable[[], None], device: CudaDevice, name: str, full: Callable[[T], bool]
) -> T:
    """Call `do` until memory suffices, `forget`ting what can be computed again before each further try.

    Memory lacks where `do` raises what `lacks_memory` knows, or where what it returns says so by `full`. Waits only
    while others hold memory, for `PATIENCE` at most; the lock of the GPU must not be held by whoever calls. In the end
    what says so is returned, if nobody else was there to blame; otherwise there is MachineError, which tells of `name`.
    """
    until, tries = time.monotonic() + PATIENCE, 0
    while True:
        found, error = _tried(do)
        if error is None and not full(found[0]):
            return found[0]
        forget()
        tries += 1
        if tries == 1:
            continue  # what was held for other candidates may have been in the way
        taken = taken_bytes(device)
        if error is None and taken <= 0:
            return found[0]
        if taken <= 0 or time.monotonic() > until:
            beside = f" beside {taken / 1e9:.0f} GB that other processes hold" if taken > 0 else ""
            raise MachineError(f"judging {name} does not fit into the GPU's memory{beside}") from error
        device.waits(True)
        time.sleep(PAUSE)
        device.waits(False)


def says_so(verdict: Verdict) -> bool:
    """Whether a verdict says that the program's buffers found no room."""
    return verdict.failure is not None and verdict.failure.reason == OUT_OF_MEMORY


def _tried(do: Callable[[], T]) -> tuple[tuple[T, ...], Exception | None]:
    """What it returns, or why memory did not suffice for it."""
    try:
        return (do(),), None
    except (RuntimeError, MachineError) as error:
        if not lacks_memory(error):
            raise
        return (), error
