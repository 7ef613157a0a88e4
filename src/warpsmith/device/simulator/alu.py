"""Register-to-register instructions: from opcode and modifiers to an `Operation`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator import compare, fma, half, integer
from warpsmith.device.simulator.conversion import cvt
from warpsmith.device.simulator.decode import BOOL, DTYPES, Modifiers, Operation, operation
from warpsmith.device.simulator.floats import (
    MODES,
    SPECIAL,
    approximate_quotient,
    copysign,
    float_class,
    fused,
    guarded,
    half_operation,
    signed_zero,
    special,
    xor_sign,
)
from warpsmith.device.simulator.ptx import Instruction, Integer

Array = NDArray[Any]
Function = Callable[..., Any]
SIGNED = {"u16": "s16", "u32": "s32", "u64": "s64", "b16": "s16", "b32": "s32", "b64": "s64"}


def _wrapping(kind: str) -> str:
    """The type in which to do arithmetic that is the same for both signs: signed, the registers' usual form."""
    return SIGNED.get(kind, kind)


def _add(instruction: Instruction) -> Operation:
    name = instruction.opcode
    modifiers = Modifiers(instruction)
    kind = modifiers.type()
    if kind in ("f16", "bf16", "f16x2", "bf16x2"):
        return half_operation(instruction, name, kind, modifiers, 2)
    if kind in ("s16x2", "u16x2"):
        modifiers.done()
        return operation(integer.packed16(np.add, kind), (kind, kind), kind, "int")
    sat = modifiers.take("sat")
    if kind in ("f32", "f64"):
        mode = modifiers.one_of(*MODES, default="rn")
        ftz = modifiers.take("ftz")
        modifiers.done()
        plain: Function = {"add": np.add, "sub": np.subtract, "mul": np.multiply}[name]
        directed = fma.directed32 if kind == "f32" else fma.directed64
        function = plain if mode == "rn" else directed(name, mode)
        return operation(guarded(function, ftz, sat), (kind, kind), kind, float_class(kind))
    if modifiers.take("cc"):
        modifiers.done()
        return _carry(name, kind, carry_in=False, carry_out=True)
    modifiers.done()
    if sat:
        return operation(integer.saturating(name), (kind, kind), kind, "int")
    kind = _wrapping(kind)
    return operation(np.add if name == "add" else np.subtract, (kind, kind), kind, "int")


def _carry(name: str, kind: str, *, carry_in: bool, carry_out: bool) -> Operation:
    """Decode addition or subtraction with the carry flag."""
    unsigned = DTYPES[f"u{kind[1:]}"]
    both = integer.add_with_carry if name == "add" else integer.subtract_with_borrow
    zero = np.zeros(1, np.bool_)

    def apply(a: Array, b: Array, carry: Array = zero) -> Any:
        total, out = both(a, b, carry)
        return (total, out) if carry_out else total

    return Operation(apply, (unsigned, unsigned), (unsigned,), "int", carry_in, carry_out)


def _addc(instruction: Instruction) -> Operation:
    modifiers = Modifiers(instruction)
    carry_out = modifiers.take("cc")
    kind = modifiers.type()
    modifiers.done()
    return _carry(instruction.opcode[:3], kind, carry_in=True, carry_out=carry_out)


def _mul(instruction: Instruction) -> Operation:
    if not any(name in instruction.modifiers for name in ("lo", "hi", "wide")):
        return _add(instruction)
    modifiers = Modifiers(instruction)
    part = modifiers.one_of("lo", "hi", "wide")
    kind = modifiers.type()
    modifiers.done()
    if part == "lo":
        kind = _wrapping(kind)
        return operation(np.multiply, (kind, kind), kind, "int")
    if part == "hi":
        return operation(integer.multiply_high, (kind, kind), kind, "int")
    return operation(integer.multiply_wide, (kind, kind), f"{kind[0]}{int(kind[1:]) * 2}", "int")


