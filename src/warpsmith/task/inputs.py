"""Named, seeded families of arguments: the same task, family, seed and kind of device give the same tensors anywhere.

Floating inputs follow the family. Integers follow it as far as order and repetition go and stay within what their
use allows; masks stay masks, and those that the module draws itself keep their probability in every family. Parameters
and buffers are the module's own for seed 0 of `nominal` and random otherwise, since a gain of 1 or a bias of 0 could be
left out unnoticed. Lifted constants are part of the task's text and keep their values. Where an operator has a
restricted domain, NaN simply appears in the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from warpsmith.records import Graph, Node, Task, TensorSpec, digest
from warpsmith.task.evaluate import dtype_of
from warpsmith.task.exact import exact_operand, exact_roles
from warpsmith.task.load import draw_module_inputs
from warpsmith.task.masks import draw_mask
from warpsmith.task.sourcefile import SEED
from warpsmith.task.trace import Tracer, base_name, integer_bounds

Draw = Callable[[tuple[int, ...], torch.Generator], torch.Tensor]


_LARGE = 1 << 24
"""Elements from which on draws on an accelerator are made in float32: in float64 they would not fit beside the rest."""


def _precision(shape: tuple[int, ...], g: torch.Generator) -> torch.dtype:
    return torch.float32 if g.device.type != "cpu" and math.prod(shape) > _LARGE else torch.float64


def _normal(shape: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=g, dtype=_precision(shape, g), device=g.device)


def _uniform(shape: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    return torch.rand(shape, generator=g, dtype=_precision(shape, g), device=g.device)


def _whole(low: int, high: int, shape: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=g, device=g.device)


def _heavy_tail(shape: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    """Cauchy, cut at 1000: a ratio of two normals."""
    return _normal(shape, g).div_(_normal(shape, g)).clamp_(-1000.0, 1000.0)


def _equal(shape: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    return _normal((), g).expand(shape)


def _alternating(shape: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    sign = 1.0 - 2.0 * (torch.arange(math.prod(shape), device=g.device) % 2)
    return _normal(shape, g).abs() * sign.reshape(shape)


def _row_scale(shape: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    """Scales from 1e-3 to 1e3, one for each row; for a vector, one for each element."""
    rows = (*shape[:-1], 1) if len(shape) > 1 else shape
    return _normal(shape, g).mul_(10.0 ** (6.0 * _uniform(rows, g) - 3.0))


def _sorted(shape: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    return _normal(shape, g).sort(dim=-1).values


def _duplicates(shape: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    """Four values only, so that every row has ties."""
    return _normal((4,), g)[_whole(0, 4, shape, g)]


_FLOATING: Mapping[str, Draw] = {
    "normal": _normal,
    "small": lambda shape, g: _normal(shape, g).mul_(1e-3),
    "large": lambda shape, g: _normal(shape, g).mul_(64.0),
    "offset": lambda shape, g: _normal(shape, g).add_(5.0),
    "heavy_tail": _heavy_tail,
    "equal": _equal,
    "alternating": _alternating,
    "row_scale": _row_scale,
    "sorted": _sorted,
    "duplicates": _duplicates,
}
_INTEGER_FAMILIES = ("nominal", "equal", "sorted", "duplicates")

FAMILIES: tuple[str, ...] = ("nominal", *_FLOATING, "zeros_subnormals", "exact")
"""Every family, in the order in which a judge should try them."""


def families_for(task: Task) -> tuple[str, ...]:
    """Return the families that say something about `task`.

    `exact` needs a contraction whose operand is an argument; where no input is floating, only order and repetition
    remain.
    """
    if not any(_is_floating(spec) for spec in task.graph.inputs + task.graph.parameters):
        return _INTEGER_FAMILIES
    exact = exact_roles(task.graph, 0)
    return tuple(family for family in FAMILIES if family != "exact" or exact)


def draw(task: Task, family: str, seed: int, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Return every argument of `task.graph` by name, as contiguous tensors of their declared shape and dtype.

    They are made on `device`, whose kind decides which numbers a seed gives.

    Raises ValueError for an unknown family, TaskError where the task's own `get_inputs` fails.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown input family {family!r}; known are {', '.join(FAMILIES)}")
    if family == "nominal" and seed == 0:
        known = {**task.examples, **task.state}
        if any(spec.name not in known for spec in task.graph.arguments):
            known = {**draw_module_inputs(task, SEED, device), **known}
        return {spec.name: known[spec.name].to(device, copy=True) for spec in task.graph.arguments}
    drawn = _nominal_inputs(task, seed, device) if family == "nominal" else _family_inputs(task, family, seed, device)
    statistics = _running_statistics(task.graph)
    for spec, (name, keep) in zip(task.graph.inputs[len(task.graph.given) :], task.graph.masks):
        drawn[name] = draw_mask(spec.shape, keep, _generator(task, family, seed, name, device))
    for spec in task.graph.parameters:
        own = task.state[spec.name].to(device)
        drawn[spec.name] = _parameter(own, _generator(task, family, seed, spec.name, device))
    for spec in task.graph.buffers:
        kind, own = statistics.get(spec.name, "other"), task.state[spec.name].to(device)
        drawn[spec.name] = _buffer(own, kind, _generator(task, family, seed, spec.name, device))
    for spec in task.graph.constants:
        drawn[spec.name] = task.state[spec.name].to(device, copy=True)
    if family == "exact":
        specs = {spec.name: spec for spec in task.graph.arguments}
        for name, role in exact_roles(task.graph, seed).items():
            drawn[name] = exact_operand(specs[name], role, _generator(task, family, seed, name, device))
    return {spec.name: drawn[spec.name] for spec in task.graph.arguments}


def _generator(task: Task, family: str, seed: int, name: str, device: str) -> torch.Generator:
    number = int(digest("draw", task.key, family, str(seed), name), 16) >> 1
    return torch.Generator(device).manual_seed(number)


def _is_floating(spec: TensorSpec) -> bool:
    return dtype_of(spec.dtype).is_floating_point


def _nominal_inputs(task: Task, seed: int, device: str) -> dict[str, torch.Tensor]:
    """As the task draws them; where it cannot, every tensor resampled from the values of its example."""
    if task.module_inputs:
        return draw_module_inputs(task, SEED + seed, device)
    drawn = {}
    for spec in task.graph.given:
        example = task.examples[spec.name].to(device).reshape(-1)
        drawn[spec.name] = example[
            _whole(0, example.numel(), spec.shape, _generator(task, "nominal", seed, spec.name, device))
        ]
    return drawn


def _family_inputs(task: Task, family: str, seed: int, device: str) -> dict[str, torch.Tensor]:
    bounds, unit = integer_bounds(task.graph), _unit_interval(task.graph)
    drawn = {}
    for spec in task.graph.given:
        g = _generator(task, family, seed, spec.name, device)
        if _is_floating(spec):
            values = _floating(spec, family, g)
            drawn[spec.name] = torch.sigmoid(values) if spec.name in unit else values
        elif spec.dtype == "bool":
            share = int(task.examples[spec.name].count_nonzero()) / spec.numel
            drawn[spec.name] = torch.rand(spec.shape, generator=g, device=g.device) < share
        else:
            drawn[spec.name] = _integers(spec, family, g, task.examples[spec.name], bounds.get(spec.name))
    return drawn


def _floating(spec: TensorSpec, family: str, g: torch.Generator) -> torch.Tensor:
    dtype = dtype_of(spec.dtype)
    if family == "zeros_subnormals":
        return _zeros_subnormals(spec.shape, dtype, g)
    values = _FLOATING.get(family, _normal)(spec.shape, g)
    if dtype == torch.float16:
        # A sum of a few squares must not leave the range of half.
        values = values.clamp(-64.0, 64.0)
    return values.to(dtype).contiguous()


def _zeros_subnormals(shape: tuple[int, ...], dtype: torch.dtype, g: torch.Generator) -> torch.Tensor:
    """+0, -0 and subnormals of both signs, a third each."""
    info = torch.finfo(dtype)
    # eps * smallest_normal is the smallest subnormal; the uniform factor spreads over all of them.
    factor = info.eps + (1.0 - 2.0 * info.eps) * torch.rand(shape, generator=g, dtype=torch.float64, device=g.device)
    magnitude = info.smallest_normal * factor
    sign = 1.0 - 2.0 * _whole(0, 2, shape, g)
    nonzero = _whole(0, 3, shape, g) == 0
    return torch.copysign(torch.where(nonzero, magnitude, 0.0), sign).to(dtype)


def _integers(
    spec: TensorSpec, family: str, g: torch.Generator, example: torch.Tensor, bound: int | None
) -> torch.Tensor:
    low, high = (0, bound) if bound is not None else (int(example.min()), int(example.max()) + 1)
    if family == "equal":
        values = _whole(low, high, (), g).expand(spec.shape)
    elif family == "duplicates":
        values = _whole(low, high, (4,), g)[_whole(0, 4, spec.shape, g)]
    else:
        values = _whole(low, high, spec.shape, g)
    if family == "sorted":
        values = values.sort(dim=-1).values
    return values.to(dtype_of(spec.dtype)).contiguous()


def _parameter(own: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Redraw a parameter at its own scale. What is all one value keeps its sign, so that it keeps its domain."""
    if not own.is_floating_point():
        return own.clone()
    values = own.to(torch.float64)
    mean = float(values.mean())
    spread = float(values.std(correction=0))
    if spread > 1e-6 * abs(mean):
        new = mean + spread * _normal(tuple(own.shape), g)
    elif mean != 0.0:
        new = mean * (0.5 + _uniform(tuple(own.shape), g))
    else:
        new = 0.5 * _normal(tuple(own.shape), g)
    return new.to(own.dtype).contiguous()


