"""The exactness probe: contractions whose sums float32 holds exactly, and lower precision does not.

One operand holds odd integers of as many bits as its dtype's significand can take, at most 12; the other zeros and
ones. Every partial sum is then an integer below 2**24, so that any order of summation in float32 is exact, while TF32
(11 bits) and bfloat16 (8 bits) round the integers. Even seeds probe the first operand, odd seeds the second. Provided
for linear, matrix products and convolutions whose operands are arguments of the graph, seen through views.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from warpsmith.records import Graph, Node, Ref, TensorSpec
from warpsmith.task.evaluate import dtype_of
from warpsmith.task.trace import Tracer, base_name

Role = Literal["integers", "ones", "addend"]

# Positions of both operands, and of what is added to their product.
_OPERANDS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("mm", "bmm", "matmul", "mv", "dot", "inner"), (0, 1)),
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "addbmm"), (1, 2, 0)),
    **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d", "convolution"), (0, 1, 2)),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), (0, 1, 2)),
}
_SIGNIFICAND_BITS = {"float64": 12, "float32": 12, "float16": 11, "bfloat16": 8}
_MOST_ONES = 2048


@dataclass(frozen=True, slots=True)
class Operand:
    """What an argument holds in a probe. `terms` is the length of the sums that it takes part in."""

    role: Role
    terms: int


def exact_roles(graph: Graph, seed: int) -> dict[str, Operand]:
    """Say which arguments hold integers, which zeros and ones, and which are added. Empty where nothing can be probed.

    A contraction is probed where both operands are floating arguments of the graph; an argument takes the first role
    that it meets.
    """
    tracer = Tracer(graph)
    free = graph.inputs + graph.parameters
    floating = {spec.name for spec in free if dtype_of(spec.dtype).is_floating_point}
    roles: dict[str, Operand] = {}
    for node in graph.nodes:
        if base_name(node) not in _OPERANDS:
            continue
        positions = _OPERANDS[base_name(node)]
        left, right, *added = (tracer.source(node.args[i]) for i in positions if i < len(node.args))
        if left is None or right is None or left == right or not {left, right} <= floating:
            continue
        terms = _terms(graph, node)
        integers, ones = (left, right) if seed % 2 == 0 else (right, left)
        roles.setdefault(integers, Operand("integers", terms))
        roles.setdefault(ones, Operand("ones", terms))
        for name in added:
            if name is not None and name in floating:
                roles.setdefault(name, Operand("addend", terms))
    return roles


def _terms(graph: Graph, node: Node) -> int:
    left, right = (node.args[i] for i in _OPERANDS[base_name(node)][:2])
    assert isinstance(left, Ref) and isinstance(right, Ref)
    weight = graph.spec_of(right).shape
    if base_name(node).startswith("conv_transpose"):
        return math.prod(weight) // weight[1]
    if base_name(node).startswith("conv"):
        return math.prod(weight[1:])
    return graph.spec_of(left).shape[-1]


def exact_operand(spec: TensorSpec, operand: Operand, g: torch.Generator) -> torch.Tensor:
    """Draw one operand of a probe, of the shape and dtype of `spec`."""
    half = 2 ** (_SIGNIFICAND_BITS[spec.dtype] - 1)
    if operand.role == "ones":
        density = min(0.5, _MOST_ONES / operand.terms)
        values = (torch.rand(spec.shape, generator=g, device=g.device) < density).to(torch.int64)
    elif operand.role == "addend":
        values = torch.randint(-half, half, spec.shape, generator=g, device=g.device)
    else:
        # Odd, and with the top bit set, so that every bit of the significand is needed.
        magnitude = torch.randint(half // 2, half, spec.shape, generator=g, device=g.device) * 2 + 1
        positive = torch.randint(2, spec.shape, generator=g, device=g.device) == 0
        values = torch.where(positive, magnitude, -magnitude)
    return values.to(dtype_of(spec.dtype))