def _mad(instruction: Instruction) -> Operation:
    if not any(name in instruction.modifiers for name in ("lo", "hi", "wide")):
        return fused(instruction)
    modifiers = Modifiers(instruction)
    part = modifiers.one_of("lo", "hi", "wide")
    sat, carry_out = modifiers.take("sat"), modifiers.take("cc")
    carry_in = instruction.opcode == "madc"
    kind = modifiers.type()
    modifiers.done()
    if sat:
        raise instruction.fail("mad.sat is not supported")
    if carry_in or carry_out:
        return _mad_carry(part, kind, carry_in, carry_out)
    if part == "lo":
        kind = _wrapping(kind)
        return operation(lambda a, b, c: a * b + c, (kind, kind, kind), kind, "int")
    if part == "hi":
        return operation(lambda a, b, c: integer.multiply_high(a, b) + c, (kind, kind, kind), kind, "int")
    wide = f"{kind[0]}{int(kind[1:]) * 2}"
    return operation(lambda a, b, c: integer.multiply_wide(a, b) + c, (kind, kind, wide), wide, "int")


def _mad_carry(part: str, kind: str, carry_in: bool, carry_out: bool) -> Operation:
    """Decode `mad.cc` and `madc`: the addition of the product carries."""
    dtype, unsigned = DTYPES[kind], DTYPES[f"u{kind[1:]}"]
    product: Function = np.multiply if part == "lo" else integer.multiply_high
    zero = np.zeros(1, np.bool_)

    def apply(a: Array, b: Array, c: Array, carry: Array = zero) -> Any:
        total, out = integer.add_with_carry(product(a, b).view(unsigned), c, carry)
        return (total, out) if carry_out else total

    return Operation(apply, (dtype, dtype, unsigned), (unsigned,), "int", carry_in, carry_out)


def _mul24(instruction: Instruction) -> Operation:
    modifiers = Modifiers(instruction)
    part = modifiers.one_of("lo", "hi")
    kind = modifiers.type()
    modifiers.done()
    wide = DTYPES[f"{kind[0]}64"]

    def apply(a: Array, b: Array, *c: Array) -> Array:
        eight = a.dtype.type(8)
        product = ((a << eight) >> eight).astype(wide) * ((b << eight) >> eight)
        low: Array = (product if part == "lo" else product >> wide.type(16)).astype(a.dtype)
        return np.add(low, c[0]) if c else low

    count = 2 if instruction.opcode == "mul24" else 3
    return operation(apply, (kind,) * count, kind, "int")


def _div(instruction: Instruction) -> Operation:
    modifiers = Modifiers(instruction)
    kind = modifiers.type()
    if kind in ("f32", "f64"):
        mode = modifiers.one_of(*MODES, "full", "approx", default="rn")
        ftz = modifiers.take("ftz")
        modifiers.done()
        directed = fma.directed32 if kind == "f32" else fma.directed64
        function: Function = directed("div", mode) if mode in ("rz", "rm", "rp") else np.divide
        if mode == "approx":
            function = approximate_quotient
        return operation(guarded(function, ftz, False), (kind, kind), kind, "special")
    modifiers.done()
    return operation(integer.divide, (kind, kind), kind, "special")


def _rem(instruction: Instruction) -> Operation:
    modifiers = Modifiers(instruction)
    kind = modifiers.type()
    modifiers.done()
    return operation(integer.remainder, (kind, kind), kind, "special")


def _sign(instruction: Instruction) -> Operation:
    """Decode `neg` and `abs`."""
    name = instruction.opcode
    modifiers = Modifiers(instruction)
    kind = modifiers.type()
    if kind in ("f16", "bf16", "f16x2", "bf16x2"):
        return half_operation(instruction, name, kind, modifiers, 1)
    ftz = modifiers.take("ftz")
    modifiers.done()
    function: Function = np.negative if name == "neg" else np.abs
    family = float_class(kind) if kind in ("f32", "f64") else "int"
    return operation(guarded(function, ftz, False), (kind,), kind, family)


