"""One kernel that turns all arguments which later kernels read in another order: weights of convolutions, mostly.

Each alone would be a launch that takes longer to begin than to end.
"""

from __future__ import annotations

from collections.abc import Sequence

from warpsmith.author.builtin.kernels.emission import Kernels, Turn, indented, pointer
from warpsmith.author.builtin.printer import CTYPES
from warpsmith.records import Launch

_KERNEL, _ROWS = "turn_kernel", "TURN_ROWS"
_SIDE = 32


def emit_turns(turns: Sequence[Turn]) -> Kernels:
    """Write the kernel. Every block moves one tile of one tensor."""
    ends, total = [], 0
    for turn in turns:
        total += turn.lead * -(-turn.along // _SIDE) * -(-turn.across // _SIDE)
        ends.append(total)
    sources = {turn.source: CTYPES[turn.dtype] for turn in turns}
    params = [f"const {ctype}* __restrict__ {pointer(name)}" for name, ctype in sources.items()]
    params += [f"{CTYPES[turn.dtype]}* __restrict__ {turn.target}" for turn in turns]
    body = []
    for turn, begin, end in zip(turns, [0, *ends], ends):
        block = f"blockIdx.x - {begin}" if begin else "blockIdx.x"
        call = f"turned<{turn.along}, {turn.across}, {_ROWS}>({pointer(turn.source)}, {turn.target}, {block});"
        body.append(f"if (blockIdx.x < {end}) return {call}" if end < total else call)
    source = "\n".join(
        [
            "// Before anything else: tensors in the order in which they will be read.",
            f'extern "C" __global__ void __launch_bounds__({_SIDE} * {_ROWS}) {_KERNEL}({", ".join(params)}) {{',
            *indented(body),
            "}",
        ]
    )
    names = (*sources, *(turn.target for turn in turns))
    launch = Launch(_KERNEL, (str(total),), (str(_SIDE), _ROWS), names)
    return Kernels(source, (launch,), ((_ROWS, (8, 16, 4)),), helpers=frozenset({"turned"}))
