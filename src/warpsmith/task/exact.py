"""The exactness probe: contractions whose sums float32 holds exactly, and lower precision does not.

One operand holds odd integers of as many bits as its dtype's significand can take, at most 12; the other zeros and
ones. Every partial sum is then an integer below 2**24, so that any order of summation in float32 is exact, while TF32
(11 bits) and bfloat16 (8 bits) round the integers. Even seeds probe the first operand, odd seeds the second. Provided
for linear, matrix products, einsums of two operands and convolutions whose operands are arguments of the graph, seen
through views. Recurrent layers are not probed: their sums reach an output through sigmoids only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from warpsmith.records import Arg, Graph, Node, Ref, TensorSpec
from warpsmith.task.equation import equation_of
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
        operands = _operands(node)
        if len(operands) < 2:
            continue
        left, right, *added = map(tracer.source, operands)
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


def _operands(node: Node) -> tuple[Arg, ...]:
    """Both operands and what is added to their product; empty where the node is no such thing."""
    if base_name(node) == "einsum":
        given = node.args[1]
        return given if isinstance(given, tuple) and len(given) == 2 else ()
    return tuple(node.args[i] for i in _OPERANDS.get(base_name(node), ()) if i < len(node.args))


def _terms(graph: Graph, node: Node) -> int:
    left, right = _operands(node)[:2]
    assert isinstance(left, Ref) and isinstance(right, Ref)
    weight = graph.spec_of(right).shape
    if base_name(node) == "einsum":
        equation, operands = equation_of(graph, node)
        extents = equation.extents([graph.spec_of(ref).shape for ref in operands])
        return math.prod(extent for label, extent in extents.items() if label not in equation.result)
    if base_name(node).startswith("conv_transpose"):
        return _transposed_terms(node, weight)
    if base_name(node).startswith("conv"):
        return math.prod(weight[1:])
    return graph.spec_of(left).shape[-1]


def _transposed_terms(node: Node, weight: tuple[int, ...]) -> int:
    """Return the most products that one output of a transposed convolution adds up."""
    stride, groups, dilation = (node.args[i] if i < len(node.args) else 1 for i in (3, 6, 7))
    terms = weight[0] // groups if isinstance(groups, int) else weight[0]
    for number, taps in enumerate(weight[2:]):
        step, spread = (
            given[number % len(given)] if isinstance(given, tuple) else given for given in (stride, dilation)
        )
        assert isinstance(step, int) and isinstance(spread, int)
        # Taps whose distance, times the dilation, is a multiple of the stride reach the same output.
        terms *= -(-taps * math.gcd(step, spread) // step)
    return terms


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