def _extreme(instruction: Instruction) -> Operation:
    """Decode `min` and `max`, of two or, for float32, three operands."""
    name = instruction.opcode
    modifiers = Modifiers(instruction)
    kind = modifiers.type()
    nan, flip = modifiers.take("NaN"), modifiers.take("xorsign")
    if flip and not modifiers.take("abs"):
        raise instruction.fail(".xorsign needs .abs")
    if kind in ("f16", "bf16", "f16x2", "bf16x2"):
        if flip:
            raise instruction.fail(".xorsign is supported for f32 only")
        return half_operation(instruction, f"{name}.NaN" if nan else name, kind, modifiers, 2)
    ftz, relu = modifiers.take("ftz"), modifiers.take("relu")
    modifiers.done()
    count = len(instruction.operands) - 1
    if kind not in ("f32", "f64"):
        plain: Function = np.minimum if name == "min" else np.maximum
        if kind in ("s16x2", "u16x2"):
            plain = integer.packed16(plain, kind)
        if relu:
            return operation(lambda a, b: np.maximum(plain(a, b), 0), (kind, kind), kind, "int")
        return operation(plain, (kind, kind), kind, "int")
    number = half.minimum if name == "min" else half.maximum
    propagating: Function = np.minimum if name == "min" else np.maximum
    two: Function = signed_zero(propagating, number) if nan else number
    if flip:
        two = xor_sign(two)
    function: Function = two if count == 2 else (lambda a, b, c: two(two(a, b), c))
    return operation(guarded(function, ftz, False), (kind,) * count, kind, float_class(kind))


def _logic(instruction: Instruction) -> Operation:
    name = instruction.opcode
    modifiers = Modifiers(instruction)
    kind = modifiers.type()
    modifiers.done()
    if kind == "pred":
        tests: dict[str, Function] = {
            "and": np.logical_and,
            "or": np.logical_or,
            "xor": np.logical_xor,
            "not": np.logical_not,
        }
        return operation(tests[name], (BOOL,) * (1 if name == "not" else 2), BOOL, "int")
    kind = _wrapping(kind)
    if name == "cnot":
        return operation(lambda a: (a == 0).astype(a.dtype), (kind,), kind, "int")
    functions: dict[str, Function] = {
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
        "not": np.invert,
    }
    return operation(functions[name], (kind,) * (1 if name == "not" else 2), kind, "int")


def _shift(instruction: Instruction) -> Operation:
    modifiers = Modifiers(instruction)
    kind = modifiers.type()
    modifiers.done()
    amount = instruction.operands[2]
    left = instruction.opcode == "shl"
    if left:
        kind = _wrapping(kind)
    dtype = DTYPES[kind]
    if isinstance(amount, Integer) and 0 <= amount.value < dtype.itemsize * 8:
        return operation(np.left_shift if left else np.right_shift, (dtype, dtype), dtype, "int")
    return operation(integer.shift_left if left else integer.shift_right, (kind, "u32"), kind, "int")


def _bits(instruction: Instruction) -> Operation:
    """Decode bfe, bfi, brev, clz, popc, bfind, sad, prmt, lop3, shf, dp4a and dp2a."""
    name = instruction.opcode
    modifiers = Modifiers(instruction)
    if name == "prmt":
        mode = modifiers.one_of("f4e", "b4e", "rc8", "ecl", "ecr", "rc16", default="")
        result = operation(integer.permute(mode), ("u32",) * 3, "u32", "int")
    elif name == "shf":
        direction, mode = modifiers.one_of("l", "r"), modifiers.one_of("clamp", "wrap")
        result = operation(integer.funnel_shift(direction, mode), ("u32",) * 3, "u32", "int")
    elif name in ("dp4a", "dp2a"):
        high = name == "dp2a" and modifiers.one_of("lo", "hi") == "hi"
        a_type, b_type = modifiers.type(), modifiers.type()
        modifiers.done()
        function = integer.dot_product(4 if name == "dp4a" else 2, a_type, b_type, high)
        return operation(function, ("s32",) * 3, "s32", "int")
    elif name == "bfind":
        amount = modifiers.take("shiftamt")
        kind = modifiers.type()
        modifiers.done()
        return operation(integer.find_leading(amount), (kind,), "s32", "int")
    else:
        return _bit_fields(instruction)
    modifiers.type()
    modifiers.done()
    return result


