"""One kernel that turns all arguments which later kernels read in another order: weights of convolutions, mostly.

Each alone would be a launch that takes longer to begin than to end.
"""

from __future__ import annotations

from collections.abc import Sequence

from warpsmith.author.builtin.kernels.contraction_pack import merged
from warpsmith.author.builtin.kernels.emission import Kernels, Turn, indented, pointer
from warpsmith.author.builtin.printer import CTYPES
from warpsmith.records import Launch

_SIDE = 32


def emit_turns(turns: Sequence[Turn]) -> Kernels:
    """Write the kernel, or one for each dtype and way of rounding. Every block moves one tile of one tensor."""
    kinds = sorted({_kind(turn) for turn in turns})
    named = len(kinds) > 1
    return merged([_emit([t for t in turns if _kind(t) == kind], f"_{kind}" if named else "") for kind in kinds])


def _kind(turn: Turn) -> str:
    return "tf32" if turn.tf32 else turn.dtype


def _emit(turns: Sequence[Turn], suffix: str) -> Kernels:
    dtype, turned = turns[0].dtype, "turned_tf32" if turns[0].tf32 else "turned"
    kernel, rows, ctype = f"turn{suffix}_kernel", f"TURN{suffix.upper()}_ROWS", CTYPES[dtype]
    sources = list(dict.fromkeys(turn.source for turn in turns))
    params = [f"const {ctype}* __restrict__ {pointer(name)}" for name in sources]
    params += [f"{ctype}* __restrict__ {turn.target}" for turn in turns]
    body = [
        f"__shared__ {ctype} tile[{_SIDE}][{_SIDE + 1}];",
        f"const {ctype}* from;",
        f"{ctype}* to;",
        "int along, across, first;",
    ]
    total = 0
    for number, turn in enumerate(turns):
        begin, total = total, total + turn.lead * -(-turn.along // _SIDE) * -(-turn.across // _SIDE)
        which = "" if len(turns) == 1 else "else " if number == len(turns) - 1 else f"if (blockIdx.x < {total}) "
        which = f"else {which}" if 0 < number < len(turns) - 1 else which
        pair = f"from = {pointer(turn.source)}, to = {turn.target}"
        body.append(f"{which}{pair}, along = {turn.along}, across = {turn.across}, first = {begin};")
    body.append(f"{turned}<{rows}>(tile, from, to, along, across, blockIdx.x - first);")
    source = "\n".join(
        [
            "// Before anything else: tensors in the order in which they will be read.",
            f'extern "C" __global__ void __launch_bounds__({_SIDE} * {rows}) {kernel}({", ".join(params)}) {{',
            *indented(body),
            "}",
        ]
    )
    launch = Launch(kernel, (str(total),), (str(_SIDE), rows), (*sources, *(turn.target for turn in turns)))
    return Kernels(source, (launch,), ((rows, (8, 16, 4)),), helpers=frozenset({turned}))
