"""One stretch of memory for all buffers of a call, with guard zones around each.

Outputs and scratch begin as random NaNs (random bits where the dtype has no NaN), so that an element that nobody
writes shows. The guard zones, at least 4 KiB on both sides of every buffer, hold NaNs too: what reads over the end
changes its result, and what writes over it is found out.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from warpsmith.records import DTYPE_BYTES, TensorSpec

if TYPE_CHECKING:
    import torch

GUARD = 4096
ALIGN = 256
Role = Literal["input", "output", "scratch", "variable"]
NAN_BITS: Mapping[str, tuple[str, int]] = {
    "float64": ("u8", 0x7FF8 << 48),
    "float32": ("u4", 0x7FC00000),
    "float16": ("u2", 0x7E00),
    "bfloat16": ("u2", 0x7FC0),
}


@dataclass(frozen=True, slots=True)
class Region:
    """A buffer's place in the arena, in bytes."""

    name: str
    role: Role
    dtype: str
    start: int
    nbytes: int

    @property
    def end(self) -> int:
        """The first byte after the buffer."""
        return self.start + self.nbytes


def poison(dtype: str, nbytes: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """Return bytes that hold random NaNs of a dtype, or random bits where it has none."""
    data = np.frombuffer(random.bytes(nbytes + 8), np.uint8)[:nbytes].copy()
    if dtype in NAN_BITS:
        code, bits = NAN_BITS[dtype]
        size = np.dtype(code).itemsize
        whole = nbytes // size * size
        data[:whole].view(code)[...] |= np.dtype(code).type(bits)
    return data


def tensor_bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """Return a tensor's elements in row-major order as bytes."""
    import torch

    # A tensor of one element counts as contiguous whatever its strides are; only a copy makes them plain.
    flat = tensor.detach().reshape(-1).clone(memory_format=torch.contiguous_format)
    data: NDArray[np.uint8] = flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)
    return data


def bytes_tensor(data: NDArray[np.uint8], spec: TensorSpec) -> torch.Tensor:
    """Return a new tensor with these bytes as its elements."""
    import torch

    if spec.numel == 0:
        return torch.empty(spec.shape, dtype=getattr(torch, spec.dtype))
    flat = torch.from_numpy(data.copy())
    if spec.dtype == "bool":
        return (flat != 0).reshape(spec.shape)
    return flat.view(getattr(torch, spec.dtype)).reshape(spec.shape)


class Arena:
    """Buffers laid out one after the other. `data` is all memory; `regions` says where the buffers are."""

    def __init__(
        self,
        inputs: Mapping[str, torch.Tensor],
        outputs: Sequence[TensorSpec],
        scratch: Sequence[TensorSpec],
        fill: int,
        variables: Sequence[tuple[str, bytes, int]] = (),
    ) -> None:
        self.specs = {spec.name: spec for spec in (*outputs, *scratch)}
        self.inputs = {name: tensor_bytes(tensor) for name, tensor in inputs.items()}
        planned: list[tuple[str, Role, str, int]] = [
            *((name, "variable", "uint8", len(data)) for name, data, _ in variables),
            *((name, "input", _dtype_name(tensor), self.inputs[name].nbytes) for name, tensor in inputs.items()),
            *((spec.name, "output", spec.dtype, spec.nbytes) for spec in outputs),
            *((spec.name, "scratch", spec.dtype, spec.nbytes) for spec in scratch),
        ]
        self.regions: dict[str, Region] = {}
        position = 0
        for name, role, dtype, nbytes in planned:
            start = (position + GUARD + ALIGN - 1) // ALIGN * ALIGN
            self.regions[name] = Region(name, role, dtype, start, nbytes)
            position = start + nbytes
        size = (position + GUARD + ALIGN - 1) // ALIGN * ALIGN
        self.data = np.empty(size, np.uint8)
        self._fill(np.random.default_rng(fill), variables)
        self._starts = [region.start for region in self.regions.values()]
        self._ordered = list(self.regions.values())
        self._starts_array = np.array(self._starts, np.int64)
        self._ends_array = np.array([region.end for region in self._ordered], np.int64)
        self._guards = {name: self._guard_bytes(region) for name, region in self.regions.items()}

    def _fill(self, random: np.random.Generator, variables: Sequence[tuple[str, bytes, int]]) -> None:
        initial = {name: np.frombuffer(data, np.uint8) for name, data, _ in variables}
        previous = 0
        for region in self.regions.values():
            self.data[previous : region.start] = poison(region.dtype, region.start - previous, random)
            content = initial.get(region.name) if region.role == "variable" else self.inputs.get(region.name)
            if content is None:
                content = poison(region.dtype, region.nbytes, random)
            self.data[region.start : region.end] = content
            previous = region.end
            tail = min(GUARD, len(self.data) - previous)
            self.data[previous : previous + tail] = poison(region.dtype, tail, random)
            previous += tail
        self.data[previous:] = poison("float32", len(self.data) - previous, random)

    def _guard_bytes(self, region: Region) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        return self.data[max(region.start - GUARD, 0) : region.start].copy(), self.data[
            region.end : region.end + GUARD
        ].copy()

    # -- what the simulator asks

    def contains(self, low: int, high: int) -> bool:
        """Whether the bytes from `low` up to but not including `high` lie in one buffer."""
        number = bisect.bisect_right(self._starts, low) - 1
        return number >= 0 and high <= self._ordered[number].end

    def inside(self, at: NDArray[Any], width: int) -> NDArray[np.bool_]:
        """Whether each access of `width` bytes lies in one buffer."""
        if not self._ordered:
            return np.zeros(at.shape, np.bool_)
        number = np.searchsorted(self._starts_array, at, side="right") - 1
        found: NDArray[np.bool_] = (number >= 0) & (at + width <= self._ends_array[np.maximum(number, 0)])
        return found

    def describe(self, at: int, base: int) -> str:
        """Say where a position is, in words, by the nearest buffer."""
        if at + base < GUARD:
            return f"at address {at + base:#x}, a null pointer"
        best: tuple[int, Region] | None = None
        for region in self._ordered:
            distance = max(region.start - at, at - region.end + 1, 0)
            if best is None or distance < best[0]:
                best = distance, region
        if best is None or best[0] > (1 << 30):
            return f"at address {at + base:#x}, far from every buffer"
        region = best[1]
        return f"at byte offset {at - region.start} of {region.name}, which has {region.nbytes} bytes"

    # -- what the judge asks

    def output(self, name: str) -> torch.Tensor:
        """Return what stands in an output or scratch buffer."""
        region = self.regions[name]
        return bytes_tensor(self.data[region.start : region.end], self.specs[name])

    def variables(self) -> dict[str, bytes]:
        """Contents of the module's variables."""
        return {
            name: self.data[region.start : region.end].tobytes()
            for name, region in self.regions.items()
            if region.role == "variable"
        }

    def overwritten(self) -> tuple[str, ...]:
        """Names of inputs whose bytes changed."""
        return tuple(
            name
            for name, content in self.inputs.items()
            if not np.array_equal(self.data[self.regions[name].start : self.regions[name].end], content)
        )

    def trampled(self) -> tuple[str, ...]:
        """Names of buffers whose guard zones changed."""
        return tuple(
            name
            for name, region in self.regions.items()
            if not all(np.array_equal(a, b) for a, b in zip(self._guard_bytes(region), self._guards[name]))
        )


def _dtype_name(tensor: torch.Tensor) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in DTYPE_BYTES:
        raise ValueError(f"unknown dtype {name}")
    return name
