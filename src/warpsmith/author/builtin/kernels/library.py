"""Contractions that are left to a library: a call in the plan takes the place of a kernel.

A contraction can be left where both operands are read straight from memory, in an order that a view can express, and
where its sums are stored as they are. So a region that asks for the library loses its epilogue, unless it has none:
what follows becomes kernels of its own. Transposed convolutions are not offered; their sums are cut into phases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from warpsmith.author.builtin.index import Axis, axes_of, lift
from warpsmith.author.builtin.kernels.emission import Gene, loads
from warpsmith.author.builtin.lowering.reductions import windows
from warpsmith.author.builtin.regions import Cut, Region, resolve
from warpsmith.author.builtin.scalar import Load, Result, Scalar
from warpsmith.author.builtin.values import Contraction, Stored
from warpsmith.program.library import FLOATING
from warpsmith.records import Arg, Call, Graph, Node, Ref, View

ENGINE = Gene("engine", ("own", "library"))


@dataclass(frozen=True)
class _Match:
    """A contraction as a call, whose result has `shape` and, in the linear order of its output, `strides`."""

    op: str
    args: tuple[View, ...]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    options: tuple[tuple[str, tuple[str, ...]], ...] = ()


def offered(region: Region, graph: Graph, asked: Mapping[str, int | str], genes: tuple[Gene, ...]) -> tuple[Gene, ...]:
    """Return the genes of a region where calls are allowed; one that is left to the library has no other."""
    if not _eligible(region, graph):
        return genes
    return (ENGINE,) if asked.get(ENGINE.name) == "library" and _sole(region) else (*genes, ENGINE)


def apart(parts: Cut, graph: Graph, genes: Mapping[str, Mapping[str, int | str]]) -> frozenset[str]:
    """Name the regions that ask for the library and must lose their epilogue for it."""
    asking = (r for r in parts.regions if genes.get(r.name, {}).get(ENGINE.name) == "library")
    return frozenset(r.name for r in asking if not _sole(r) and _eligible(r, graph))


def call_for(region: Region, graph: Graph, after: int) -> Call:
    """Return the call that computes a region, after so many launches. Raises ValueError where there is none."""
    match = _match(region, graph)
    if match is None or not _sole(region):
        raise ValueError(f"{region.name} cannot be left to a library")
    out = _view(region.outputs[0].name, match.shape, match.strides, 0)
    return Call(match.op, match.args, out, match.options, after)


def _eligible(region: Region, graph: Graph) -> bool:
    """Whether there is a call for the region, and its output, once it has no epilogue, is of the call's dtype."""
    match = _match(region, graph)
    if match is None:
        return False
    stored = region.outputs[0].dtype if _sole(region) else region.producers[0].dtype
    return stored == match.dtype


def _sole(region: Region) -> bool:
    """Whether the region writes one tensor, the sums as they are."""
    if len(region.outputs) != 1 or len(region.producers) != 1:
        return False
    due = tuple(lift(axis) for axis in axes_of(region.domain, "e"))
    value = region.outputs[0].at(due, region.domain)
    return isinstance(value, Result) and value.producer is region.producers[0] and value.coords == due


def _match(region: Region, graph: Graph) -> _Match | None:
    if region.kind != "contraction":
        return None
    (producer,) = region.producers
    if not isinstance(producer, Contraction) or any(phase > 1 for phase in producer.phases):
        return None
    left, right = (resolve(operand, {}) for operand in producer.operands())
    if producer.operation == "conv":
        node = next((each for each in graph.nodes if each.name == producer.name.partition(".")[0]), None)
        return None if node is None else _convolution(producer, left, right, node, graph)
    return _product(producer, left, right)


# ------------------------------------------------------------------------------------------------------ matrix products


@dataclass(frozen=True)
class _Dimension:
    """One dimension of a product with its strides in both operands and in the result; 0 where it is not theirs."""

    extent: int
    strides: tuple[int, int, int]

    def joined(self, inner: _Dimension) -> _Dimension | None:
        """Return both as one dimension, or None where an operand does not lie so in memory."""
        fits = all(mine == inner.extent * its for mine, its in zip(self.strides, inner.strides))
        return _Dimension(self.extent * inner.extent, inner.strides) if fits else None


def _product(producer: Contraction, left: Scalar, right: Scalar) -> _Match | None:
    """Read a contraction as `mm` or `bmm`: every dimension is one of m, n, the batch, or the sum."""
    if not (_plain(left) and _plain(right)) or left.stored != right.stored or left.stored not in FLOATING:
        return None
    groups: dict[str, list[_Dimension]] = {"b": [], "m": [], "n": [], "k": []}
    terms = [dict(load.index.terms) for load in (left, right)]
    outer = zip(axes_of(producer.shape, "o"), _row_major(producer.shape))
    for axis, stride in [*outer, *((axis, 0) for axis in axes_of(producer.inner, "k"))]:
        mine, its = (found.get(axis, 0) for found in terms)
        role = "k" if axis.name.startswith("k") else "b" if mine and its else "m" if mine else "n"
        if axis.extent > 1:
            _add(groups[role], _Dimension(axis.extent, (mine, its, stride)))
    if any(len(group) > 1 for group in groups.values()):
        return None
    one = _Dimension(1, (0, 0, 0))
    m, n, k = ((groups[role] or [one])[0] for role in "mnk")
    batch = groups["b"]

    def seen(which: int, *dimensions: _Dimension) -> tuple[tuple[int, ...], tuple[int, ...]]:
        together = (*batch, *dimensions)
        return tuple(d.extent for d in together), tuple(d.strides[which] for d in together)

    args = (
        _view(left.tensor, *seen(0, m, k), left.index.constant),
        _view(right.tensor, *seen(1, k, n), right.index.constant),
    )
    return _Match("aten.bmm" if batch else "aten.mm", args, *seen(2, m, n), left.stored)


