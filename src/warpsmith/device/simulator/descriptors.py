"""Where the elements of a matrix lie in shared memory, by the 64-bit descriptor that `wgmma` takes.

A matrix is read in pieces of 16 bytes. Eight pieces, one for each of eight rows (or, of a transposed matrix, for each
of eight steps in k), are a core matrix; offsets in the descriptor lead from one core matrix to the next. PTX ISA,
"Strides" and "Matrix Descriptor Format" of the asynchronous warpgroup-level matrix instructions:

    bits 0-13 start, 16-29 leading byte offset, 32-45 stride byte offset, all three divided by 16;
    bits 49-51 base offset; bits 62-63 swizzling: 0 none, 1 of 128 bytes, 2 of 64, 3 of 32.

Swizzling exchanges pieces within rows of 128 bytes by the address in shared memory, not by the place in the matrix: of
an address, bits 4 to 6 (of 64 bytes: 4 and 5, of 32: 4) are combined by exclusive or with as many bits from 7 on. The
pattern repeats every 8 rows, that is every 1024, 512 or 256 bytes, and must begin there. One that begins elsewhere
needs a base offset other than 0, which is not simulated. Shared memory begins at a multiple of 1024 in the simulator
as on hardware.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator.fragment import Fragment
from warpsmith.device.simulator.memory import Fault
from warpsmith.device.simulator.warpgroups import WARPGROUP, uniform
from warpsmith.errors import SimulatorError

if TYPE_CHECKING:
    from warpsmith.device.simulator.machine import Chunk

Array = NDArray[Any]
PIECE = 16
CORE = 8
SWIZZLES = (0, 128, 64, 32)
_FIELD = np.uint64(0x3FFF)


@dataclass(frozen=True, slots=True)
class Matrix:
    """What an instruction says of an operand: `name` A or B, `rows` (M or N), bytes of an element, transposed or not.

    Of a transposed matrix (MN-major) a piece holds eight rows of one step in k, else (K-major) a part of one row. The
    operand is `rows` by 32 bytes, whatever the type of its elements.
    """

    name: str
    rows: int
    element: int
    transposed: bool

    def arranged(self, pieces: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn pieces as `pieces_of` lists them into elements: (groups, rows, k, bytes of an element)."""
        groups = len(pieces)
        if not self.transposed:
            return pieces.reshape(groups, self.rows, -1, self.element)
        columns = pieces.reshape(groups, self.rows // CORE, -1, CORE, self.element)
        return columns.transpose(0, 1, 3, 2, 4).reshape(groups, self.rows, -1, self.element)


def pieces_of(chunk: Chunk, fragment: Fragment, line: int, matrix: Matrix, descriptors: Array) -> Array:
    """Return where the pieces of a matrix lie in the chunk's shared memory, int64: (warpgroups, pieces).

    Pieces are listed row by row, two each, or, of a transposed matrix, for each eight rows step by step in k. Raises
    Fault for a matrix that does not lie within the block's shared memory, or whose swizzling begins where it must not.
    """
    described = uniform(fragment, descriptors, line, f"the descriptor of {matrix.name}").view(np.uint64)
    modes = (described >> np.uint64(62)).astype(np.int64)
    at = np.empty((len(described), matrix.rows * 2), np.int64)
    for mode in np.unique(modes).tolist():
        index = np.flatnonzero(modes == mode)
        at[index] = _places(fragment, line, matrix, described[index], SWIZZLES[mode], index)
    beyond = at + PIECE > chunk.shared_bytes
    if beyond.any():
        group, piece = (int(one[0]) for one in np.nonzero(beyond))
        message = f"wgmma reads {PIECE} bytes of {matrix.name} at offset {int(at[group, piece])} of shared memory, "
        raise Fault("out_of_bounds", fragment, group * WARPGROUP, line, message + f"which has {chunk.shared_bytes}")
    if chunk.block_count > 1:
        at += (fragment.block_ids[::WARPGROUP] * chunk.shared_stride)[:, None]
    return at


def _places(fragment: Fragment, line: int, matrix: Matrix, described: Array, swizzle: int, index: Array) -> Array:
    """Offsets in the block's shared memory for warpgroups (at positions `index`) with one mode of swizzling."""
    start, leading, stride = (
        ((described >> np.uint64(shift) & _FIELD) << np.uint64(4)).astype(np.int64)[:, None] for shift in (0, 16, 32)
    )
    if swizzle:
        if (described >> np.uint64(49) & np.uint64(7)).any():
            raise SimulatorError(f"line {line}: a matrix descriptor with a base offset is not simulated")
        late = start[:, 0] % (CORE * swizzle) >= swizzle
        if late.any():
            group = int(np.flatnonzero(late)[0])
            message = f"{matrix.name} begins at offset {int(start[group, 0])} of shared memory, but with swizzling of "
            message += f"{swizzle} bytes groups of 8 rows must begin at a multiple of {CORE * swizzle}"
            raise Fault("misaligned", fragment, int(index[group]) * WARPGROUP, line, message)
    across, along = (one.reshape(-1) for one in np.indices((matrix.rows // CORE, 2 * CORE)))
    pitch = swizzle or PIECE
    if matrix.transposed:
        # `across` counts groups of eight rows, `along` steps in k.
        deep, k = along // CORE, along % CORE
        wide = pitch // PIECE
        by, beyond = (leading, stride) if swizzle else (stride, leading)
        at = start + across % wide * PIECE + across // wide * by + k * pitch + deep * beyond
    else:
        row, half = along // 2, along % 2
        at = start + across * stride + row * pitch + half * (PIECE if swizzle else leading)
    mask = pitch // PIECE - 1
    swizzled: Array = at ^ (at >> 7 & mask) << 4
    return swizzled


def load(chunk: Chunk, matrix: Matrix, at: Array) -> NDArray[np.uint8]:
    """Read a matrix from the pieces at these positions: (warpgroups, rows, k, bytes of an element)."""
    view = chunk.shared.view(np.dtype(np.uint8), PIECE)
    return matrix.arranged(view[at // PIECE])