def _bit_fields(instruction: Instruction) -> Operation:
    name = instruction.opcode
    modifiers = Modifiers(instruction)
    kind = modifiers.type()
    modifiers.done()
    if name == "bfe":
        return operation(integer.bit_field_extract, (kind, "u32", "u32"), kind, "int")
    if name == "bfi":
        return operation(integer.bit_field_insert, (kind, kind, "u32", "u32"), kind, "int")
    if name == "brev":
        return operation(integer.bit_reverse, (kind,), kind, "int")
    if name == "sad":
        return operation(integer.absolute_difference, (kind,) * 3, kind, "int")
    return operation(integer.leading_zeros if name == "clz" else integer.population, (kind,), "s32", "int")


def _lop3(instruction: Instruction) -> Operation:
    modifiers = Modifiers(instruction)
    modifiers.type()
    modifiers.done()
    table = instruction.operands[-1]
    if not isinstance(table, Integer) or len(instruction.operands) != 5:
        raise instruction.fail("lop3 needs a constant table and no predicate")
    logic = integer.logic3(table.value & 0xFF)
    return operation(lambda a, b, c, _: logic(a, b, c), ("s32",) * 3 + ("u32",), "s32", "int")


def _sign_extend(instruction: Instruction) -> Operation:
    """Decode `szext`: keep the low bits, extended by zeros or by the sign."""
    modifiers = Modifiers(instruction)
    mode = modifiers.one_of("clamp", "wrap")
    kind = modifiers.type()
    modifiers.done()

    def apply(a: Array, width: Array) -> Array:
        kept = width & np.uint32(31) if mode == "wrap" else np.minimum(width, np.uint32(32))
        return integer.bit_field_extract(a, np.zeros(1, np.uint32), kept)

    return operation(apply, (kind, "u32"), kind, "int")


def _bit_mask(instruction: Instruction) -> Operation:
    modifiers = Modifiers(instruction)
    mode = modifiers.one_of("clamp", "wrap")
    modifiers.type()
    modifiers.done()
    ones, none = np.full(1, 0xFFFFFFFF, np.uint32), np.zeros(1, np.uint32)

    def apply(start: Array, width: Array) -> Array:
        if mode == "wrap":
            start, width = start & np.uint32(31), width & np.uint32(31)
        limited = np.minimum(width, np.uint32(32)), np.minimum(start, np.uint32(32))
        return integer.bit_field_insert(ones, none, limited[1], limited[0])

    return operation(apply, ("u32", "u32"), "u32", "int")


def _byte_differences(instruction: Instruction) -> Operation:
    modifiers = Modifiers(instruction)
    total = modifiers.take("add")
    _, *kinds = (modifiers.type() for _ in range(3))
    modifiers.done()
    return operation(integer.byte_differences((kinds[0], kinds[1]), total), ("u32",) * 3, "u32", "int")


OPERATIONS: dict[str, Callable[[Instruction], Operation]] = {
    "add": _add,
    "sub": _add,
    "addc": _addc,
    "subc": _addc,
    "mul": _mul,
    "mad": _mad,
    "madc": _mad,
    "mul24": _mul24,
    "mad24": _mul24,
    "fma": fused,
    "div": _div,
    "rem": _rem,
    **dict.fromkeys(SPECIAL, special),
    "neg": _sign,
    "abs": _sign,
    "min": _extreme,
    "max": _extreme,
    **dict.fromkeys(("and", "or", "xor", "not", "cnot"), _logic),
    "shl": _shift,
    "shr": _shift,
    **dict.fromkeys(("bfe", "bfi", "brev", "clz", "popc", "bfind", "sad", "prmt", "shf", "dp4a", "dp2a"), _bits),
    "lop3": _lop3,
    "vabsdiff4": _byte_differences,
    "copysign": copysign,
    "szext": _sign_extend,
    "bmsk": _bit_mask,
    "setp": compare.setp,
    "set": compare.set_,
    "selp": compare.selp,
    "slct": compare.slct,
    "testp": compare.testp,
    "cvt": cvt,
}


def decode(instruction: Instruction) -> Operation | None:
    """Return what the instruction computes, or None if it is not one from registers to registers.

    Raises SimulatorError for a modifier or type that the simulator does not know.
    """
    decoder = OPERATIONS.get(instruction.opcode)
    return None if decoder is None else decoder(instruction)