def _buffer(own: torch.Tensor, kind: str, g: torch.Generator) -> torch.Tensor:
    shape = tuple(own.shape)
    if kind == "counter":
        return _whole(0, 100, shape, g).to(own.dtype)
    if not own.is_floating_point():
        return own.clone()
    if kind == "mean":
        return (0.5 * _normal(shape, g)).to(own.dtype)
    uniform = _uniform(shape, g)
    if kind == "variance":
        return (0.5 + 1.5 * uniform).to(own.dtype)
    if kind == "state" or not own.any():
        return _parameter(own, g)
    # A table or an additive mask: signs, zeros and infinities have a meaning.
    return (own.to(torch.float64) * (0.75 + 0.5 * uniform)).to(own.dtype)


def _running_statistics(graph: Graph) -> dict[str, str]:
    """Tell buffers that hold running means and variances, counters and other state, from tables."""
    tracer = Tracer(graph)
    floating = {spec.name for spec in graph.buffers if _is_floating(spec)}
    kinds = {old: "state" if old in floating else "counter" for old, _ in graph.updates}
    for node in graph.nodes:
        for index, kind in _statistics_of(node):
            name = tracer.source(node.args[index]) if index < len(node.args) else None
            if name is not None:
                kinds[name] = kind
    return kinds


def _statistics_of(node: Node) -> tuple[tuple[int, str], ...]:
    base = base_name(node)
    return ((3, "mean"), (4, "variance")) if "batch_norm" in base or base == "instance_norm" else ()


def _unit_interval(graph: Graph) -> set[str]:
    """Return the arguments that an operator refuses outside [0, 1]."""
    tracer = Tracer(graph)
    losses = [node for node in graph.nodes if base_name(node) == "binary_cross_entropy"]
    sources = {tracer.source(arg) for node in losses for arg in node.args[:2]}
    return {name for name in sources if name is not None}
