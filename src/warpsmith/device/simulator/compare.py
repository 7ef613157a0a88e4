"""Comparisons: `setp`, `set`, `testp`, and the selections `selp` and `slct`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator.convert import bf16_to_f32, flush
from warpsmith.device.simulator.decode import BOOL, DTYPES, Modifiers, Operation, operation
from warpsmith.device.simulator.ptx import Instruction, Pair

Array = NDArray[Any]
Test = Callable[[Array, Array], Array]

ORDERED: dict[str, Test] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}
FLOATING: dict[str, Test] = {
    **{name: ORDERED[name] for name in ("eq", "lt", "le", "gt", "ge")},
    "ne": lambda a, b: (a < b) | (a > b),
    "equ": lambda a, b: ~((a < b) | (a > b)),
    "neu": np.not_equal,
    "ltu": lambda a, b: ~(a >= b),
    "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b),
    "geu": lambda a, b: ~(a < b),
    "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
    "nan": lambda a, b: np.isnan(a) | np.isnan(b),
}
COMBINE: dict[str, Test] = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def _test(modifiers: Modifiers) -> tuple[Test, str]:
    """Read comparison, `.ftz` and type; return the test and the type of its operands."""
    ftz = modifiers.take("ftz")
    name = modifiers.one_of(*FLOATING, *(one for one in ORDERED if one not in FLOATING))
    kind = modifiers.type()
    floating = kind in ("f16", "f32", "f64", "bf16")
    table = FLOATING if floating else ORDERED
    if name not in table:
        raise modifiers.instruction.fail(f"comparison .{name} does not apply to .{kind}")
    test = table[name]
    if ftz and kind == "f32":
        return (lambda a, b: test(flush(a), flush(b))), kind
    if kind == "bf16":
        return (lambda a, b: test(bf16_to_f32(a), bf16_to_f32(b))), kind
    return test, kind


def setp(instruction: Instruction) -> Operation:
    """Decode `setp`, with its second destination and its combination with a predicate."""
    modifiers = Modifiers(instruction)
    combination = modifiers.one_of("and", "or", "xor", default="")
    if any(name in instruction.modifiers for name in ("f16x2", "bf16x2")):
        return _setp_packed(modifiers, combination)
    test, kind = _test(modifiers)
    modifiers.done()
    inputs: tuple[Any, ...] = (DTYPES[kind], DTYPES[kind])
    two = isinstance(instruction.operands[0], Pair)
    if combination == "" and not two:
        return Operation(test, inputs, (BOOL,), _kind(kind))
    combine = COMBINE[combination] if combination else None

    def apply(a: Array, b: Array, c: Array | None = None) -> Any:
        first = test(a, b)
        second = ~first
        if combine is not None and c is not None:
            first, second = combine(first, c), combine(second, c)
        return (first, second) if two else first

    if combine is not None:
        inputs = (*inputs, BOOL)
    return Operation(apply, inputs, (BOOL, BOOL) if two else (BOOL,), _kind(kind))


def _setp_packed(modifiers: Modifiers, combination: str) -> Operation:
    """Decode `setp.f16x2 p|q`: one predicate for each half."""
    kind = "f16x2" if "f16x2" in modifiers.left else "bf16x2"
    ftz = modifiers.take("ftz")
    name = modifiers.one_of(*FLOATING)
    modifiers.type()
    modifiers.done()
    if combination or ftz:
        raise modifiers.instruction.fail("packed comparisons with a combination or .ftz are not supported")
    test = FLOATING[name]

    def halves(value: Array) -> Array:
        if kind == "f16x2":
            return value.view(np.float16).reshape(-1, 2)
        return bf16_to_f32(value.view(np.uint16)).reshape(-1, 2)

    def apply(a: Array, b: Array) -> tuple[Array, Array]:
        result = test(halves(a), halves(b))
        return result[:, 0].copy(), result[:, 1].copy()

    return Operation(apply, (DTYPES["b32"], DTYPES["b32"]), (BOOL, BOOL), "fp16")


def set_(instruction: Instruction) -> Operation:
    """Decode `set`: all bits or 1.0 where the comparison holds."""
    modifiers = Modifiers(instruction)
    combination = modifiers.one_of("and", "or", "xor", default="")
    ftz = modifiers.take("ftz")
    name = modifiers.one_of(*FLOATING, *(one for one in ORDERED if one not in FLOATING))
    target = modifiers.type()
    kind = modifiers.type()
    modifiers.done()
    if target in ("f16x2", "bf16x2") or kind in ("f16x2", "bf16x2"):
        return _set_packed(instruction, name, target, kind, combination)
    test = (FLOATING if kind in ("f16", "f32", "f64", "bf16") else ORDERED)[name]
    dtype = DTYPES[target]
    one = dtype.type(0x3F80) if target == "bf16" else dtype.type(1) if dtype.kind == "f" else np.array(-1).astype(dtype)

    def apply(a: Array, b: Array, c: Array | None = None) -> Array:
        if ftz:
            a, b = flush(a), flush(b)
        if kind == "bf16":
            a, b = bf16_to_f32(a), bf16_to_f32(b)
        result = test(a, b)
        if c is not None:
            result = COMBINE[combination](result, c)
        return np.where(result, one, dtype.type(0)).astype(dtype)

    inputs = (DTYPES[kind], DTYPES[kind]) + ((BOOL,) if combination else ())
    return Operation(apply, inputs, (dtype,), _kind(kind))


def _set_packed(instruction: Instruction, name: str, target: str, kind: str, combination: str) -> Operation:
    """Decode `set` on both halves of a register: 1.0 or, for an integer destination, all bits of each half."""
    if combination or kind not in ("f16x2", "bf16x2"):
        raise instruction.fail("this packed form of set is not supported")
    test = FLOATING[name]
    one = {"f16x2": 0x3C00, "bf16x2": 0x3F80}.get(target, 0xFFFF)

    def halves(value: Array) -> Array:
        bits = value.view(np.uint16).reshape(-1, 2)
        return bits.view(np.float16) if kind == "f16x2" else bf16_to_f32(bits)

    def apply(a: Array, b: Array) -> Array:
        result = test(halves(a), halves(b))
        return np.where(result, np.uint16(one), np.uint16(0)).reshape(-1).view(np.uint32)

    return Operation(apply, (DTYPES["b32"], DTYPES["b32"]), (DTYPES["b32"],), "fp16")


def selp(instruction: Instruction) -> Operation:
    """Decode `selp`: the first where the predicate holds, else the second."""
    modifiers = Modifiers(instruction)
    dtype = DTYPES[modifiers.type()]
    modifiers.done()
    return Operation(lambda a, b, p: np.where(p, a, b), (dtype, dtype, BOOL), (dtype,), "int")


def slct(instruction: Instruction) -> Operation:
    """Decode `slct`: the first where the third operand is at least 0, else the second."""
    modifiers = Modifiers(instruction)
    ftz = modifiers.take("ftz")
    kind = modifiers.type()
    by = modifiers.type()
    modifiers.done()

    def apply(a: Array, b: Array, c: Array) -> Array:
        return np.where((flush(c) if ftz else c) >= 0, a, b)

    return operation(apply, (kind, kind, by), kind, "int")


def testp(instruction: Instruction) -> Operation:
    """Decode `testp`: a property of one float."""
    modifiers = Modifiers(instruction)
    name = modifiers.one_of("finite", "infinite", "number", "notanumber", "normal", "subnormal")
    kind = modifiers.type()
    modifiers.done()
    tiny = np.finfo(DTYPES[kind]).tiny
    tests: dict[str, Callable[[Array], Array]] = {
        "finite": np.isfinite,
        "infinite": np.isinf,
        "number": lambda a: ~np.isnan(a),
        "notanumber": np.isnan,
        "normal": lambda a: np.isfinite(a) & (np.abs(a) >= tiny),
        "subnormal": lambda a: (np.abs(a) < tiny) & (a != 0),
    }
    return operation(tests[name], (kind,), BOOL, _kind(kind))


def _kind(type_name: str) -> str:
    """The class that an operation on this type is counted in."""
    return {"f32": "fp32", "f64": "fp64", "f16": "fp16", "bf16": "fp16"}.get(type_name, "int")
