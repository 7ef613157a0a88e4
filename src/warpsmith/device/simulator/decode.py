"""What decoding an instruction needs: its type and modifiers, checked to the last one, and the result's form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpsmith.device.simulator.ptx import Instruction

DType = np.dtype[Any]

BOOL = np.dtype(np.bool_)
DTYPES: dict[str, DType] = {
    **{f"{kind}{bits}": np.dtype(f"u{bits // 8}") for kind in "ub" for bits in (8, 16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "bf16": np.dtype(np.uint16),
    "f16x2": np.dtype(np.uint32),
    "bf16x2": np.dtype(np.uint32),
    "s16x2": np.dtype(np.uint32),
    "u16x2": np.dtype(np.uint32),
    "tf32": np.dtype(np.float32),
    "pred": BOOL,
}

SHORT: dict[DType, str] = {
    np.dtype(name): name for name in ("i1", "u1", "i2", "u2", "f2", "i4", "u4", "f4", "i8", "u8", "f8")
}
SHORT[BOOL] = "b1"


class Modifiers:
    """The modifiers of an instruction, taken one by one; `done` complains about any that nobody asked for."""

    def __init__(self, instruction: Instruction) -> None:
        self.instruction = instruction
        self.left = list(instruction.modifiers)

    def take(self, name: str) -> bool:
        """Whether the modifier is there."""
        if name in self.left:
            self.left.remove(name)
            return True
        return False

    def one_of(self, *names: str, default: str | None = None) -> str:
        """The one of these that is there. Raises SimulatorError if none is and there is no default."""
        for name in names:
            if self.take(name):
                return name
        if default is None:
            raise self.instruction.fail(f"expected one of the modifiers {', '.join(names)}")
        return default

    def type(self) -> str:
        """The next type. Raises SimulatorError if there is none, or if it is unknown."""
        for name in self.left:
            if name in DTYPES:
                self.left.remove(name)
                return name
        raise self.instruction.fail("no type that the simulator knows")

    def done(self) -> None:
        """Raise SimulatorError if a modifier is left."""
        if self.left:
            raise self.instruction.fail(f"unknown modifier .{self.left[0]}")


@dataclass(frozen=True, slots=True)
class Operation:
    """A computation on registers: `function(*sources)` gives the destination, or one array for each of several.

    `inputs` are the dtypes in which sources are read, `outputs` those of the results. `carry_in` appends the carry
    flag to the sources, `carry_out` to the results. `kind` is the class it is counted in.
    """

    function: Callable[..., Any]
    inputs: tuple[DType, ...]
    outputs: tuple[DType, ...]
    kind: str
    carry_in: bool = False
    carry_out: bool = False


def operation(
    function: Callable[..., Any], inputs: tuple[str, ...] | tuple[DType, ...], output: str | DType, kind: str
) -> Operation:
    """Build an operation with one result from names of PTX types or dtypes."""
    sources = tuple(DTYPES[one] if isinstance(one, str) else one for one in inputs)
    return Operation(function, sources, (DTYPES[output] if isinstance(output, str) else output,), kind)
