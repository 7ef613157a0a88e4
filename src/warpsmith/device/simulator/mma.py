"""Emit and execute `mma.sync`: a warp multiplies two small matrices and adds a third, as tensor cores do.

D = A B + C, where A is 16 by k, B k by 8, and C and D 16 by 8. Each of the 32 threads holds a few elements of each
matrix; PTX ISA, "Matrix Fragments for mma.m16n8k4" and the sections after it, says which.

TF32 operands are float32 registers of which hardware reads the upper 19 bits; the lower 13 are ignored. Products are
exact. In what order, and with how many bits, hardware adds them is not specified. Here the k products and the element
of C are added in float64 and rounded once, to nearest even. Published experiments find that hardware shifts the
summands to the exponent of the greatest, cuts off what falls below its last bits, and does so for a few summands at a
time. So the two may differ by (k + 2) * 2^-23 times the sum of the magnitudes of all summands, and with float16
accumulators by as many units of 2^-10.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator import warp
from warpsmith.device.simulator.convert import bf16_to_f32
from warpsmith.device.simulator.fragment import WARP, Fragment
from warpsmith.device.simulator.memory import Fault
from warpsmith.device.simulator.ptx import Instruction, Vector

if TYPE_CHECKING:
    from warpsmith.device.simulator.emit import Emitter
    from warpsmith.device.simulator.machine import Chunk

Array = NDArray[Any]
F4, F8, U2, U4 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.uint16), np.dtype(np.uint32)
M, N = 16, 8
TF32_MASK = np.uint32(0xFFFFE000)
GROUP, MEMBER = np.divmod(np.arange(WARP), 4)


@dataclass(frozen=True, slots=True)
class Product:
    """A form of the instruction: `operands` tf32, f16 or bf16; depth `k`; `accumulator` f32 or f16."""

    operands: str
    k: int
    accumulator: str

    @property
    def name(self) -> str:
        """What its multiply-adds are counted as: the operands' type, with `.f16` for float16 accumulators."""
        return self.operands if self.accumulator == "f32" else f"{self.operands}.{self.accumulator}"

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of a warp."""
        return M * N * self.k


PRODUCTS = frozenset(
    (
        *(Product("tf32", k, "f32") for k in (4, 8)),
        *(Product(kind, k, "f32") for kind in ("f16", "bf16") for k in (8, 16)),
        *(Product("f16", k, "f16") for k in (8, 16)),
    )
)


def product(step: Instruction) -> Product:
    """Read `mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32` and the like. Raises SimulatorError for others."""
    names = list(step.modifiers)
    if len(names) == 9 and names[:2] == ["sync", "aligned"] and names[3:5] == ["row", "col"]:
        stem, _, depth = names[2].partition("k")
        result, a, b, accumulator = names[5:]
        if stem == "m16n8" and depth.isdigit() and a == b and result == accumulator:
            found = Product(a, int(depth), accumulator)
            if found in PRODUCTS:
                return found
    raise step.fail("unknown form of mma")


# ----------------------------------------------------------------------------------------------------------- layouts
# A fragment is (32 lanes, registers, elements of a register); a layout gives each of its places one of a matrix.


def _places(registers: int, packed: int) -> tuple[Array, Array, Array, Array]:
    """Return group, member, register and element of each place of a fragment."""
    lane, register, element = np.indices((WARP, registers, packed))
    return GROUP[lane], MEMBER[lane], register, element


def _layout_a(k: int, packed: int) -> Array:
    """Places in A (16 by k, row after row): registers go down eight rows, then on to the next columns."""
    group, member, register, element = _places(M * k // WARP // packed, packed)
    row, column = group + 8 * (register % 2), packed * member + element + 4 * packed * (register // 2)
    place: Array = row * k + column
    return place


def _layout_b(k: int, packed: int) -> Array:
    """Places in B (k by 8, row after row)."""
    group, member, register, element = _places(N * k // WARP // packed, packed)
    place: Array = (packed * member + element + 4 * packed * register) * N + group
    return place


def _layout_c(packed: int) -> Array:
    """Places in C and D (16 by 8, row after row): two neighbours, and two that are eight rows below."""
    group, member, register, element = _places(4 // packed, packed)
    number = register * packed + element
    place: Array = (group + 8 * (number // 2)) * N + 2 * member + number % 2
    return place


# --------------------------------------------------------------------------------------------------------- execution


def require_whole_warps(fragment: Fragment, line: int, opcode: str) -> None:
    """Raise Fault unless all 32 threads of every warp are here, as `.aligned` demands."""
    if fragment.n == WARP * fragment.warps:
        return
    _, inverse, counts = np.unique(fragment.warp_ids, return_inverse=True, return_counts=True)
    here = counts[inverse]
    lane = int(np.argmax(here < WARP))
    message = f"{opcode} needs all 32 threads of the warp; {int(here[lane])} execute it"
    raise Fault("barrier_divergence", fragment, lane, line, message)


def numbers(bits: Array, kind: str) -> Array:
    """Return what registers (uint32) hold as elements of a type: float64, one dimension."""
    if kind == "f32":
        values = bits.view(F4)
    elif kind == "tf32":
        values = (bits & TF32_MASK).view(F4)
    else:
        values = bits.view(np.float16) if kind == "f16" else bf16_to_f32(bits.view(U2))
    return values.astype(F8)


def _elements(fragment: Fragment, registers: tuple[Array, ...], kind: str) -> Array:
    """Return the elements in the registers (uint32) of each warp as float64: (warps, all places of the fragment)."""
    bits = np.stack([warp.expand(fragment, one) for one in registers], axis=1)
    return numbers(bits.reshape(-1), kind).reshape(fragment.n // WARP, -1)


@functools.cache
def execution(form: Product) -> Callable[..., tuple[Array, ...]]:
    """Return what executes a form: registers (uint32) of A, B and C to those of D."""
    packed = 1 if form.operands == "tf32" else 2
    narrow = form.accumulator == "f16"
    to_a, to_b = np.argsort(_layout_a(form.k, packed).reshape(-1)), np.argsort(_layout_b(form.k, packed).reshape(-1))
    layout = _layout_c(2 if narrow else 1)
    to_c = np.argsort(layout.reshape(-1))

    def apply(
        chunk: Chunk, fragment: Fragment, line: int, a: tuple[Array, ...], b: tuple[Array, ...], c: tuple[Array, ...]
    ) -> tuple[Array, ...]:
        require_whole_warps(fragment, line, "mma")
        left = _elements(fragment, a, form.operands).take(to_a, axis=1).reshape(-1, M, form.k)
        right = _elements(fragment, b, form.operands).take(to_b, axis=1).reshape(-1, form.k, N)
        added = _elements(fragment, c, form.accumulator).take(to_c, axis=1).reshape(-1, M, N)
        total = (left @ right + added).astype(np.float16 if narrow else F4).reshape(-1, M * N)
        registers = np.ascontiguousarray(total[:, layout]).view(U4).reshape(fragment.n, -1)
        return tuple(registers.T.copy())

    return apply


def mma(e: Emitter, step: Instruction) -> str:
    """`mma.sync`."""
    form = product(step)
    packed = 1 if form.operands == "tf32" else 2
    accumulators = 4 if form.accumulator == "f32" else 2
    due = (accumulators, M * form.k // WARP // packed, N * form.k // WARP // packed, accumulators)
    if len(step.operands) != 4:
        raise step.fail("four operands are due")
    fragments = [one.items if isinstance(one, Vector) else (one,) for one in step.operands]
    if tuple(len(one) for one in fragments) != due:
        raise step.fail(f"fragments of {due} registers are due")
    target, *sources = fragments
    texts = (f"({', '.join(e.read(step, item, U4) for item in one)},)" for one in sources)
    e.lines.append(f"t = {e.object(execution(form))}(M, F, {step.line}, {', '.join(texts)})")
    for number, item in enumerate(target):
        e.write(step, item, f"t[{number}]", U4)
    return "tensor"
