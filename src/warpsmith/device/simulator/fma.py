"""Exactly rounded arithmetic: fused multiply-add, and every operation in the directed rounding modes.

float32: a product of two float32 numbers is exact in float64, so only the sum can round twice. Rounding the sum to
odd first makes the second rounding innocuous (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums",
IEEE Transactions on Computers 57, 2008); it is needed only where the float64 sum lies halfway between two float32
numbers, or where the result is subnormal, and those lanes are few.

float64: error-free transformations (Dekker's product, Knuth's sum) and the same rounding to odd; lanes near overflow
or underflow, where the transformations are not error-free, are computed with Python's fractions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
F4, F8, I8 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64)

HALFWAY = np.int64(1 << 28)
LOW_29 = np.int64((1 << 29) - 1)
TINY_32_SINGLE = np.float32(2.0**-125)


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the rounded float64 sum and its exact error."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the rounded float64 product and its exact error, where neither over- nor underflows."""
    product = a * b
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _split(a: Array) -> tuple[Array, Array]:
    scaled = a * 134217729.0
    high = scaled - (scaled - a)
    return high, a - high


def odd(total: Array, error: Array) -> Array:
    """Round the exact sum `total + error` to odd, where `total` is its rounding to nearest."""
    bits = np.atleast_1d(total).view(I8)
    error = np.broadcast_to(error, bits.shape)
    even = (bits & 1) == 0
    inexact = (error != 0) & np.isfinite(total)
    away = (error > 0) == (total > 0)
    step = np.where(away, 1, -1)
    return np.where(even & inexact, bits + step, bits).view(F8)


def fma32(a: Array, b: Array, c: Array) -> Array:
    """float32 `a * b + c`, rounded once to nearest even."""
    product = a.astype(F8)
    product = product * b
    wide = product + c
    result = wide.astype(F4)
    bits = wide.view(I8) & LOW_29
    doubtful = bits == HALFWAY
    small = np.abs(result) < TINY_32_SINGLE
    if small.any():
        doubtful |= small & (wide != 0)
    if doubtful.any():
        where = np.flatnonzero(doubtful)
        addend = c.astype(F8)
        total, error = two_sum(_at(product, where), _at(addend, where))
        result[where] = odd(total, error).astype(F4)
    return result


def _at(values: Array, where: Array) -> Array:
    """Pick lanes of a value that may be the same for all of them."""
    return values if values.shape[0] == 1 else values[where]


def fma64(a: Array, b: Array, c: Array) -> Array:
    """float64 `a * b + c`, rounded once to nearest even."""
    a, b, c = (np.ascontiguousarray(value) for value in np.broadcast_arrays(a, b, c))
    high, low = two_product(a, b)
    middle, rest = two_sum(c, low)
    total, error = two_sum(high, middle)
    result: Array = total + odd(*two_sum(rest, error))
    exact = (rest == 0) & (error == 0)
    result = np.where(exact, total, result)
    extent = np.abs(high)
    doubtful = ~((extent < 2.0**960) & (extent > 2.0**-960) & (np.abs(c) < 2.0**960))
    doubtful |= (np.abs(result) < 2.0**-960) | ~((np.abs(a) < 2.0**960) & (np.abs(b) < 2.0**960))
    if doubtful.any():
        for lane in np.flatnonzero(doubtful):
            result[lane] = _exact_fma(float(a[lane]), float(b[lane]), float(c[lane]), "rn")
    return result


def fma_odd(a: Array, b: Array, c: Array) -> Array:
    """Return float64 `a * b + c` rounded to odd, for operands of at most 24 significant bits."""
    product = a.astype(F8) * b.astype(F8)
    return odd(*two_sum(product, c.astype(F8)))


# ------------------------------------------------------------------------------------------------- directed rounding


def narrow(value: Array, mode: str) -> Array:
    """Round float64 to float32 in mode rn, rz, rm or rp; `value` must be exact or rounded to odd."""
    result = np.asarray(value.astype(F4))
    if mode == "rn":
        return result
    back = result.astype(F8)
    if mode == "rz":
        wrong = np.abs(back) > np.abs(value)
        target = np.zeros_like(result)
    elif mode == "rm":
        wrong = back > value
        target = np.full_like(result, -np.inf)
    else:
        wrong = back < value
        target = np.full_like(result, np.inf)
    return np.where(wrong, np.nextafter(result, target), result)


def zero_sum_sign(total: Array, a: Array, b: Array, mode: str) -> Array:
    """Give an exact zero sum of opposite terms the sign that rounding downward asks for."""
    if mode != "rm":
        return total
    cancelled = (total == 0) & ~(np.signbit(a) == np.signbit(b))
    return np.where(cancelled, np.copysign(total, -1.0), total)