def _plain(operand: Scalar) -> TypeGuard[Load]:
    """Whether an operand is read straight from memory, at a place that is a sum of strides."""
    if not isinstance(operand, Load) or operand.guard is not None:
        return False
    return all(isinstance(atom, Axis) and stride > 0 for atom, stride in operand.index.terms)


def _add(group: list[_Dimension], inner: _Dimension) -> None:
    joined = group[-1].joined(inner) if group else None
    if joined is not None:
        group[-1] = joined
    else:
        group.append(inner)


def _row_major(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _view(tensor: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> View:
    texts = tuple(map(str, shape))
    return View(tensor, texts, () if strides == _row_major(shape) else tuple(map(str, strides)), str(offset))


# --------------------------------------------------------------------------------------------------------- convolutions


def _convolution(producer: Contraction, left: Scalar, right: Scalar, node: Node, graph: Graph) -> _Match | None:
    """Read a contraction as the convolution of its node, if its operands are windows and weights in memory as they are.

    Scalars are interned, so two formulas are the same object exactly if they say the same.
    """
    given = _arguments(node)
    weights, images = loads([left]), loads([right])
    if given is None or len(weights) != 1 or len(images) != 1 or weights[0].stored != images[0].stored:
        return None
    rank = len(producer.inner) - 1
    dtype, groups = images[0].stored, producer.shape[1]
    kernel, space = producer.inner[1:], producer.shape[3:]
    numbers = _spatial(given, kernel)
    if numbers is None or dtype not in FLOATING:
        return None
    stride, padding, dilation = numbers
    x = graph.spec_of(_ref(given["input"])).shape
    image_shape = x if len(x) == rank + 2 else (1, *x)
    weight_shape = (groups * producer.shape[2], *producer.inner)
    out = tuple(lift(axis) for axis in axes_of(producer.shape, "o"))
    inner = tuple(lift(axis) for axis in axes_of(producer.inner, "k"))
    stored = Stored(images[0].tensor, image_shape, dtype)
    _, window = windows(stored, space, kernel, stride, padding, dilation, 0.0)
    due = (
        Stored(weights[0].tensor, weight_shape, dtype).at((out[1] * producer.shape[2] + out[2], *inner)),
        window((out[0], out[1] * producer.inner[0] + inner[0], *out[3:], *inner[1:])),
    )
    lengths = tuple(
        (e + 2 * p - d * (k - 1) - 1) // s + 1
        for e, k, s, p, d in zip(image_shape[2:], kernel, stride, padding, dilation, strict=True)
    )
    if tuple(resolve(operand, {}) for operand in due) != (left, right) or lengths != space:
        return None
    shape = (producer.shape[0], weight_shape[0], *space)
    args = tuple(
        _view(name, extents, _row_major(extents), 0)
        for name, extents in ((images[0].tensor, image_shape), (weights[0].tensor, weight_shape))
    )
    options = (("stride", stride), ("padding", padding), ("dilation", dilation), ("groups", (groups,)))
    texts = tuple((name, tuple(map(str, values))) for name, values in options)
    return _Match("aten.convolution", args, shape, _row_major(shape), dtype, texts)


def _arguments(node: Node) -> dict[str, Arg] | None:
    """Arguments of a convolution by name, None for a node that is something else."""
    base = node.op.split(".")[1]
    if base not in ("conv1d", "conv2d", "conv3d", "convolution"):
        return None
    more = ("transposed", "output_padding", "groups") if base == "convolution" else ("groups",)
    names = ("input", "weight", "bias", "stride", "padding", "dilation", *more)
    defaults: dict[str, Arg] = {"stride": (1,), "padding": (0,), "dilation": (1,)}
    return {**defaults, **dict(zip(names, node.args)), **dict(node.kwargs)}


def _spatial(
    given: Mapping[str, Arg], kernel: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None:
    """Stride, padding and dilation, one number for each dimension; None where padding differs between two sides."""
    stride, dilation = (_each(given[name], len(kernel)) for name in ("stride", "dilation"))
    padding = given["padding"]
    if not isinstance(padding, str):
        return stride, _each(padding, len(kernel)), dilation
    total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
    return None if any(t % 2 for t in total) else (stride, tuple(t // 2 for t in total), dilation)


def _each(value: Arg, rank: int) -> tuple[int, ...]:
    numbers = tuple(n for n in (value if isinstance(value, tuple) else (value,)) if isinstance(n, int))
    return numbers * rank if len(numbers) == 1 else numbers


def _ref(argument: Arg) -> Ref:
    if not isinstance(argument, Ref):
        raise ValueError(f"{argument!r} is no tensor")
    return argument
