"""The kernels that bring operands of a contraction into the order in which it reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from warpsmith.author.builtin.kernels.emission import Kernels, Scope
from warpsmith.author.builtin.kernels.pointwise import Pointwise
from warpsmith.author.builtin.kernels.pointwise_turned import read_dimension
from warpsmith.author.builtin.regions import Output, Region
from warpsmith.author.builtin.values import Virtual
from warpsmith.records import Buffer


def packed(tensors: Sequence[Virtual], scope: Scope) -> list[Kernels]:
    """Write one kernel for each tensor, into a buffer of the tensor's name."""
    return [_pack(tensor, scope) for tensor in tensors]


def _pack(tensor: Virtual, scope: Scope) -> Kernels:
    region = Region(tensor.name, "pointwise", tensor.shape)
    region.outputs.append(Output(tensor.name, tensor.shape, tensor.dtype, tensor, 0, "element"))
    algorithm = "tiles" if read_dimension(region) is None else "turned"
    vec = next(v for v in (4, 2, 1) if math.prod(tensor.shape) % v == 0)
    own = replace(scope, kernel=f"{tensor.name}_kernel", prefix=f"{tensor.name.upper()}_")
    kernels = Pointwise().emit(region, {"algorithm": algorithm, "vec": vec}, own)
    return replace(kernels, buffers=(Buffer(tensor.name, tuple(map(str, tensor.shape)), tensor.dtype),))


def merged(parts: Sequence[Kernels]) -> Kernels:
    """Put kernels that run one after the other together."""
    return Kernels(
        "\n\n".join(p.source for p in parts),
        tuple(launch for p in parts for launch in p.launches),
        tuple(tunable for p in parts for tunable in p.tunables),
        tuple(buffer for p in parts for buffer in p.buffers),
        frozenset().union(*(p.helpers for p in parts)),
    )
