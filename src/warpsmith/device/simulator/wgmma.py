"""Emit `wgmma`, and what one does: a warpgroup multiplies two matrices of shared memory, as Hopper's tensor cores do.

D = A B + D or D = A B, where A is 64 by k, B k by n and D 64 by n; k is 8 for TF32 and 16 for float16 and bfloat16.
A may lie in registers instead. Elements of shared memory are found by `descriptors`; each of the 128 threads holds
some of D, and of A in registers; PTX ISA, "Register Fragments" of the asynchronous warpgroup-level matrix
instructions, says which. When a result is there is the matter of `products`.

TF32 operands are float32 numbers of which hardware reads the upper 19 bits; the lower 13 are ignored. Products are
exact. In what order, and with how many bits, hardware adds them is not specified. Here the k products and the element
of D are added in float64 and rounded once, to nearest even. Published experiments find that hardware shifts the
summands to the exponent of the greatest, cuts off what falls below its last bits, and does so for a few summands at a
time. So the two may differ by (k + 2) * 2^-23 times the sum of the magnitudes of all summands.

Not known here: float16 accumulators, float8, integer and single-bit operands, sparse matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator.decode import BOOL
from warpsmith.device.simulator.descriptors import Matrix
from warpsmith.device.simulator.mma import numbers
from warpsmith.device.simulator.ptx import Instruction, Integer, Operand, Vector

if TYPE_CHECKING:
    from warpsmith.device.simulator.emit import Emitter

Array = NDArray[Any]
F4, F8, U4, I8 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.uint32), np.dtype(np.int64)
M = 64
_ROW_BYTES = 32
_WIDTHS = frozenset(str(n) for n in range(8, 257, 8))
_ELEMENT = {"tf32": 4, "f16": 2, "bf16": 2}


@dataclass(frozen=True, slots=True)
class Product:
    """One `wgmma.mma_async` of a kernel: `operands` tf32, f16 or bf16; width `n`; signs of A and B, 1 or -1.

    `left` is None where A lies in registers.
    """

    operands: str
    n: int
    left: Matrix | None
    right: Matrix
    signs: tuple[int, int]
    line: int

    @property
    def k(self) -> int:
        """Depth."""
        return _ROW_BYTES // _ELEMENT[self.operands]

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of a warp, one of the four."""
        return M * self.n * self.k // 4

    @property
    def shape(self) -> tuple[int, int, int]:
        """Products of one shape may follow each other on the same accumulators without waiting."""
        return M, self.n, self.k

    def from_memory(self, elements: NDArray[np.uint8]) -> Array:
        """Elements as bytes, (warpgroups, rows, k, bytes), as numbers in float64: (warpgroups, rows, k)."""
        groups, rows = elements.shape[:2]
        bits = np.ascontiguousarray(elements).reshape(-1).view(U4)
        return numbers(bits, self.operands).reshape(groups, rows, self.k)

    def from_registers(self, registers: Array) -> Array:
        """The four registers of A (4, threads), uint32, as numbers in float64: (warpgroups, 64, k)."""
        groups, packed = registers.shape[1] // 128, 4 // _ELEMENT[self.operands]
        # Register 2 q + h holds row 16 warp + 8 h + group and columns from 4 packed q + packed member on.
        parts = numbers(registers.reshape(-1), self.operands).reshape(2, 2, groups, 4, 8, 4, packed)
        return parts.transpose(2, 3, 1, 4, 0, 5, 6).reshape(groups, M, self.k)

    def multiply(self, left: Array, right: Array, added: Array | None) -> NDArray[np.float32]:
        """Return left (warpgroups, 64, k) times right (warpgroups, n, k), transposed, plus `added`, in float32."""
        total = (left if self.signs[0] == self.signs[1] else -left) @ right.transpose(0, 2, 1)
        return (total if added is None else total + added).astype(np.float32)


