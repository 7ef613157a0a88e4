"""Emit and execute `ldmatrix`: a warp loads 8 by 8 matrices of 16-bit elements from shared memory into fragments.

Threads 0 to 7 give the addresses of the rows of the first matrix, 16 bytes each, the next eight those of the second,
and so on. Of every matrix each thread gets one register: of row lane / 4 the two elements at 2 * (lane % 4), or, of
the transposed matrix, the same two. Checks and counters see each thread read what it gets, so that a race is found
wherever the element comes from; each matrix counts as one request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator import memory, warp
from warpsmith.device.simulator.decode import Modifiers
from warpsmith.device.simulator.fragment import WARP, Fragment
from warpsmith.device.simulator.mma import GROUP, MEMBER, require_whole_warps
from warpsmith.device.simulator.ptx import Instruction, Vector
from warpsmith.device.simulator.site import Site

if TYPE_CHECKING:
    from warpsmith.device.simulator.emit import Emitter
    from warpsmith.device.simulator.machine import Chunk

Array = NDArray[Any]
U2, U4 = np.dtype(np.uint16), np.dtype(np.uint32)
ROWS = 8


def emit(e: Emitter, step: Instruction, base: str, offset: int) -> str:
    """`ldmatrix` at the address `base` (an expression) plus `offset`."""
    modifiers = Modifiers(step)
    for name in ("sync", "aligned", "m8n8"):
        modifiers.one_of(name)
    count = int(modifiers.one_of("x1", "x2", "x4")[1:])
    transposed = modifiers.take("trans")
    modifiers.one_of("shared", "shared::cta")
    modifiers.one_of("b16")
    modifiers.done()
    target = step.operands[0]
    targets = target.items if isinstance(target, Vector) else (target,)
    if len(targets) != count:
        raise step.fail(f"{count} destinations are due")
    row, word = e.site(step, "shared", U4, 4, offset), e.site(step, "shared", U4, 1, offset)
    half = e.site(step, "shared", U2, 1, offset) if transposed else "None"
    e.lines.append(f"t = {e.object(load)}(M, F, {row}, {word}, {half}, {base}, {count})")
    for number, item in enumerate(targets):
        e.write(step, item, f"t[{number}]", U4)
    return "shared"


def load(
    chunk: Chunk, fragment: Fragment, row: Site, word: Site, half: Site | None, addresses: Array, count: int
) -> tuple[Array, ...]:
    """Execute it: one register (uint32) for each matrix. `half` describes a read of one element if transposed."""
    require_whole_warps(fragment, row.line, "ldmatrix")
    at = warp.expand(fragment, memory.positions(addresses, row.offset)).reshape(-1, WARP)
    rows = at[:, : ROWS * count]
    giving = np.flatnonzero(warp.lanes(fragment) < ROWS * count)
    memory.check_range(fragment.select(giving, ()), row, rows.reshape(-1), chunk.shared_bytes, "shared memory")
    return tuple(_matrix(chunk, fragment, word, half, rows[:, ROWS * j : ROWS * (j + 1)]) for j in range(count))


def _matrix(chunk: Chunk, fragment: Fragment, word: Site, half: Site | None, rows: Array) -> Array:
    """Return each thread's register of a matrix with rows at these offsets: (warps, 8)."""
    counting = chunk.run_state.counting
    words = (rows[:, GROUP] + 4 * MEMBER).reshape(-1)
    if counting is not None:
        counting.shared_access(fragment, word, words)
    if half is None:
        return _read(chunk, fragment, word, words)
    first, second = ((rows[:, 2 * MEMBER + number] + 2 * GROUP).reshape(-1) for number in range(2))
    low, high = _read(chunk, fragment, half, first), _read(chunk, fragment, half, second)
    return low.astype(U4) | high.astype(U4) << np.uint32(16)


def _read(chunk: Chunk, fragment: Fragment, site: Site, at: Array) -> Array:
    if chunk.watch is not None:
        chunk.watch.shared_access(fragment, site, at, False, ())
    return chunk.shared.load(memory.shared_positions(chunk, fragment, at), site, fragment.n)[0]
