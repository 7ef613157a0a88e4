"""The operators that a plan may call: what they take, what comes out, and how much work that is.

The list is short on purpose. Each is computed by cuBLAS or cuDNN better than most kernels do it, writes one tensor of a
shape that follows from its arguments, and has no other effect: no state, no chance, nothing on the host. Names and
order of arguments are those of the ATen schema.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from warpsmith.errors import ProgramError

Shape = tuple[int, ...]
Options = Mapping[str, tuple[int, ...]]

FLOATING = ("float64", "float32", "float16", "bfloat16")
"""Dtypes that calls compute in: those of which cuBLAS and cuDNN make products."""


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator of the allow-list.

    `tensors` names its tensor arguments, of which the last `optional` may be left out; `options` holds the default of
    each option. `complete` spells the options out for given shapes, `result` gives the shape of what is written, both
    raise ProgramError; `products` counts multiply-adds. `kind` names the precision policy that applies.
    """

    tensors: tuple[str, ...]
    kind: Literal["matmul", "conv"]
    result: Callable[[Sequence[Shape], Options], Shape]
    products: Callable[[Sequence[Shape], Options], int]
    complete: Callable[[Sequence[Shape], Options], Options] = lambda shapes, options: options
    optional: int = 0
    options: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


# ------------------------------------------------------------------------------------------------------ matrix products


def _product(left: Shape, right: Shape, rank: int) -> Shape:
    if len(left) != rank or len(right) != rank:
        raise ProgramError(f"takes matrices of {rank} dimensions, not {list(left)} and {list(right)}")
    if left[-1] != right[-2] or left[:-2] != right[:-2]:
        raise ProgramError(f"cannot multiply {list(left)} by {list(right)}")
    return (*left[:-1], right[-1])


def _added(bias: Shape, result: Shape) -> Shape:
    tail = result[len(result) - len(bias) :]
    if len(bias) > len(result) or any(extent not in (1, due) for extent, due in zip(bias, tail)):
        raise ProgramError(f"cannot add {list(bias)} to a product of shape {list(result)}")
    return result


def _matrix_operator(rank: int, *, adds: bool) -> Operator:
    batched = "batch" if rank == 3 else "mat"
    names = ("self", f"{batched}1", f"{batched}2") if adds else ("self", "mat2")

    def result(shapes: Sequence[Shape], options: Options) -> Shape:
        product = _product(shapes[-2], shapes[-1], rank)
        return _added(shapes[0], product) if adds else product

    def products(shapes: Sequence[Shape], options: Options) -> int:
        return math.prod(shapes[-2]) * shapes[-1][-1]

    return Operator(names, "matmul", result, products)


# --------------------------------------------------------------------------------------------------------- convolutions

_SPATIAL = ("stride", "padding", "dilation", "output_padding")
_SPATIAL_DIMENSIONS = (1, 2, 3)


def _complete_convolution(shapes: Sequence[Shape], options: Options) -> Options:
    """One number serves all dimensions."""
    images, weights = shapes[:2]
    rank = len(weights) - 2
    if rank not in _SPATIAL_DIMENSIONS or len(images) != rank + 2:
        raise ProgramError(
            f"takes images and weights of 3 to 5 dimensions each, not {list(images)} and {list(weights)}"
        )
    full = dict(options)
    for name in _SPATIAL:
        given = options[name]
        full[name] = given * rank if len(given) == 1 else given
        least = 1 if name in ("stride", "dilation") else 0
        if len(full[name]) != rank or min(full[name]) < least:
            raise ProgramError(f"{name} is {list(given)}; it needs 1 or {rank} numbers, each at least {least}")
    for name in ("transposed", "groups"):
        if len(options[name]) != 1:
            raise ProgramError(f"{name} is {list(options[name])}; it is one number")
    if full["transposed"][0] not in (0, 1):
        raise ProgramError(f"transposed is {full['transposed'][0]}; it is 0 or 1")
    if not full["transposed"][0] and any(full["output_padding"]):
        raise ProgramError("output_padding goes with transposed = 1")
    if any(o >= max(s, d) for o, s, d in zip(full["output_padding"], full["stride"], full["dilation"])):
        raise ProgramError("output_padding must be smaller than stride or dilation")
    return MappingProxyType(full)


def _convolved(shapes: Sequence[Shape], options: Options) -> Shape:
    images, weights = shapes[0], shapes[1]
    groups, transposed = options["groups"][0], options["transposed"][0]
    inputs, channels = (weights[0], weights[1] * groups) if transposed else (weights[1] * groups, weights[0])
    if groups < 1 or images[1] != inputs or weights[0] % groups:
        raise ProgramError(f"weights {list(weights)} in {groups} groups do not fit images {list(images)}")
    if len(shapes) > 2 and shapes[2] != (channels,):
        raise ProgramError(f"the bias must have shape [{channels}], not {list(shapes[2])}")
    space = tuple(
        (extent - 1) * stride - 2 * padding + dilation * (taps - 1) + more + 1
        if transposed
        else (extent + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
        for extent, taps, stride, padding, dilation, more in zip(
            images[2:], weights[2:], *(options[name] for name in _SPATIAL), strict=True
        )
    )
    if any(extent < 1 for extent in space) or 0 in weights:
        raise ProgramError(f"images {list(images)} are too small for windows {list(weights[2:])}")
    return (images[0], channels, *space)


def _convolution_products(shapes: Sequence[Shape], options: Options) -> int:
    weights = shapes[1]
    if options["transposed"][0]:
        return math.prod(shapes[0]) * math.prod(weights[1:])
    return math.prod(_convolved(shapes, options)) * math.prod(weights[1:])


LIBRARY: Mapping[str, Operator] = MappingProxyType(
    {
        "aten.mm": _matrix_operator(2, adds=False),
        "aten.bmm": _matrix_operator(3, adds=False),
        "aten.addmm": _matrix_operator(2, adds=True),
        "aten.baddbmm": _matrix_operator(3, adds=True),
        "aten.convolution": Operator(
            ("input", "weight", "bias"),
            "conv",
            _convolved,
            _convolution_products,
            _complete_convolution,
            optional=1,
            options=MappingProxyType(
                {"stride": 1, "padding": 0, "dilation": 1, "transposed": 0, "output_padding": 0, "groups": 1}
            ),
        ),
    }
)
"""By name."""
