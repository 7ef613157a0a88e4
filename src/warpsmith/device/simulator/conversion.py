"""Decode `cvt`: which of the functions in `convert` its types and modifiers ask for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator import convert
from warpsmith.device.simulator.decode import DTYPES, Modifiers, Operation, operation
from warpsmith.device.simulator.ptx import Instruction

Array = NDArray[Any]
FLOATS = ("f16", "f32", "f64", "bf16", "tf32")
MODES = ("rn", "rz", "rm", "rp", "rna", "rni", "rzi", "rmi", "rpi")


def cvt(instruction: Instruction) -> Operation:
    """Decode `cvt`, including the packed forms with two float32 sources."""
    modifiers = Modifiers(instruction)
    mode = modifiers.one_of(*MODES, default="rn")
    ftz, sat, relu = modifiers.take("ftz"), modifiers.take("sat"), modifiers.take("relu")
    target, source = modifiers.type(), modifiers.type()
    modifiers.done()
    if target in ("f16x2", "bf16x2"):
        return _packed(instruction, target, source, mode, relu, ftz)
    if target in FLOATS and source in FLOATS:
        function = convert.float_to_float(target, source, mode)
    elif target in FLOATS:
        function = _from_integer(target, source, mode)
    elif source in FLOATS:
        rounding = {"rn": "rni", "rz": "rzi", "rm": "rmi", "rp": "rpi"}.get(mode, mode)
        to_integer = convert.float_to_int(DTYPES[target], rounding, source)
        function = (lambda a: to_integer(convert.bf16_to_f32(a))) if source == "bf16" else to_integer
    else:
        function = convert.int_to_int(DTYPES[target], sat, DTYPES[source])
        sat = False
    if ftz and source == "f32":
        before = function
        function = lambda a: before(convert.flush(a))  # noqa: E731
    if ftz and target == "f32":
        unflushed = function
        function = lambda a: convert.flush(unflushed(a))  # noqa: E731
    if relu:
        rectified = function
        function = lambda a: rectified(_rectify(a))  # noqa: E731
    if sat and target in ("f16", "f32", "f64"):
        unsaturated = function
        function = lambda a: convert.saturate(unsaturated(a))  # noqa: E731
    elif sat and target == "bf16":
        raise instruction.fail("cvt.sat to bf16 is not supported")
    return operation(function, (source,), target, _kind(target, source))


def _kind(target: str, source: str) -> str:
    """Widening an integer costs an integer instruction; what involves floats or narrows runs on the convert pipe."""
    return "convert" if target in FLOATS or source in FLOATS else "int"


def _from_integer(target: str, source: str, mode: str) -> convert.Function:
    if target != "bf16":
        return convert.int_to_float(target, mode, DTYPES[source])
    widen = convert.int_to_float("f64", "rn", DTYPES[source])
    return lambda a: convert.f64_to_bf16(widen(a))


def _rectify(values: Array) -> Array:
    return np.where(values > 0, values, np.where(np.isnan(values), values, values.dtype.type(0)))


def _packed(instruction: Instruction, target: str, source: str, mode: str, relu: bool, ftz: bool) -> Operation:
    """`cvt.rn.f16x2.f32 d, a, b`: `a` to the upper half, `b` to the lower."""
    if source != "f32" or mode not in ("rn", "rz"):
        raise instruction.fail("this packed conversion is not supported")
    single = convert.float_to_float(target[:-2], "f32", mode)

    def half(values: Array) -> Array:
        if ftz:
            values = convert.flush(values)
        return single(_rectify(values) if relu else values).view(np.uint16).astype(np.uint32)

    return operation(lambda a, b: (half(a) << np.uint32(16)) | half(b), ("f32", "f32"), target, "convert")
