"""Library calls in the runner: PyTorch on the runner's own memory, stream and context.

Tensors are views of the arena, so nothing is copied; PyTorch uses the primary context of the device, which is the
runner's. Every call is made once before anything is captured: that loads the library's kernels, and fills PyTorch's
pool with the workspaces that later calls take from it. All of it happens on one stream, so that no two calls of a
replayed graph use a workspace at the same time.

This file is imported only where a plan has calls: a runner of pure programs never waits for PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from cuda.bindings import driver as cu

from warpsmith.device.cuda.driver import DriverError
from warpsmith.device.library import compute, view_of
from warpsmith.records import BoundView

REFUSED = "library"
"""The name of the error where PyTorch refuses a call although the GPU is well."""


class _Memory:
    """Memory of the runner in the form in which PyTorch takes it."""

    def __init__(self, address: int, nbytes: int) -> None:
        shape = {"shape": (nbytes,), "typestr": "|u1", "data": (address, False), "version": 3}
        self.__cuda_array_interface__ = shape


class LibraryCall:
    """One library call of the plan, with its tensors for each slot. `place(slot, start)` is an address."""

    def __init__(self, message: dict[str, Any], place: Callable[[int, int], int], ordinal: int, stream: Any) -> None:
        self.name = message["op"]
        self._message, self._place = message, place
        self._device = torch.device("cuda", ordinal)
        self._stream = torch.cuda.ExternalStream(int(stream), device=self._device)  # type: ignore[no-untyped-call]
        self._dtype: torch.dtype = getattr(torch, message["dtype"])
        self._options = {name: tuple(values) for name, values in message["options"]}
        self._tensors: dict[int, tuple[list[torch.Tensor], torch.Tensor]] = {}
        # Leaving `with torch.cuda.stream` makes PyTorch's current device that of this thread.
        torch.cuda.set_device(self._device)
        # Choosing kernels by timing them would choose others the next time.
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True

    def launch(self, stream: Any, slot: int) -> None:
        """Make the call on a slot, on the stream of the runner. Raises DriverError."""
        try:
            args, out = self._of(slot)
            with torch.cuda.stream(self._stream):
                compute(self.name, args, out, self._options, self._message["tf32"])
        except torch.OutOfMemoryError as error:
            raise DriverError("CUDA_ERROR_OUT_OF_MEMORY", f"{self.name}: {error}") from error
        except RuntimeError as error:
            raise DriverError(_cause(stream), f"{self.name}: {error}") from error

    def _of(self, slot: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        if slot not in self._tensors:
            *args, out = (self._tensor(view, slot) for view in (*self._message["args"], self._message["out"]))
            self._tensors[slot] = args, out
        return self._tensors[slot]

    def _tensor(self, view: dict[str, Any], slot: int) -> torch.Tensor:
        nbytes = view["bytes"]
        if not nbytes:
            return torch.empty(view["shape"], dtype=self._dtype, device=self._device)
        memory = _Memory(self._place(slot, view["start"]), nbytes)
        flat = torch.as_tensor(memory, device=self._device).view(self._dtype)
        return view_of(flat, BoundView("", tuple(view["shape"]), tuple(view["strides"]), view["offset"]))


def _cause(stream: Any) -> str:
    """Name what spoilt the context, or say that only PyTorch refused. An earlier kernel's fault shows here first."""
    (status,) = cu.cuStreamSynchronize(stream)
    healthy = (cu.CUresult.CUDA_SUCCESS, cu.CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
    return REFUSED if status in healthy else str(status.name)
