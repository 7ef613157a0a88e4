"""Arithmetic on float16 and bfloat16, alone or two in a 32-bit register.

Sums, products and quotients of float16 numbers computed in float32 and rounded are rounded once (24 >= 2 * 11 + 2
bits), and so are those of bfloat16 numbers. A fused multiply-add is computed in float64, rounded to odd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator.convert import bf16_to_f32, f32_to_bf16, f32_to_f16, f64_to_bf16, narrow_odd
from warpsmith.device.simulator.fma import F4, fma_odd

Array = NDArray[Any]
Function = Callable[..., Array]
F2, U2, U4 = np.dtype(np.float16), np.dtype(np.uint16), np.dtype(np.uint32)


def minimum(a: Array, b: Array) -> Array:
    """IEEE 754-2019 minimumNumber: a NaN loses, -0 is less than +0."""
    result = np.fmin(a, b)
    return np.where((a == b) & np.signbit(a), a, result)


def maximum(a: Array, b: Array) -> Array:
    """IEEE 754-2019 maximumNumber: a NaN loses, +0 is greater than -0."""
    result = np.fmax(a, b)
    return np.where((a == b) & ~np.signbit(a), a, result)


def scalar16(name: str, brain: bool, *, relu: bool = False, sat: bool = False) -> Function:
    """Return the operation on one float16 (or, with `brain`, bfloat16) per lane, on arrays of float16 or uint16.

    `name` is add, sub, mul, fma, neg, abs, min, max, min.NaN, max.NaN, ex2, tanh, sqrt or rcp.
    """
    widen: Function = bf16_to_f32 if brain else (lambda values: values.astype(F4))
    narrow: Function = f32_to_bf16 if brain else (lambda values: f32_to_f16(values, "rn"))
    unsigned: Function = (lambda values: values) if brain else (lambda values: values.view(U2))
    back: Function = (lambda bits: bits) if brain else (lambda bits: bits.view(F2))
    if name in ("neg", "abs"):
        if name == "neg":
            return lambda a: back(unsigned(a) ^ np.uint16(0x8000))
        return lambda a: back(unsigned(a) & np.uint16(0x7FFF))

    def clamp(values: Array) -> Array:
        if relu:
            values = np.where(values > 0, values, np.where(np.isnan(values), values, values.dtype.type(0)))
        if sat:
            values = np.where(values > 0, np.minimum(values, values.dtype.type(1)), values.dtype.type(0))
        return values

    if name == "fma":

        def fma(a: Array, b: Array, c: Array) -> Array:
            exact = clamp(fma_odd(widen(a), widen(b), widen(c)))
            return f64_to_bf16(exact) if brain else f32_to_f16(narrow_odd(exact), "rn")

        return fma
    wide: dict[str, Function] = {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "min": minimum,
        "max": maximum,
        "min.NaN": np.minimum,
        "max.NaN": np.maximum,
        "ex2": np.exp2,
        "tanh": np.tanh,
    }
    function = wide[name]
    return lambda *values: narrow(clamp(function(*(widen(value) for value in values))))


def packed(function: Function, brain: bool) -> Function:
    """Apply a scalar operation to both halves of uint32 registers."""
    dtype = U2 if brain else F2

    def apply(*values: Array) -> Array:
        halves = [np.ascontiguousarray(value).view(dtype).reshape(-1, 2) for value in values]
        return np.ascontiguousarray(function(*halves)).reshape(-1).view(U4)

    return apply
