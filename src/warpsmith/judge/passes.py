"""Three passes over large float64 tensors on a GPU, for which PyTorch's operators go over them twenty times.

References of tasks of some gigabytes are made of little else. What is computed is what `rounding` and `references`
compute with PyTorch where tensors are small or on a CPU; only the random numbers are others. They come from a counter
(Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), so an amount depends on seed and place.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch

from warpsmith.device.cuda.driver import checked
from warpsmith.errors import MachineError

LEAST = 1 << 20
"""Elements from which on it is worth it."""

SOURCE = r"""
// A magnitude between 0.5 and 1.5, of either sign.
__device__ double amount(unsigned long long seed, unsigned long long place) {
    unsigned long long z = seed + (place + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    const double magnitude = 0.5 + (z >> 12) * 0x1p-52;
    return z & 1 ? magnitude : -magnitude;
}

#define EACH(i, count)                                                                       \
    for (unsigned long long i = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x;   \
         i < count; i += gridDim.x * (unsigned long long)blockDim.x)

extern "C" __global__ void draw_amounts(double* out, unsigned long long seed, unsigned long long count) {
    EACH(i, count) out[i] = amount(seed, i);
}

// Integers stay as they are, since they may be exact.
extern "C" __global__ void move_values(
    double* out, const double* values, double unit, unsigned long long seed, unsigned long long count) {
    EACH(i, count) {
        const double value = values[i];
        out[i] = value == rint(value) ? value : value + unit * (value * amount(seed, i));
    }
}

extern "C" __global__ void add_squares(
    double* squares, const double* moved, const double* expected, unsigned long long count) {
    EACH(i, count) {
        const double step = moved[i] - expected[i];
        if (isfinite(step)) squares[i] += step * step;
    }
}
"""
_BLOCK, _MOST_BLOCKS = 256, 1 << 16


def suits(*tensors: torch.Tensor) -> bool:
    """Whether these are large tensors of float64 on a GPU, of one size."""
    first = tensors[0]
    return first.is_cuda and first.numel() >= LEAST and all(each.dtype == torch.float64 for each in tensors)


def amounts(like: torch.Tensor, seed: int) -> torch.Tensor:
    """Return numbers of either sign and a magnitude between 0.5 and 1.5, in the shape of `like`."""
    out = torch.empty(like.shape, dtype=torch.float64, device=like.device)
    _launch("draw_amounts", out, ctypes.c_uint64(seed))
    return out


def moved(values: torch.Tensor, unit: float, seed: int) -> torch.Tensor:
    """Return each value that is not an integer moved by `unit` times a random amount of itself."""
    values = values.contiguous()
    out = torch.empty_like(values)
    _launch("move_values", out, values, ctypes.c_double(unit), ctypes.c_uint64(seed))
    return out


def add_squares(squares: torch.Tensor, found: torch.Tensor, expected: torch.Tensor) -> None:
    """Add the squared differences that are finite to `squares`, which is contiguous, in place."""
    _launch("add_squares", squares, found.contiguous(), expected.contiguous())


def _launch(name: str, first: torch.Tensor, *rest: torch.Tensor | ctypes._SimpleCData[Any]) -> None:
    """Launch a kernel on the current stream, once for each element of its first argument. The count comes last."""
    from cuda.bindings import driver as cu

    with torch.cuda.device(first.device):
        function = _function(first.device, name)
        values: list[Any] = [first.data_ptr(), *(v.data_ptr() if isinstance(v, torch.Tensor) else v for v in rest)]
        count = first.numel()
        types = tuple(ctypes.c_void_p if isinstance(value, int) else None for value in values)
        blocks = min(-(-count // _BLOCK), _MOST_BLOCKS)
        stream = torch.cuda.current_stream().cuda_stream
        arguments = ((*values, ctypes.c_uint64(count)), (*types, None))
        checked(cu.cuLaunchKernel(function, blocks, 1, 1, _BLOCK, 1, 1, 0, stream, arguments, 0), name)


@cache
def _function(device: torch.device, name: str) -> Any:
    """Return a kernel, loaded into the context that PyTorch uses on this device."""
    from cuda.bindings import driver as cu

    return checked(cu.cuModuleGetFunction(_module(device), name.encode()), name)


@cache
def _module(device: torch.device) -> Any:
    from cuda.bindings import driver as cu

    from warpsmith.program.compiler import compile_source

    torch.cuda.current_stream().synchronize()  # PyTorch has made its context current by then.
    major, minor = torch.cuda.get_device_capability(device)
    code, log, _, cubin = compile_source(SOURCE, {}, [f"-arch=sm_{major}{minor}"])
    if code:
        raise MachineError(f"NVRTC cannot compile the judge's own kernels: {log.decode(errors='replace')[:300]}")
    return checked(cu.cuModuleLoadData(cubin), "cuModuleLoadData")
