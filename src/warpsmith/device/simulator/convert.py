"""The `cvt` instruction: one function for each pair of types, rounding mode and saturation.

Conversions of floats to integers round as asked and clamp to the range of the destination; NaN becomes 0, or, if
the source or the destination has 64 bits, the integer whose highest bit alone is set (PTX ISA, `cvt`).
bfloat16 values are held as their 16 bits, since NumPy has no such type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator.fma import F4, F8, narrow, odd, two_sum

Array = NDArray[Any]
Function = Callable[..., Array]

ROUNDING: dict[str, Callable[[Array], Array]] = {
    "rni": np.rint,
    "rzi": np.trunc,
    "rmi": np.floor,
    "rpi": np.ceil,
}
FLOATS = {"f16": np.dtype(np.float16), "f32": F4, "f64": F8}


def flush(values: Array) -> Array:
    """Replace float32 subnormals by zeros of the same sign (`.ftz`)."""
    small = np.abs(values) < np.finfo(np.float32).tiny
    if not small.any():
        return values
    return np.where(small, np.copysign(np.float32(0), values), values)


def saturate(values: Array) -> Array:
    """Clamp floats to [0, 1], NaN to 0 (`.sat`)."""
    result: Array = np.where(values > 0, np.minimum(values, values.dtype.type(1)), values.dtype.type(0))
    return result


def bf16_to_f32(bits: Array) -> Array:
    """Widen bfloat16 bits (uint16) to float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(F4)


def f32_to_bf16(values: Array, mode: str = "rn") -> Array:
    """Round float32 to bfloat16 bits (uint16) in mode rn or rz; NaN becomes 0x7fff."""
    bits = values.view(np.uint32)
    if mode == "rn":
        bits = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    return np.where(np.isnan(values), np.uint32(0x7FFF), bits >> np.uint32(16)).astype(np.uint16)


def f64_to_bf16(values: Array) -> Array:
    """Round float64 (exact, or rounded to odd) to bfloat16 bits once, to nearest even."""
    return f32_to_bf16(narrow_odd(values))


def narrow_odd(values: Array) -> Array:
    """Round float64 to float32 so that a later rounding to fewer bits is right: to odd where inexact."""
    toward_zero = narrow(values, "rz")
    inexact = (toward_zero.astype(F8) != values) & np.isfinite(values)
    bits = toward_zero.view(np.uint32) | inexact.astype(np.uint32)
    result: Array = bits.view(F4)
    return result


def f32_to_f16(values: Array, mode: str) -> Array:
    """Round float32 to float16 in mode rn, rz, rm or rp."""
    result = values.astype(np.float16)
    if mode == "rn":
        return result
    back = result.astype(F4)
    toward = np.float16({"rz": 0, "rm": -np.inf, "rp": np.inf}[mode])
    wrong = {"rz": np.abs(back) > np.abs(values), "rm": back > values, "rp": back < values}[mode]
    return np.where(wrong, np.nextafter(result, toward), result)


def f32_to_tf32(values: Array, mode: str) -> Array:
    """Round float32 to 10 explicit mantissa bits: rna to nearest, ties away; rn to nearest even; rz toward zero."""
    bits = values.view(np.uint32)
    step: Array = {"rna": np.full(1, 0x1000, np.uint32), "rz": np.zeros(1, np.uint32)}.get(
        mode, np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))
    )
    rounded = ((bits + step) & np.uint32(0xFFFFE000)).view(F4)
    return np.where(np.isfinite(values), rounded, values)


def float_to_int(target: np.dtype[Any], rounding: str, source: str) -> Function:
    """Return the conversion of floats to `target`: round, then clamp."""
    info = np.iinfo(target)
    low, high = float(info.min), float(info.max) + (1.0 if info.bits < 64 else 0.0)
    to_integer = ROUNDING[rounding]
    highest = np.array([1 << (info.bits - 1)], f"u{target.itemsize}").view(target)[0]
    nan = highest if source == "f64" or info.bits == 64 else target.type(0)

    def convert(values: Array) -> Array:
        wide = to_integer(values.astype(F8))
        inside = (wide > low) & (wide < high)
        result = np.where(inside, wide, 0.0).astype(target)
        if not inside.all():
            result = np.where(wide >= high, target.type(info.max), np.where(wide <= low, target.type(info.min), result))
            result = np.where(np.isnan(wide), nan, result)
        return result

    return convert


def int_to_int(target: np.dtype[Any], saturating: bool, source: np.dtype[Any]) -> Function:
    """Return the conversion between integers: wrap, or clamp to the range of `target`."""
    if not saturating:
        return lambda values: values.astype(target)
    ours, theirs = np.iinfo(target), np.iinfo(source)
    low, high = max(int(ours.min), int(theirs.min)), min(int(ours.max), int(theirs.max))
    return lambda values: np.clip(values, source.type(low), source.type(high)).astype(target)


def int_to_float(target: str, mode: str, source: np.dtype[Any]) -> Function:
    """Return the conversion of integers to f16, f32 or f64 bits, rounded once."""
    dtype = FLOATS[target]
    if mode == "rn" and target != "f16":
        return lambda values: values.astype(dtype)

    def convert(values: Array) -> Array:
        wide = values.astype(F8)
        if source.itemsize == 8:
            high, low = values >> source.type(32), values & source.type(0xFFFFFFFF)
            wide = odd(*two_sum(high.astype(F8) * 2.0**32, low.astype(F8)))
        if target == "f64":
            return wide
        if target == "f32":
            return narrow(wide, mode)
        return f32_to_f16(narrow_odd(wide), mode)

    return convert


def float_to_float(target: str, source: str, mode: str) -> Function:
    """Return the conversion between float types, or the rounding to an integral value within one type."""
    if mode in ROUNDING:
        to_integer = ROUNDING[mode]
        if source == target == "bf16":
            return lambda values: f32_to_bf16(to_integer(bf16_to_f32(values)))
        if source == target:
            return lambda values: to_integer(values)
        widen = float_to_float(target, source, "rn")
        return lambda values: to_integer(widen(values))
    if target == "tf32":
        return lambda values: f32_to_tf32(values, mode)
    if source == "bf16":
        if target == "bf16":
            return lambda values: values
        after = float_to_float(target, "f32", mode)
        return lambda values: after(bf16_to_f32(values))
    if target == "bf16":
        if source == "f64":
            return lambda values: f32_to_bf16(narrow_odd(values), mode)
        return lambda values: f32_to_bf16(values.astype(F4), mode)
    if target == "f16" and source == "f32":
        return lambda values: f32_to_f16(values, mode)
    if target == "f16" and source == "f64":
        return lambda values: f32_to_f16(narrow_odd(values), mode)
    if target == "f32" and source == "f64":
        return lambda values: narrow(values, mode)
    dtype = FLOATS[target]
    return lambda values: values.astype(dtype)
