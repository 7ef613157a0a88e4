"""Library calls in the simulator: PyTorch on the CPU computes them, and their time is estimated.

A call works on the arena itself, so that outputs that nobody wrote hold NaNs for it too, and guard zones show what it
did beside its work. It computes in full precision where the GPU's library might round to TF32.

The estimate is a model of a good library, not a measurement: a launch, and then the longer of arithmetic at
`PEAK_SHARE` of the datasheet's peak and of moving each tensor once at the bandwidth that kernels are charged too.
`PEAK_SHARE` is a round figure for large square products. Small ones do not fill the GPU: the work is counted in pieces
of `TILE` outputs and `PART` products for each, of which a multiprocessor does one after the other. What the library
chooses for a shape, and what its kernels do beside the products, is not modelled.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.arena import Arena
from warpsmith.device.simulator.sanitizer import Initialised
from warpsmith.errors import SimulatorError
from warpsmith.program.library import LIBRARY
from warpsmith.records import DTYPE_BYTES, BoundCall, BoundView, Finding, GpuSpec

PEAK_SHARE = 0.75
TILE = 64 * 64
PART = 512


def products_of(call: BoundCall) -> int:
    """Return how many multiply-adds a call makes."""
    return LIBRARY[call.op].products([view.shape for view in call.args], dict(call.options))


def execute(call: BoundCall, arena: Arena, initialised: Initialised | None, left: float) -> list[Finding]:
    """Carry a call out on the arena, unless it needs more than `left` multiply-adds.

    With `initialised` every element that it reads must have been written, and those that it writes count as such.
    Raises SimulatorError for what PyTorch cannot compute on a CPU.
    """
    if products_of(call) > left:
        return [Finding("budget", call.op, 0, f"makes {products_of(call)} products, more than a call may")]
    if initialised is not None:
        unknown = next((view for view in call.args if not _written(view, call, arena, initialised).all()), None)
        if unknown is not None:
            return [Finding("uninitialised", call.op, 0, f"reads elements of {unknown.tensor} that nobody has written")]
        _written(call.out, call, arena, initialised)[...] = 1
    _compute(call, arena)
    return []


def _compute(call: BoundCall, arena: Arena) -> None:
    import torch

    from warpsmith.device.library import compute, view_of

    def tensor(view: BoundView) -> torch.Tensor:
        region = arena.regions[view.tensor]
        if not region.nbytes:
            return torch.empty(view.shape, dtype=getattr(torch, call.dtype))
        flat = torch.from_numpy(arena.data[region.start : region.end]).view(getattr(torch, call.dtype))
        return view_of(flat, view)

    try:
        compute(call.op, [tensor(view) for view in call.args], tensor(call.out), dict(call.options), call.tf32)
    except RuntimeError as error:
        raise SimulatorError(f"{call.op}: PyTorch cannot compute it on a CPU: {error}") from error


def _written(view: BoundView, call: BoundCall, arena: Arena, initialised: Initialised) -> NDArray[np.uint8]:
    """Return which bytes of a view hold defined values, in the shape of the view: itself a view."""
    region, size = arena.regions[view.tensor], DTYPE_BYTES[call.dtype]
    if not math.prod(view.shape):
        return np.ones(0, np.uint8)
    known = initialised.known[region.start + view.offset * size : region.end]
    strides = (*(stride * size for stride in view.strides), 1)
    return np.lib.stride_tricks.as_strided(known, (*view.shape, size), strides)


def seconds_of(call: BoundCall, spec: GpuSpec, bandwidth: float) -> float:
    """Estimate the time of a call without its launch. `bandwidth` is what memory delivers, in bytes/s."""
    moved = DTYPE_BYTES[call.dtype] * sum(_touched(view) for view in (*call.args, call.out))
    arithmetic = 2 * products_of(call) / (PEAK_SHARE * _peak(call, spec) * _filled(call, spec))
    return max(arithmetic, moved / bandwidth)


def _filled(call: BoundCall, spec: GpuSpec) -> float:
    """Return how much of the GPU works while the busiest multiprocessor does."""
    outputs = math.prod(call.out.shape)
    depth = products_of(call) // outputs if outputs else 0
    pieces = max(1, -(-outputs // TILE) * max(1, depth // PART))
    return pieces / (spec.sm_count * -(-pieces // spec.sm_count))


def _peak(call: BoundCall, spec: GpuSpec) -> float:
    """Return the peak in FLOP/s. Half precisions are summed in float32, so they do twice what TF32 does at most."""
    if call.dtype == "float64":
        return spec.fp64_flops
    if call.dtype == "float32":
        return spec.tf32_flops if call.tf32 else spec.fp32_flops
    return min(spec.half_flops, 2 * spec.tf32_flops)


def _touched(view: BoundView) -> int:
    """Return how many elements a view names; one that is repeated along a dimension counts once."""
    return math.prod(extent for extent, stride in zip(view.shape, view.strides, strict=True) if stride)
