"""Float instructions: fused multiply-add, the special functions, and what all float instructions share.

Approximate functions (`.approx`, `.full`) are computed in float64 and rounded; the hardware's may differ from that
by up to 2 units in the last place, sines and logarithms by what the PTX ISA allows. `.ftz` flushes float32 subnormals
on the way in and out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator import fma, half
from warpsmith.device.simulator.convert import flush, saturate
from warpsmith.device.simulator.decode import Modifiers, Operation, operation
from warpsmith.device.simulator.ptx import Instruction

Array = NDArray[Any]
Function = Callable[..., Any]
F4, F8 = fma.F4, fma.F8
MODES = ("rn", "rz", "rm", "rp")


def float_class(kind: str) -> str:
    """The class that float arithmetic of a type is counted in."""
    return {"f32": "fp32", "f64": "fp64"}.get(kind, "fp16")


def guarded(function: Function, ftz: bool, sat: bool) -> Function:
    """Add flushing of subnormals and saturation to a float function."""
    if ftz and sat:
        return lambda *values: saturate(flush(function(*(flush(value) for value in values))))
    if ftz:
        return lambda *values: flush(function(*(flush(value) for value in values)))
    if sat:
        return lambda *values: saturate(function(*values))
    return function


def half_operation(instruction: Instruction, name: str, kind: str, modifiers: Modifiers, operands: int) -> Operation:
    """Decode arithmetic on f16, bf16 and their pairs."""
    modifiers.take("rn")
    modifiers.take("ftz")
    relu, sat = modifiers.take("relu"), modifiers.take("sat")
    if "ftz" in instruction.modifiers and not kind.startswith("f16"):
        raise instruction.fail(".ftz does not apply")
    modifiers.done()
    brain = kind.startswith("bf16")
    function = half.scalar16(name, brain, relu=relu, sat=sat)
    if "ftz" in instruction.modifiers:
        function = _flushing16(function)
    if kind.endswith("x2"):
        function = half.packed(function, brain)
    return operation(function, (kind,) * operands, kind, "fp16")


def _flushing16(function: Function) -> Function:
    """Flush float16 subnormals on the way in and out."""

    def flush16(values: Array) -> Array:
        return np.where(np.abs(values) < np.finfo(np.float16).tiny, np.copysign(np.float16(0), values), values)

    return lambda *values: flush16(function(*(flush16(value) for value in values)))


def fused(instruction: Instruction) -> Operation:
    """Decode `fma`, and `mad` on floats."""
    modifiers = Modifiers(instruction)
    kind = modifiers.type()
    if kind in ("f16", "bf16", "f16x2", "bf16x2"):
        return half_operation(instruction, "fma", kind, modifiers, 3)
    mode = modifiers.one_of(*MODES, default="rn")
    ftz, sat = modifiers.take("ftz"), modifiers.take("sat")
    modifiers.done()
    if kind == "f32":
        function: Function = fma.fma32 if mode == "rn" else fma.directed32("fma", mode)
    elif kind == "f64":
        function = fma.fma64 if mode == "rn" else fma.directed64("fma", mode)
    else:
        raise instruction.fail("no such type of fma")
    return operation(guarded(function, ftz, sat), (kind, kind, kind), kind, float_class(kind))


def approximate_quotient(a: Array, b: Array) -> Array:
    """`div.approx.f32` multiplies by the reciprocal, which is flushed to 0 for divisors above 2**126."""
    return np.where(np.isfinite(b) & (np.abs(b) > np.float32(2.0**126)), a * np.copysign(np.float32(0), b), a / b)


def _turns(angle: Array) -> Array:
    """Reduce float64 angles as the hardware does: in turns, by a float32 product rounded toward zero."""
    turns = fma.narrow(angle * np.float64(np.float32(1 / (2 * np.pi))), "rz").astype(F8)
    return (turns - np.rint(turns)) * (2 * np.pi)


SPECIAL: dict[str, Callable[[Array], Array]] = {
    "rcp": lambda a: 1.0 / a,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: 1.0 / np.sqrt(a),
    "ex2": np.exp2,
    "lg2": np.log2,
    "sin": lambda a: np.sin(_turns(a)),
    "cos": lambda a: np.cos(_turns(a)),
    "tanh": np.tanh,
}


def special(instruction: Instruction) -> Operation:
    """Decode the unary functions of the special unit, and their correctly rounded forms."""
    name = instruction.opcode
    modifiers = Modifiers(instruction)
    kind = modifiers.type()
    if kind in ("f16", "bf16", "f16x2", "bf16x2"):
        modifiers.take("approx")
        return half_operation(instruction, name, kind, modifiers, 1)
    mode = modifiers.one_of(*MODES, "approx", default="approx")
    ftz = modifiers.take("ftz")
    modifiers.done()
    if mode in ("rz", "rm", "rp"):
        directed = fma.directed32 if kind == "f32" else fma.directed64
        return operation(guarded(directed(name, mode), ftz, False), (kind,), kind, "special")
    exact = SPECIAL[name]
    if kind == "f64":
        if mode == "approx":
            return operation(_coarse(exact), (kind,), kind, "special")
        return operation(exact, (kind,), kind, "special")
    if mode == "rn" and name == "sqrt":
        return operation(guarded(np.sqrt, ftz, False), (kind,), kind, "special")
    return operation(guarded(lambda a: exact(a.astype(F8)).astype(F4), ftz, False), (kind,), kind, "special")


def _coarse(exact: Callable[[Array], Array]) -> Function:
    """`rcp` and `rsqrt.approx.ftz.f64` look only at the upper 32 bits of their operand, and give only those."""
    mask = np.uint64(0xFFFFFFFF00000000)

    def apply(a: Array) -> Array:
        subnormal = np.abs(a) < np.finfo(np.float64).tiny
        upper = np.where(subnormal, np.copysign(0.0, a), a).view(np.uint64) & mask
        result = exact(upper.view(F8))
        result = np.where(np.abs(result) < np.finfo(np.float64).tiny, np.copysign(0.0, result), result)
        return (result.view(np.uint64) & mask).view(F8)

    return apply


def signed_zero(propagating: Function, number: Function) -> Function:
    """NaN if either is NaN, else as `number` does, which orders zeros."""

    def apply(a: Array, b: Array) -> Array:
        nan: Array = propagating(a, b)
        other: Array = number(a, b)
        return np.where(np.isnan(a) | np.isnan(b), nan, other)

    return apply


def xor_sign(two: Function) -> Function:
    """`.xorsign.abs`: the extreme of the absolute values, with the product of the signs."""

    def apply(a: Array, b: Array) -> Array:
        negative = np.signbit(a) ^ np.signbit(b)
        extreme = two(np.abs(a), np.abs(b))
        result: Array = np.where(negative, -extreme, extreme)
        return result

    return apply


def copysign(instruction: Instruction) -> Operation:
    """Decode `copysign`: the size of the second operand with the sign of the first."""
    modifiers = Modifiers(instruction)
    kind = modifiers.type()
    modifiers.done()
    return operation(lambda sign, size: np.copysign(size, sign), (kind, kind), kind, float_class(kind))