def to_registers(matrix: NDArray[np.float32]) -> Array:
    """Lay D (warpgroups, 64, n) out in registers: (n / 2, threads), uint32."""
    groups, _, n = matrix.shape
    # Register 4 c + 2 h + e of a thread holds row 16 warp + 8 h + group and column 8 c + 2 member + e.
    parts = matrix.view(U4).reshape(groups, 4, 2, 8, n // 8, 4, 2).transpose(4, 2, 6, 0, 1, 3, 5)
    return np.ascontiguousarray(parts).reshape(n // 2, -1)


def to_matrix(registers: Array) -> NDArray[np.float32]:
    """Undo `to_registers`."""
    count, threads = registers.shape
    parts = registers.view(F4).reshape(count // 4, 2, 2, threads // 128, 4, 8, 4)
    return np.ascontiguousarray(parts.transpose(3, 4, 1, 5, 0, 6, 2)).reshape(-1, M, 2 * count)


# ---------------------------------------------------------------------------------------------------------- decoding


def multiplies(step: Instruction) -> bool:
    """Whether the instruction is `wgmma.mma_async`."""
    return step.opcode == "wgmma" and step.modifiers[:1] == ("mma_async",)


def waits(step: Instruction) -> bool:
    """Whether the instruction is `wgmma.wait_group`."""
    return step.opcode == "wgmma" and step.modifiers[:1] == ("wait_group",)


def product(step: Instruction) -> Product:
    """Read `wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16` and the like. Raises SimulatorError for others."""
    operands, n = _form(step)
    wide = operands == "tf32"
    if len(step.operands) < 6:
        raise step.fail("too few operands")
    target, first, _, _, *constants = step.operands
    in_registers = isinstance(first, Vector)
    values = [one.value if isinstance(one, Integer) else None for one in constants]
    signs, turned = values[:2], values[2:]
    if any(one not in (1, -1) for one in signs):
        raise step.fail("the scales of A and B must be 1 or -1")
    if len(turned) != (0 if wide else 1 if in_registers else 2) or any(one not in (0, 1) for one in turned):
        raise step.fail("whether matrices are transposed is said once for each 16-bit one in shared memory, by 0 or 1")
    if len(_items(target)) != n // 2 or (in_registers and len(_items(first)) != 4):
        raise step.fail(f"{n // 2} registers of D are due, and 4 of A where it lies in registers")
    element = _ELEMENT[operands]
    return Product(
        operands,
        n,
        None if in_registers else Matrix("A", M, element, not wide and turned[0] == 1),
        Matrix("B", n, element, not wide and turned[-1] == 1),
        (signs[0] or 1, signs[1] or 1),
        step.line,
    )


def _form(step: Instruction) -> tuple[str, int]:
    """The operands' type and n."""
    names = list(step.modifiers)
    if len(names) == 7 and names[:3] == ["mma_async", "sync", "aligned"]:
        width, _, depth = names[3].removeprefix("m64n").partition("k")
        result, a, b = names[4:]
        known = a in _ELEMENT and a == b and result == "f32" and names[3].startswith("m64n")
        if known and depth == str(_ROW_BYTES // _ELEMENT[a]) and width in _WIDTHS:
            return a, int(width)
    raise step.fail("unknown form of wgmma")


def _items(operand: Operand) -> tuple[Operand, ...]:
    return operand.items if isinstance(operand, Vector) else (operand,)


# ---------------------------------------------------------------------------------------------------------- emission


def emit(e: Emitter, step: Instruction) -> str:
    """`wgmma.mma_async`, `wgmma.fence`, `wgmma.commit_group` and `wgmma.wait_group`."""
    kind, *rest = step.modifiers or ("",)
    if rest[:2] != ["sync", "aligned"]:
        raise step.fail("unknown form of wgmma")
    if kind == "mma_async":
        _multiply(e, step)
        return "tensor"
    if len(rest) > 2 or kind not in ("fence", "commit_group", "wait_group"):
        raise step.fail("unknown form of wgmma")
    if kind == "wait_group":
        _wait(e, step)
    else:
        e.lines.append(f"M.products.{'fence' if kind == 'fence' else 'commit'}(F, {step.line})")
    return "control"


def _tuple(e: Emitter, step: Instruction, operand: Operand) -> str:
    return f"({''.join(f'{e.read(step, one, U4)}, ' for one in _items(operand))})"


def _multiply(e: Emitter, step: Instruction) -> None:
    form = product(step)
    target, a, b, scale = step.operands[:4]
    left = e.read(step, a, I8) if form.left is not None else _tuple(e, step, a)
    sources = f"{_tuple(e, step, target)}, {left}, {e.read(step, b, I8)}, {e.read(step, scale, BOOL)}"
    e.lines.append(f"t = M.products.issue(F, {e.object(form)}, {id(step) in e.flow.in_flight.unfenced}, {sources})")
    for number, item in enumerate(_items(target)):
        e.write(step, item, f"t[{number}]", U4)


def _wait(e: Emitter, step: Instruction) -> None:
    registers, left = step.operands
    if not isinstance(left, Integer) or left.value < 0:
        raise step.fail("the number of groups must be constant")
    e.lines.append(f"t = M.products.wait(F, {step.line}, {left.value}, {_tuple(e, step, registers)})")
    for number, item in enumerate(_items(registers)):
        e.write(step, item, f"t[{number}]", U4)
