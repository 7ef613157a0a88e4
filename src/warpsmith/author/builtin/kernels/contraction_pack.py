"""How operands of a contraction come into the order in which it reads them.

Those that are arguments of the graph, as weights are, are turned together, by one kernel at the start of the program.
The others take a kernel of their own, which computes on the way what stands in front of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from warpsmith.author.builtin.index import Axis, lift, ravel
from warpsmith.author.builtin.kernels.contraction_layout import ROUNDED
from warpsmith.author.builtin.kernels.emission import Kernels, Scope, Turn
from warpsmith.author.builtin.kernels.pointwise import Pointwise
from warpsmith.author.builtin.kernels.pointwise_turned import read_dimension
from warpsmith.author.builtin.regions import Output, Region, resolve
from warpsmith.author.builtin.scalar import Apply, Load
from warpsmith.author.builtin.values import Virtual
from warpsmith.records import Buffer


def packed(tensors: Sequence[Virtual], scope: Scope) -> list[Kernels]:
    """Bring each tensor, of shape [lead, across, along], into a buffer of its name."""
    return [_pack(tensor, scope) for tensor in tensors]


def _pack(tensor: Virtual, scope: Scope) -> Kernels:
    buffers = (Buffer(tensor.name, tuple(map(str, tensor.shape)), tensor.dtype),)
    turn = _turn(tensor, scope)
    if turn is not None:
        return Kernels("", (), (), buffers, turns=(turn,))
    region = Region(tensor.name, "pointwise", tensor.shape)
    region.outputs.append(Output(tensor.name, tensor.shape, tensor.dtype, tensor, 0, "element"))
    algorithm = "tiles" if read_dimension(region) is None else "turned"
    vec = next(v for v in (4, 2, 1) if math.prod(tensor.shape) % v == 0)
    own = replace(scope, kernel=f"{tensor.name}_kernel", prefix=f"{tensor.name.upper()}_")
    return replace(Pointwise().emit(region, {"algorithm": algorithm, "vec": vec}, own), buffers=buffers)


def _turn(tensor: Virtual, scope: Scope) -> Turn | None:
    """The turn that a tensor is, if it is nothing but an argument with its last two dimensions exchanged."""
    lead, across, along = tensor.shape
    place = tuple(lift(Axis(*axis)) for axis in (("lead", lead), ("r", across), ("column", along)))
    value = resolve(tensor.at(place), {})
    tf32 = isinstance(value, Apply) and value.op == ROUNDED
    if isinstance(value, Apply) and tf32:
        (value,) = value.args
    if not isinstance(value, Load) or value.guard is not None or value.stored != tensor.dtype:
        return None
    as_it_is = ravel((place[0], place[2], place[1]), (lead, along, across))
    if value.tensor not in scope.arguments or value.index != as_it_is or scope.wide:
        return None
    return Turn(value.tensor, tensor.name, tensor.dtype, lead, along, across, tf32)


def merged(parts: Sequence[Kernels]) -> Kernels:
    """Put kernels that run one after the other together."""
    return Kernels(
        "\n\n".join(p.source for p in parts if p.source),
        tuple(launch for p in parts for launch in p.launches),
        tuple(tunable for p in parts for tunable in p.tunables),
        tuple(buffer for p in parts for buffer in p.buffers),
        frozenset().union(*(p.helpers for p in parts)),
        tuple(turn for p in parts for turn in p.turns),
    )
