"""Integer instructions that NumPy has no function for. Operands are arrays of the stated dtype; all results wrap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
U4, U8, I4, I8 = np.dtype(np.uint32), np.dtype(np.uint64), np.dtype(np.int32), np.dtype(np.int64)


def divide(a: Array, b: Array) -> Array:
    """Quotient truncated toward zero; all bits set where the divisor is 0, as the hardware gives."""
    if a.dtype.kind == "u":
        quotient = a // b
    else:
        quotient = np.floor_divide(a, b)
        quotient = quotient + ((np.remainder(a, b) != 0) & ((a < 0) != (b < 0))).astype(a.dtype)
    return np.where(b == 0, ~a.dtype.type(0), quotient)


def remainder(a: Array, b: Array) -> Array:
    """Remainder with the sign of the dividend; the dividend where the divisor is 0."""
    return np.where(b == 0, a, np.fmod(a, b))


def multiply_high(a: Array, b: Array) -> Array:
    """Upper half of the double-width product."""
    bits = a.dtype.itemsize * 8
    if bits < 64:
        wide = np.dtype(f"{a.dtype.kind}{a.dtype.itemsize * 2}")
        product = a.astype(wide) * b.astype(wide)
        result: Array = (product >> wide.type(bits)).astype(a.dtype)
        return result
    x, y = a.astype(U8), b.astype(U8)
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    low = (x & mask) * (y & mask)
    cross = (x >> half) * (y & mask) + (low >> half)
    other = (x & mask) * (y >> half) + (cross & mask)
    high = (x >> half) * (y >> half) + (cross >> half) + (other >> half)
    if a.dtype.kind == "i":
        high = high - np.where(a < 0, y, np.uint64(0)) - np.where(b < 0, x, np.uint64(0))
    upper: Array = high.astype(a.dtype)
    return upper


def multiply_wide(a: Array, b: Array) -> Array:
    """Double-width product."""
    wide = np.dtype(f"{a.dtype.kind}{a.dtype.itemsize * 2}")
    result: Array = a.astype(wide) * b.astype(wide)
    return result


def shift_left(a: Array, amount: Array) -> Array:
    """Shift left; amounts of the width or more give 0. `amount` is uint32."""
    bits = a.dtype.itemsize * 8
    limited = np.minimum(amount, np.uint32(bits)).astype(a.dtype)
    result: Array = np.left_shift(a, limited)
    return result


def shift_right(a: Array, amount: Array) -> Array:
    """Shift right, arithmetic for signed dtypes; amounts are clamped to the width. `amount` is uint32."""
    bits = a.dtype.itemsize * 8
    limited = np.minimum(amount, np.uint32(bits)).astype(a.dtype)
    result: Array = np.right_shift(a, limited)
    return result


def bit_field_extract(a: Array, start: Array, length: Array) -> Array:
    """Take `length` bits from bit `start` on, sign-extended for signed dtypes."""
    width = a.dtype.itemsize * 8
    start, length = (start & np.uint32(0xFF)).astype(I8), (length & np.uint32(0xFF)).astype(I8)
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    kept = np.minimum(np.minimum(length, width), np.maximum(width - start, 0))
    moved = np.right_shift(a.view(unsigned), np.minimum(start, width).astype(unsigned))
    mask = np.right_shift(unsigned.type(~unsigned.type(0)), (width - kept).astype(unsigned))
    field = moved & mask
    if a.dtype.kind == "i":
        sign_at = np.minimum(start + length - 1, width - 1)
        sign = np.right_shift(a.view(unsigned), np.maximum(sign_at, 0).astype(unsigned)) & unsigned.type(1)
        field = np.where((sign == 1) & (length > 0), field | ~mask, field)
    result: Array = field.view(a.dtype)
    return result


def bit_field_insert(a: Array, b: Array, start: Array, length: Array) -> Array:
    """Replace `length` bits of `b` from bit `start` on by the low bits of `a`. Unsigned dtypes."""
    width = a.dtype.itemsize * 8
    start, length = (start & np.uint32(0xFF)).astype(I8), (length & np.uint32(0xFF)).astype(I8)
    kept = np.minimum(np.minimum(length, width), np.maximum(width - start, 0))
    ones = np.right_shift(a.dtype.type(~a.dtype.type(0)), (width - kept).astype(a.dtype))
    place = np.minimum(start, width).astype(a.dtype)
    mask = np.left_shift(ones, place)
    result: Array = (b & ~mask) | (np.left_shift(a, place) & mask)
    return result


def bit_reverse(a: Array) -> Array:
    """Reverse the order of the bits. Unsigned dtypes."""
    width = a.dtype.itemsize * 8
    result, step = a, 1
    while step < width:
        mask = a.dtype.type(sum(((1 << step) - 1) << at for at in range(0, width, 2 * step)))
        amount = a.dtype.type(step)
        result = ((result >> amount) & mask) | ((result & mask) << amount)
        step *= 2
    return result


def leading_zeros(a: Array) -> Array:
    """Count leading zeros as int32. Unsigned dtypes."""
    smeared, step = a, 1
    while step < a.dtype.itemsize * 8:
        smeared = smeared | (smeared >> a.dtype.type(step))
        step *= 2
    return np.bitwise_count(~smeared).astype(I4)


def population(a: Array) -> Array:
    """Count bits that are set, as int32. Unsigned dtypes."""
    return np.bitwise_count(a).astype(I4)


def find_leading(shift_amount: bool) -> Callable[[Array], Array]:
    """Return `bfind`: the position of the most significant bit that differs from the sign, or its shift amount."""

    def find(a: Array) -> Array:
        unsigned = np.dtype(f"u{a.dtype.itemsize}")
        bits = np.where(a < 0, ~a, a).view(unsigned) if a.dtype.kind == "i" else a
        zeros = leading_zeros(bits)
        position = (a.dtype.itemsize * 8 - 1) - zeros
        return np.where(bits == 0, np.int32(-1), zeros if shift_amount else position).astype(I4)

    return find


def permute(mode: str) -> Callable[[Array, Array, Array], Array]:
    """Return `prmt` in a mode: "" (by selector nibbles), f4e, b4e, rc8, ecl, ecr or rc16. Operands are uint32."""

    def generic(a: Array, b: Array, selector: Array) -> Array:
        both = a.astype(U8) | (b.astype(U8) << np.uint64(32))
        result = np.zeros(1, U4)
        for place in range(4):
            nibble = (selector >> np.uint32(4 * place)) & np.uint32(15)
            byte = (both >> ((nibble & np.uint32(7)).astype(U8) * np.uint64(8))).astype(U4) & np.uint32(255)
            sign = np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0))
            result = result | (np.where(nibble & np.uint32(8), sign, byte) << np.uint32(8 * place))
        return result

    if mode == "":
        return generic
    table = {
        "f4e": (0x3210, 0x4321, 0x5432, 0x6543),
        "b4e": (0x5670, 0x6701, 0x7012, 0x0123),
        "rc8": (0x0000, 0x1111, 0x2222, 0x3333),
        "ecl": (0x3210, 0x3211, 0x3222, 0x3333),
        "ecr": (0x0000, 0x1110, 0x2210, 0x3210),
        "rc16": (0x1010, 0x3232, 0x1010, 0x3232),
    }[mode]
    selectors = np.array(table, U4)
    return lambda a, b, selector: generic(a, b, selectors[(selector & np.uint32(3)).astype(I8)])


def logic3(table: int) -> Callable[[Array, Array, Array], Array]:
    """Return `lop3` for an 8-bit truth table: bit `4a + 2b + c` is the result for inputs a, b, c."""
    known: dict[int, Callable[[Array, Array, Array], Array]] = {
        0x80: lambda a, b, c: a & b & c,
        0xFE: lambda a, b, c: a | b | c,
        0x96: lambda a, b, c: a ^ b ^ c,
        0xEA: lambda a, b, c: (a & b) | c,
        0xF8: lambda a, b, c: a | (b & c),
        0x6A: lambda a, b, c: (a & b) ^ c,
        0x78: lambda a, b, c: a ^ (b & c),
        0xCA: lambda a, b, c: (a & b) | (~a & c),
    }
    if table in known:
        return known[table]

    def generic(a: Array, b: Array, c: Array) -> Array:
        result = np.zeros(np.broadcast_shapes(a.shape, b.shape, c.shape), a.dtype)
        for minterm in range(8):
            if table >> minterm & 1:
                result |= (a if minterm & 4 else ~a) & (b if minterm & 2 else ~b) & (c if minterm & 1 else ~c)
        return result

    return generic


def funnel_shift(direction: str, mode: str) -> Callable[[Array, Array, Array], Array]:
    """Return `shf`: shift the 64-bit value `b:a` by `c`, wrapping or clamping the amount. Operands are uint32."""

    def shift(a: Array, b: Array, c: Array) -> Array:
        amount = (c & np.uint32(31) if mode == "wrap" else np.minimum(c, np.uint32(32))).astype(U8)
        both = a.astype(U8) | (b.astype(U8) << np.uint64(32))
        if direction == "r":
            return (both >> amount).astype(U4)
        return ((both << amount) >> np.uint64(32)).astype(U4)

    return shift


def dot_product(parts: int, a_type: str, b_type: str, high: bool = False) -> Callable[[Array, Array, Array], Array]:
    """Return `dp4a` (parts 4) or `dp2a` (parts 2, on the low or high half of b). Operands are int32."""
    a_dtype = np.dtype(f"{'i' if a_type == 's32' else 'u'}{4 // parts}")
    b_dtype = np.dtype("i1" if b_type == "s32" else "u1")

    def dot(a: Array, b: Array, c: Array) -> Array:
        left = a.view(a_dtype).reshape(-1, parts).astype(I8)
        right = b.view(b_dtype).reshape(-1, 4).astype(I8)
        right = right[:, 2:] if high else right[:, :parts]
        result: Array = ((left * right).sum(axis=1) + c).astype(I4)
        return result

    return dot


def absolute_difference(a: Array, b: Array, c: Array) -> Array:
    """`sad`: c + |a - b|."""
    result: Array = c + (np.where(a < b, b - a, a - b)).astype(a.dtype)
    return result


def packed16(function: Callable[[Array, Array], Array], kind: str) -> Callable[[Array, Array], Array]:
    """Apply an operation to both 16-bit halves of uint32 registers; `kind` is s16x2 or u16x2."""
    dtype = np.dtype(np.int16 if kind == "s16x2" else np.uint16)

    def apply(a: Array, b: Array) -> Array:
        halves = function(a.view(dtype).reshape(-1, 2), b.view(dtype).reshape(-1, 2))
        return halves.reshape(-1).view(U4)

    return apply


def byte_differences(kinds: tuple[str, str], total: bool) -> Callable[[Array, Array, Array], Array]:
    """Return `vabsdiff4`: absolute differences of bytes, side by side, or (`total`) their sum added to `c`."""
    dtypes = [np.dtype(np.int8 if kind == "s32" else np.uint8) for kind in kinds]

    def apply(a: Array, b: Array, c: Array) -> Array:
        left, right = (value.view(dtype).reshape(-1, 4).astype(I4) for value, dtype in zip((a, b), dtypes))
        differences = np.abs(left - right)
        packed: Array = differences.astype(np.uint8).reshape(-1).view(U4)
        summed: Array = (differences.sum(axis=1) + c).astype(U4)
        return summed if total else packed

    return apply


def saturating(operation: str) -> Callable[[Array, Array], Array]:
    """Return signed 32-bit `add.sat` or `sub.sat`."""

    def apply(a: Array, b: Array) -> Array:
        wide = a.astype(I8) + b if operation == "add" else a.astype(I8) - b
        return np.clip(wide, -(1 << 31), (1 << 31) - 1).astype(I4)

    return apply


def add_with_carry(a: Array, b: Array, carry: Array) -> tuple[Array, Array]:
    """Unsigned sum and carry out."""
    first = a + b
    total = first + carry.astype(a.dtype)
    return total, (first < a) | (total < first)


def subtract_with_borrow(a: Array, b: Array, borrow: Array) -> tuple[Array, Array]:
    """Unsigned difference and borrow out."""
    first = a - b
    total = first - borrow.astype(a.dtype)
    return total, (a < b) | (first < borrow)