def directed32(operation: str, mode: str) -> Callable[..., Array]:
    """Return the float32 operation add, sub, mul, fma, div, rcp or sqrt in rounding mode rz, rm or rp."""

    def add(a: Array, b: Array) -> Array:
        x, y = a.astype(F8), b.astype(F8)
        return narrow(zero_sum_sign(odd(*two_sum(x, y)), x, y, mode), mode)

    def sub(a: Array, b: Array) -> Array:
        return add(a, -b)

    def mul(a: Array, b: Array) -> Array:
        return narrow(a.astype(F8) * b.astype(F8), mode)

    def fma(a: Array, b: Array, c: Array) -> Array:
        x, y = a.astype(F8) * b.astype(F8), c.astype(F8)
        return narrow(zero_sum_sign(odd(*two_sum(x, y)), x, y, mode), mode)

    def div(a: Array, b: Array) -> Array:
        x, y = a.astype(F8), b.astype(F8)
        quotient = x / y
        high, low = two_product(quotient, y)
        remainder = (x - high) - low
        remainder = np.where(np.isfinite(quotient) & np.isfinite(y), remainder, 0.0)
        return narrow(odd(quotient, np.where(y < 0, -remainder, remainder)), mode)

    def rcp(a: Array) -> Array:
        return div(np.ones(1, F4), a)

    def sqrt(a: Array) -> Array:
        x = a.astype(F8)
        root = np.sqrt(x)
        high, low = two_product(root, root)
        remainder = np.where(np.isfinite(root), (x - high) - low, 0.0)
        return narrow(odd(root, remainder), mode)

    functions: dict[str, Callable[..., Array]] = {"add": add, "sub": sub, "mul": mul, "fma": fma, "div": div}
    functions |= {"rcp": rcp, "sqrt": sqrt}
    return functions[operation]


def directed64(operation: str, mode: str) -> Callable[..., Array]:
    """Return the float64 operation in rounding mode rz, rm or rp, lane by lane with fractions: exact, and slow."""

    def lane(*values: float) -> float:
        if operation in ("add", "sub"):
            return _exact_fma(values[0], 1.0, values[1] if operation == "add" else -values[1], mode)
        if operation == "mul":
            return _exact_fma(values[0], values[1], math.copysign(0.0, values[0]) * values[1], mode)
        if operation == "fma":
            return _exact_fma(values[0], values[1], values[2], mode)
        if operation == "sqrt":
            return _exact_sqrt(values[0], mode)
        numerator, denominator = (1.0, values[0]) if operation == "rcp" else (values[0], values[1])
        if not (math.isfinite(numerator) and math.isfinite(denominator) and denominator and numerator):
            return float(np.float64(numerator) / np.float64(denominator))
        return round_fraction(Fraction(numerator) / Fraction(denominator), mode)

    def apply(*values: Array) -> Array:
        lanes = [np.atleast_1d(value).tolist() for value in np.broadcast_arrays(*values)]
        return np.array([lane(*row) for row in zip(*lanes)], F8)

    return apply


def _exact_fma(a: float, b: float, c: float, mode: str) -> float:
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)):
        product = np.float64(a) * np.float64(b) if not (math.isfinite(a) and math.isfinite(b)) else np.float64(0)
        return float(product + np.float64(c))
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        product_negative = (math.copysign(1, a) < 0) != (math.copysign(1, b) < 0)
        same = product_negative == (math.copysign(1, c) < 0) and (a == 0 or b == 0)
        if same:
            return math.copysign(0.0, c)
        return -0.0 if mode == "rm" else 0.0
    return round_fraction(exact, mode)


def _exact_sqrt(a: float, mode: str) -> float:
    if not (a > 0 and math.isfinite(a)):
        return float(np.sqrt(np.float64(a)))
    root = math.sqrt(a)
    square, exact = Fraction(root) ** 2, Fraction(a)
    if mode in ("rm", "rz") and square > exact:
        return math.nextafter(root, 0.0)
    if mode == "rp" and square < exact:
        return math.nextafter(root, math.inf)
    return root


def round_fraction(value: Fraction, mode: str) -> float:
    """Round an exact value, not zero, to float64 in mode rn, rz, rm or rp."""
    try:
        nearest = float(value)
    except OverflowError:
        nearest = math.inf if value > 0 else -math.inf
    if mode == "rn":
        return nearest
    toward = {"rz": 0.0, "rm": -math.inf, "rp": math.inf}[mode]
    if math.isinf(nearest):
        above = nearest > 0
    else:
        error = Fraction(nearest) - value
        if error == 0:
            return nearest
        above = error > 0
    wrong = (above and (toward == -math.inf or (toward == 0.0 and value > 0))) or (
        not above and (toward == math.inf or (toward == 0.0 and value < 0))
    )
    return math.nextafter(nearest, toward) if wrong else nearest
